"""Draws the pictures of the documentation: a result's page, as a browser shows it.

    python tools/make_pictures.py advice=FOLDER curve=FOLDER comparison=FOLDER map=FOLDER#figure-map

Each FOLDER is a result of `advise`, `curve`, `compare` or `select`; `make demo` makes the first.
The picture is the top of the page, or the figure whose title has the id after `#`. The pictures go
to docs/images, with at most 256 colors, each below 150 kB. Chromium and Pillow are needed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = Path(__file__).parent.parent / "docs/images"
WIDTH, HEIGHT = 1000, 900  # of the window, in pixels
MOST_BYTES = 150_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str:
    """Return the path of a browser that takes pictures without a screen."""
    for name in BROWSERS:
        path = shutil.which(name)
        if path is not None:
            return path
    raise SystemExit(f"a browser is needed, found none of {', '.join(BROWSERS)}")


def draw(name: str, folder: Path, anchor: str, *, height: int) -> Path:
    """Return the picture of a folder's page, or of one of its figures."""
    from PIL import Image

    import thresher as th

    page, out = th.report(folder), IMAGES / f"{name}.png"
    with tempfile.TemporaryDirectory() as work:
        shot = Path(work) / "shot.png"
        command = [find_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--window-size={WIDTH},{height}", f"--screenshot={shot}"]
        if anchor:
            page = show_alone(page, anchor, Path(work))
        command.append(page.resolve().as_uri())
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        for n_colors in (256, 64, 24):
            Image.open(shot).convert("RGB").quantize(n_colors).save(out, optimize=True)
            if out.stat().st_size <= MOST_BYTES:
                break
    if out.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{out}: must be at most {MOST_BYTES:,} bytes, has {out.stat().st_size:,}; give less --height")
    return out


def show_alone(page: Path, anchor: str, work: Path) -> Path:
    """Write a copy of a page that shows one figure and nothing else, and return its path."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    alone = f"document.querySelector('main').replaceChildren(document.getElementById('{anchor}').closest('figure'))"
    copy = work / "figure.html"
    copy.write_text(text.replace("</body>", f"<script>{alone}</script></body>"), encoding="utf-8")
    return copy


def main() -> int:
    """Draw the pictures that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", metavar="NAME=FOLDER[#ELEMENT]")
    parser.add_argument("--height", type=int, default=HEIGHT, help="of the window, in pixels")
    arguments = parser.parse_args()
    for pair in arguments.pictures:
        name, _, place = pair.partition("=")
        folder, _, anchor = place.partition("#")
        print(draw(name, Path(folder), anchor, height=arguments.height))
    return 0


if __name__ == "__main__":
    sys.exit(main())
