"""Reads a page, and checks that its command is one that the command line knows."""

import json
import shlex
from pathlib import Path

from thresher.cli.main import main
from thresher.reporting.build import report
from thresher.reporting.pages.reproduce import build_command


def read_page(folder):
    """Return the text of the page of a folder, after its command was tried."""
    content = json.loads((Path(folder) / "manifest.json").read_text())
    words = shlex.split(build_command(content, folder))
    assert main([*words[1:], "--no-such-option"]) == 2
    return report(folder).read_text(), words
