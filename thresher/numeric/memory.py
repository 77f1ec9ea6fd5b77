"""How much memory this process has taken."""

from __future__ import annotations

import resource
import sys


def get_peak_bytes() -> int:
    """Return the most memory that this process has held, and that it holds on a GPU."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch = sys.modules.get("torch")
    on_gpu = torch.cuda.max_memory_allocated() if torch is not None and torch.cuda.is_available() else 0
    return int(peak * (1 if sys.platform == "darwin" else 1024) + on_gpu)
