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

COLORS = {  # tone -> its color on a light and on a dark page
    "page": ("#ffffff", "#12151a"),
    "panel": ("#f5f6f8", "#1b2027"),
    "ink": ("#15191f", "#e9ecf1"),
    "muted": ("#545c68", "#a3acb9"),
    "grid": ("#e3e6ea", "#272d36"),
    "edge": ("#c9ced6", "#3d4551"),
    "gray": ("#69717d", "#98a1ae"),
    "blue": ("#0b63b0", "#62b0f5"),
    "orange": ("#b54708", "#f59a56"),
    "green": ("#00704f", "#45c99b"),
    "purple": ("#9c3a78", "#e593c6"),
    "olive": ("#766200", "#d3b845"),
    "sky": ("#0f7285", "#5fc6da"),
}
LIGHT = {tone: light for tone, (light, _) in COLORS.items()}
DARK = {tone: dark for tone, (_, dark) in COLORS.items()}


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
