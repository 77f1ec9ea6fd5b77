"""How fast the map of a large pool is in a browser, and how large its page.

    thresher select POOL --method prototypes --encoder static --budget 10% --out chosen
    python benchmarks/map_speed.py chosen --out benchmarks/results/map_speed.json

Chromium opens the page without a screen. The times are of the page's own code, and of the answer
to an area drawn around every row.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHANGE = """(() => {{ const s = document.querySelector('{name}'), t = performance.now(); s.value = '{value}';
s.dispatchEvent(new Event('change')); return performance.now() - t; }})()"""
HOVER = """(() => { const m = document.querySelector('.map'), r = m.getBoundingClientRect(), t = performance.now();
for (let i = 0; i < 50; i++)
m.dispatchEvent(new PointerEvent('pointermove', { clientX: r.left + 10 * i, clientY: r.top + 100 + i }));
return (performance.now() - t) / 50; })()"""
CORNERS = (
    "(b => [b.left + 1, b.top + 1, b.right - 1, b.bottom - 1])(document.querySelector('.map').getBoundingClientRect())"
)


def main() -> None:
    """Write the page, open it, and time what a reader does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    import thresher as th
    from tests.reporting.test_page_in_chromium import Browser

    before = resource.getrusage(resource.RUSAGE_SELF)
    page = th.report(arguments.folder)
    after = resource.getrusage(resource.RUSAGE_SELF)
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(Path(profile))
        began = time.monotonic()
        browser.open(page)
        opened = time.monotonic() - began
        hidden = browser.js(CHANGE.format(name=".show-group", value="0 0"))
        shown = browser.js(CHANGE.format(name=".show-group", value=""))
        colored = browser.js(CHANGE.format(name=".color-by", value="0"))
        browser.js("document.querySelector('.map').scrollIntoView({behavior: 'instant'})")
        hover = browser.js(HOVER)
        browser.js("document.querySelector('.pick').click()")
        left, top, right, bottom = browser.js(CORNERS)
        mouse = {"button": "left", "buttons": 1, "clickCount": 1}
        browser.call("Input.dispatchMouseEvent", type="mousePressed", x=left, y=top, **mouse)
        for x, y in ((right, top), (right, bottom), (left, bottom)):
            browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, **mouse)
        began = time.monotonic()
        browser.call("Input.dispatchMouseEvent", type="mouseReleased", x=left, y=bottom, **mouse)
        counts = browser.js("document.querySelector('.picked .counts').textContent")
        drawn = time.monotonic() - began
        assert browser.problems() == []
        browser.close()
    result = {
        "area": counts,
        "page_bytes": page.stat().st_size,
        "report_cpu_seconds": round(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, 1),
        "milliseconds": {
            "open": round(1000 * opened),
            "show one label": round(hidden),
            "show all": round(shown),
            "color by label": round(colored),
            "hover": round(hover, 1),
            "area around all rows": round(1000 * drawn),
        },
        "load": os.getloadavg()[0],
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
