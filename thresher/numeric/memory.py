"""How much memory this process has taken, and how much is free for it; what collections cost."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
USABLE = 0.9  # of the available memory: the rest is for others

_is_frozen_for_good = False


def get_peak_bytes() -> int:
    """Return the most memory that this process has held, and that it holds on a GPU."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch = sys.modules.get("torch")
    on_gpu = torch.cuda.max_memory_allocated() if torch is not None and torch.cuda.is_available() else 0
    return int(peak * (1 if sys.platform == "darwin" else 1024) + on_gpu)


def freeze_for_good() -> None:
    """Let no collection of garbage look again at what there is now, to the end of this process.

    For programs that train often; more that was imported since may be frozen by another call.
    """
    global _is_frozen_for_good
    gc.freeze()
    _is_frozen_for_good = True


@contextmanager
def collect_only_new() -> Iterator[None]:
    """Let collections of garbage look only at what is made from here on.

    Once torch and transformers are imported, a full one takes 0.4 s, nearly all of it for modules.
    """
    # by the program that called us, or by ourselves; counting goes through all that is frozen
    if _is_frozen_for_good or gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def available_bytes() -> int | None:
    """Return the memory that is free for this process, the control group's limit included.

    None where unknown.
    """
    free = [value for value in (_free_of_machine(), _free_of_group()) if value is not None]
    return min(free) if free else None


def _free_of_machine() -> int | None:
    if not MEMINFO.exists():
        return None
    for line in MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def _free_of_group() -> int | None:
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if not (limit.exists() and used.exists()):
        return None
    text = limit.read_text().strip()
    return None if text == "max" else max(int(text) - int(used.read_text()) + _pages_of_files(), 0)


def _pages_of_files() -> int:
    """Return the bytes of the control group's file cache: they count as used, but can be freed."""
    stat = CGROUP / "memory.stat"
    lines = (line.split() for line in stat.read_text().splitlines()) if stat.exists() else ()
    return sum(int(line[1]) for line in lines if line[0] in {"active_file", "inactive_file"})
