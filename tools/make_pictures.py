"""Draws the pictures of the documentation: the top of a result's page, as a browser shows it.

    python tools/make_pictures.py curve=FOLDER comparison=FOLDER advice=FOLDER

Each FOLDER is a result of `curve`, `compare` or `advise`; `make demo` makes them. The pictures go
to docs/images, with 256 colors, each below 150 kB. Chromium and Pillow are needed.
"""

from __future__ import annotations

import argparse
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


def draw(name: str, folder: Path, *, height: int) -> Path:
    """Return the picture of a folder's page."""
    from PIL import Image

    import thresher as th

    page, out = th.report(folder), IMAGES / f"{name}.png"
    with tempfile.TemporaryDirectory() as work:
        shot = Path(work) / "shot.png"
        command = [find_browser(), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--window-size={WIDTH},{height}", f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        Image.open(shot).convert("RGB").quantize(256).save(out, optimize=True)
    if out.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{out}: must be at most {MOST_BYTES:,} bytes, has {out.stat().st_size:,}; give less --height")
    return out


def main() -> int:
    """Draw the pictures that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--height", type=int, default=HEIGHT, help="of the window, in pixels")
    arguments = parser.parse_args()
    for pair in arguments.pictures:
        name, _, folder = pair.partition("=")
        print(draw(name, Path(folder), height=arguments.height))
    return 0


if __name__ == "__main__":
    sys.exit(main())
