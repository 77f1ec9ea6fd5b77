"""Run the command line: `python -m thresher`."""

from thresher.cli.main import run

run()
