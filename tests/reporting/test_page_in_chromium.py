"""The pages in a headless Chromium: on a phone, by keyboard, in the dark and on paper."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from thresher.labeling.page import render_page
from thresher.reporting import report
from thresher.reporting.pages.rows import pool_map

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
KINDS = ("subset", "curated", "adapter", "curve", "comparison", "tuning")


class Browser:
    """A tab of a headless Chromium, spoken to by the DevTools protocol over two pipes."""

    def __init__(self, profile: Path) -> None:
        read_theirs, self.write = os.pipe()
        self.read, write_theirs = os.pipe()
        flags = [
            "--headless",
            "--disable-gpu",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--no-first-run",
        ]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")

        def pipes() -> None:  # the protocol reads from 3 and writes to 4
            high_read, high_write = os.dup(read_theirs), os.dup(write_theirs)
            os.dup2(high_read, 3)
            os.dup2(high_write, 4)

        self.process = subprocess.Popen(
            [CHROMIUM, *flags, "about:blank"],
            close_fds=False,
            preexec_fn=pipes,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_theirs)
        os.close(write_theirs)
        self.buffer, self.number, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def message(self) -> dict:
        while b"\0" not in self.buffer:
            part = os.read(self.read, 1 << 16)
            assert part, "Chromium has gone"
            self.buffer += part
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method: str, **params: object) -> dict:
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        if self.session is not None:
            request["sessionId"] = self.session
        os.write(self.write, json.dumps(request).encode() + b"\0")
        while True:
            elements = self.message()
            if elements.get("id") == self.number:
                assert "error" not in elements, elements
                return elements["result"]
            self.events.append(elements)

    def open(self, path: Path, *, width: int = 1280, scheme: str = "light", media: str = "screen") -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())

    def js(self, expression: str) -> object:
        elements = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in elements, elements
        return elements["result"].get("value")

    def press(self, key: str) -> None:
        codes = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowUp": 38, "ArrowDown": 40, "Escape": 27, "Tab": 9}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])

    def problems(self) -> list[dict]:
        bad = ("Runtime.exceptionThrown", "Log.entryAdded", "Page.javascriptDialogOpening")
        return [event for event in self.events if event.get("method") in bad]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.read)
        os.close(self.write)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    tab = Browser(tmp_path_factory.mktemp("profile"))
    yield tab
    tab.close()


@pytest.fixture(scope="module")
def pages(folders, tmp_path_factory):
    root = tmp_path_factory.mktemp("pages")
    return {kind: report(shutil.copytree(folders[kind], root / kind)) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_loaded_blocked_or_thrown(kind, browser, pages):
    browser.open(pages[kind])
    assert browser.problems() == []
    asked = [e["params"]["request"]["url"] for e in browser.events if e.get("method") == "Network.requestWillBeSent"]
    assert asked == [pages[kind].as_uri()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [360, 800, 1280])
def test_the_page_does_not_scroll_sideways(kind, width, browser, pages):
    browser.open(pages[kind], width=width)
    browser.js("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.js("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("kind", KINDS)
def test_text_on_a_phone_is_large_enough_to_read(kind, browser, pages):
    browser.open(pages[kind], width=360)
    sizes = browser.js(
        """[...document.querySelectorAll('main svg text')].filter(t => t.getClientRects().length).map(t =>
        parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a)"""
    )
    assert all(size > 9.5 for size in sizes), sorted(sizes)[:3]


def test_arrow_keys_read_the_rows_of_the_map_out(browser, pages):
    browser.open(pages["subset"])
    browser.js("document.querySelector('.map').focus()")
    time.sleep(0.3)  # the focus scrolls the map into view, and a scroll hides what is shown
    heard = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        browser.press(key)
        heard.append(browser.js("document.getElementById('live').textContent"))
    assert all(text.startswith(("Kept · ", "Dropped · ")) for text in heard)
    assert len(set(heard)) >= 3
    assert browser.js("!document.getElementById('tip').hidden")
    browser.press("Escape")
    assert browser.js("document.getElementById('tip').hidden")


def test_an_area_of_the_map_lists_its_rows_and_small_dots(browser, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(pool_map, "BACKGROUND", 40)
    monkeypatch.setattr(pool_map, "KEPT", 10)
    browser.open(report(shutil.copytree(folders["subset"], tmp_path / "subset")))
    assert browser.problems() == []
    browser.js("document.querySelector('.map').scrollIntoView({behavior: 'instant'})")
    browser.js("document.querySelector('.pick').click()")
    left, top, right, bottom = browser.js(
        "(b => [b.left + 1, b.top + 1, b.right - 1, b.bottom - 1])"
        "(document.querySelector('.map').getBoundingClientRect())"
    )
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    browser.call("Input.dispatchMouseEvent", type="mousePressed", x=left, y=top, button="left", clickCount=1)
    for x, y in corners[1:]:
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
    browser.call("Input.dispatchMouseEvent", type="mouseReleased", x=left, y=bottom, button="left", clickCount=1)
    counts = json.loads((folders["subset"] / "manifest.json").read_text())["counts"]
    kept, usable = counts["kept"], counts["usable"]
    told = browser.js("document.querySelector('.picked .counts').textContent")
    assert told == f"{usable} rows: {kept} kept, {usable - kept} dropped"
    assert len(browser.js("document.querySelector('.picked .places').textContent").splitlines()) == usable
    assert "label: " in browser.js("document.querySelector('.picked .counted').textContent")
    browser.js(
        "(s => { s.value = '0 0'; s.dispatchEvent(new Event('change')); })(document.querySelector('.show-group'))"
    )
    fewer = browser.js("document.querySelector('.picked .counts').textContent")
    assert 0 < int(fewer.split()[0]) < usable
    browser.js("document.querySelector('.pick').focus()")
    browser.press("Escape")
    assert browser.js("document.querySelector('.picked').hidden")


def test_every_row_of_the_map_shows_its_text_under_the_pointer(browser, pages):
    browser.open(pages["subset"])
    browser.js("document.querySelector('.map').scrollIntoView({behavior: 'instant'})")
    places = browser.js(
        """(() => { const svg = document.querySelector('.map svg'), m = svg.getScreenCTM();
        const data = JSON.parse(document.getElementById('data-map').textContent);
        return data.x.map((x, i) => { const p = new DOMPoint(x, data.y[i]).matrixTransform(m);
        return [p.x, p.y, data.text[i], data.x[i], data.y[i]]; }); })()"""
    )
    taken = {}
    for _, _, text, x, y in places:
        taken.setdefault((x, y), set()).add(text)
    for left, top, _, x, y in places[::7]:
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=left, y=top)
        shown = browser.js("document.getElementById('tip').textContent")
        assert shown.split("\n", 1)[1] in taken[x, y]


def choose(browser, name, value):
    browser.js(
        f"""(() => {{ const box = document.querySelector('{name}'); box.value = '{value}';
        box.dispatchEvent(new Event('change')); }})()"""
    )


def test_the_map_is_colored_by_label_and_shows_the_rows_of_one(browser, pages):
    browser.open(pages["subset"])
    dots = """[...document.querySelectorAll('.groups path')].map(p =>
        [p.getAttribute('class'), p.getAttribute('d').split('M').length - 1])"""
    data = json.loads(browser.js("document.getElementById('data-map').textContent"))
    choose(browser, ".color-by", "0")
    drawn = browser.js(dots)
    assert sum(n for _, n in drawn) == len(data["x"])
    assert len({name.split()[-1] for name, _ in drawn}) == len(data["groups"][0]["values"])
    legend = browser.js("[...document.querySelectorAll('.group-legend li')].map(e => e.textContent)")
    assert legend == data["groups"][0]["values"]
    choose(browser, ".show-group", "0 1")
    assert sum(n for _, n in browser.js(dots)) == data["groups"][0]["of"].count(1)
    choose(browser, ".color-by", "")
    choose(browser, ".show-group", "")
    assert browser.js(dots) == []
    assert browser.problems() == []


def test_arrow_keys_read_the_points_of_a_chart_out(browser, pages):
    browser.open(pages["comparison"])
    browser.js("document.querySelector('.chart').focus()")
    browser.press("ArrowDown")
    first = browser.js("document.getElementById('live').textContent")
    assert first == "facility-location, 500 rows: better by 2.1 points [1.2, 3.0]"
    browser.press("ArrowDown")
    assert browser.js("document.getElementById('live').textContent").startswith("k-center, 500 rows")


def test_everything_that_can_be_focused_has_a_name(browser, pages):
    for kind in KINDS:
        browser.open(pages[kind])
        nameless = browser.js(
            """[...document.querySelectorAll('[tabindex="0"], a, summary, input')].filter(e =>
            !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label')?.textContent.trim())).length"""
        )
        assert nameless == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_a_contrast_of_four_and_a_half(kind, scheme, browser, pages):
    browser.open(pages[kind], scheme=scheme)
    assert (browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") == (
        scheme == "light"
    )
    worst = browser.js(
        """(() => {
        const parse = (c) => c.match(/[0-9.]+/g).map(Number);
        const light = (c) => c.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((s, v, i) => s + v * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
        let worst = 99;
        for (const e of document.querySelectorAll('main *, header *, footer *')) {
            if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
            if (['SCRIPT', 'STYLE', 'title'].includes(e.tagName)) continue;
            const style = getComputedStyle(e), ink = parse(e.closest('svg') ? style.fill : style.color);
            const [a, b] = [light(ink), light(behind(e))];
            worst = Math.min(worst, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
        } return worst; })()"""
    )
    assert worst >= 4.5


@pytest.mark.parametrize("kind", KINDS)
def test_on_paper_every_table_is_unfolded_and_the_page_is_light(kind, browser, pages):
    browser.open(pages[kind], scheme="dark", media="print")
    assert browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    heights = browser.js("[...document.querySelectorAll('details table')].map(t => t.getBoundingClientRect().height)")
    assert heights
    assert all(height > 10 for height in heights)
    paper = base64.b64decode(browser.call("Page.printToPDF")["data"])
    assert paper[:5] == b"%PDF-"


def test_without_its_script_a_page_still_tells_everything(browser, pages):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages["curve"])
        assert browser.js("document.querySelectorAll('.point > title').length") > 10
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.fixture
def labeling_page(tmp_path):
    names = [f"label {number}" for number in range(12)]
    rows = [
        {"thresher_row_id": f"r{i}", "_text": f"text {i} <b>", "thresher_why": "why", "thresher_nearest": None}
        for i in range(4)
    ]
    path = tmp_path / "label.html"
    rows = [{**row, "thresher_nearest_label": None} for row in rows]
    path.write_text(render_page(rows, names, guide="Choose one.", name="ask-1"), encoding="utf-8")
    return path


def type_text(browser, text):
    for sign in text:
        browser.call("Input.dispatchKeyEvent", type="keyDown", text=sign, key=sign)
        browser.call("Input.dispatchKeyEvent", type="keyUp", key=sign)


def press_enter(browser):
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)


def test_rows_are_labeled_by_keyboard_kept_on_reload_and_downloaded(browser, labeling_page, tmp_path):
    browser.open(labeling_page)
    state, text = "document.getElementById('state').textContent", "document.getElementById('text').textContent"
    browser.js("localStorage.clear()")
    browser.open(labeling_page)
    assert (browser.js(text), browser.js(state)) == ("text 0 <b>", "0 of 4 labeled")
    type_text(browser, "3")  # the third label
    assert (browser.js(text), browser.js(state)) == ("text 1 <b>", "1 of 4 labeled")
    type_text(browser, "LABEL 11")  # searched
    press_enter(browser)
    type_text(browser, "new one")  # a label of the annotator's own
    press_enter(browser)
    browser.press("ArrowLeft")
    assert browser.js(text) == "text 2 <b>"
    assert "new one" in browser.js("document.querySelector('[aria-pressed=true]').textContent")
    browser.open(labeling_page, width=360, scheme="dark")
    assert (browser.js(text), browser.js(state)) == ("text 3 <b>", "3 of 4 labeled")
    assert browser.js("document.documentElement.scrollWidth") <= 360
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.js("document.getElementById('save').click()")
    file = tmp_path / "answers.jsonl"
    for _ in range(100):
        if file.is_file() and file.stat().st_size:
            break
        time.sleep(0.05)
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(answer["thresher_row_id"], answer["label"]) for answer in answers] == [
        ("r0", "label 2"),
        ("r1", "label 11"),
        ("r2", "new one"),
    ]
    assert browser.problems() == []
