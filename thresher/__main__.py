"""Run the command line: `thresher`, or `python -m thresher`."""

import gc

from thresher.cli.signals import exit_on_signals

N_OBJECTS = 200_000  # new ones between two looks for unreachable ones: imports leave none of these


def run() -> None:
    """Run the command line and exit with the code that fits."""
    exit_on_signals()  # the imports take a second
    gc.set_threshold(N_OBJECTS)
    from thresher.cli.main import run as run_main

    run_main()


if __name__ == "__main__":
    run()
