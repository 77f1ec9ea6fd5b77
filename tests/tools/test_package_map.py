"""The picture of the packages is drawn from the imports, and the committed one is up to date."""

import xml.etree.ElementTree as ET
from pathlib import Path

from package_map import PICTURE, WORDS, draw, drop_implied, read_arrows, read_layers

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def test_the_committed_picture_is_up_to_date():
    layers = read_layers(ROOT)
    packages = [name for layer in layers for name in layer]
    picture = draw(layers, read_arrows(ROOT, packages))
    assert (ROOT / PICTURE).read_text() == picture, "run: python tools/package_map.py"
    assert set(packages) == set(WORDS), "the words of the picture name every package and no other"


def test_arrows_are_read_from_imports_between_packages(tmp_path):
    for path, text in {
        "__init__.py": "from thresher.b import thing\n",
        "a/__init__.py": "",
        "a/one.py": "from thresher.a import two\nfrom thresher.b.deep import thing\nimport numpy\n",
        "a/two.py": "def f():\n    import thresher.c\n",
        "b/__init__.py": "",
        "b/deep.py": "thing = 1\n",
        "c.py": "",
    }.items():
        (tmp_path / "thresher" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "thresher" / path).write_text(text)
    assert read_arrows(tmp_path, ["a", "b", "c"]) == {("a", "b"), ("a", "c")}


def test_arrows_that_follow_from_others_are_left_out():
    chain = {("a", "b"), ("b", "c"), ("c", "d")}
    assert drop_implied(chain | {("a", "c"), ("a", "d")}) == chain


def test_every_box_lies_in_its_layer_and_none_covers_another():
    layers = [["a"], ["b", "c", "d"], ["e"]]
    root = ET.fromstring(draw(layers, {("a", "b"), ("a", "c"), ("a", "d"), ("b", "e"), ("d", "e"), ("a", "e")}))
    boxes = [box for box in root.iter(f"{SVG}rect") if box.get("stroke")]
    tops = [float(box.get("y")) for box in boxes]
    assert len(set(tops)) == 3
    middle = sorted(float(box.get("x")) for box in boxes if box.get("y") == boxes[1].get("y"))
    width = float(boxes[0].get("width"))
    assert all(right - left >= width for left, right in zip(middle, middle[1:], strict=False))


def test_an_import_against_the_layers_is_red():
    layers = [["a"], ["b"]]
    assert "#d92d20" not in draw(layers, {("a", "b")}).partition("</defs>")[2]
    picture = draw(layers, {("a", "b"), ("b", "a")})
    assert picture.partition("</defs>")[2].count("url(#up)") == 1
    assert "against the layers" in picture
