"""Run the command line: `thresher`, or `python -m thresher`."""

from thresher.cli.signals import exit_on_signals


def run() -> None:
    """Run the command line and exit with the code that fits."""
    exit_on_signals()  # the imports take a second
    from thresher.cli.main import run as run_main

    run_main()


if __name__ == "__main__":
    run()
