"""Colors by what they stand for, for a light and a dark page.

The hues are those of Okabe and Ito (2008, jfly.uni-koeln.de/color), which stay apart for
color-blind readers, darkened or lightened until each has a contrast of at least 4.5 with the page,
so that text may take them too. Random is always gray. Color never stands alone: methods differ in
the shape of their points and the dashes of their lines as well.
"""

from __future__ import annotations

from collections.abc import Sequence

RANDOM = "random"
METHOD_TONES = ("blue", "orange", "green", "purple", "olive", "sky")
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")

LIGHT = {
    "page": "#ffffff",
    "panel": "#f5f6f8",
    "ink": "#15191f",
    "muted": "#545c68",
    "grid": "#e3e6ea",
    "edge": "#c9ced6",
    "gray": "#69717d",
    "blue": "#0b63b0",
    "orange": "#b54708",
    "green": "#00704f",
    "purple": "#9c3a78",
    "olive": "#766200",
    "sky": "#0f7285",
}
DARK = {
    "page": "#12151a",
    "panel": "#1b2027",
    "ink": "#e9ecf1",
    "muted": "#a3acb9",
    "grid": "#272d36",
    "edge": "#3d4551",
    "gray": "#98a1ae",
    "blue": "#62b0f5",
    "orange": "#f59a56",
    "green": "#45c99b",
    "purple": "#e593c6",
    "olive": "#d3b845",
    "sky": "#5fc6da",
}


def assign_tones(methods: Sequence[str]) -> dict[str, str]:
    """Return the tone of each method: gray for random, the others in order of appearance."""
    others = (name for name in methods if name != RANDOM)
    tones = {name: METHOD_TONES[i % len(METHOD_TONES)] for i, name in enumerate(others)}
    return {name: tones.get(name, "gray") for name in methods}


def assign_shapes(methods: Sequence[str]) -> dict[str, str]:
    """Return the shape of each method's points: a circle for random."""
    others = (name for name in methods if name != RANDOM)
    shapes = {name: SHAPES[i % len(SHAPES)] for i, name in enumerate(others, start=1)}
    return {name: shapes.get(name, SHAPES[0]) for name in methods}
