"""`thresher warm-up`: compile what is compiled, before somebody waits for it."""

from __future__ import annotations

import os
import tempfile
import time

from thresher.cli import options
from thresher.cli.output import print_line


def prepare_kernels(quiet: options.Quiet = False) -> None:
    """Compile the kernels that common commands need, once per installation: about 30 s.

    Without it, the first command compiles those it needs. `make setup` runs it.
    """
    from thresher.selection.warm_up import compile_kernels

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["THRESHER_CACHE"] = folder  # made-up rows are not worth keeping
        compile_kernels()
    if not quiet:
        print_line(f"kernels are compiled ({time.monotonic() - began:.1f} s)", err=True)
