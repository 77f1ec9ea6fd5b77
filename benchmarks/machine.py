"""What a measurement must say of the machine it was made on."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version


def machine(*packages: str) -> dict[str, object]:
    """Return processor, cores, Python and the versions of the packages that were measured."""
    model = platform.processor()
    try:
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass  # not Linux: the platform's own name has to do
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in ("thresher", "numpy", *packages)},
        "date": datetime.now(UTC).date().isoformat(),
    }
