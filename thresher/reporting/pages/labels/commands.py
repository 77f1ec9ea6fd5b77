"""The commands that write folders of labels and of grown rows again, from their manifests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thresher.curation.correction.settings import ABSTENTION

COMMANDS = {
    "corrected": "correct",
    "asked": "label ask",
    "labeled": "label add",
    "joined": "label join",
    "refined": "label refine",
    "label-budget": "label budget",
    "grown": "grow",
    "grown-rounds": "grow",
}


def build_label_words(content: Mapping[str, Any], pool: list[str]) -> list[str]:
    """Return data and options of such a command; what the manifest does not name is in capitals.

    Args:
        content: of the manifest.
        pool: the words that name the pool, none where they are not known.
    """
    kind, rows = str(content["kind"]), pool or ["POOL"]
    if kind == "corrected":
        models = {role: content[role]["name"] for role in ("model", "judge") if role in content}
        abstain = content.get("abstain")
        own = {name: content[name] for name in ("column", "max_new_tokens", *([] if abstain else ["eta"]))}
        own |= {name: abstain[name] for name in ABSTENTION} if abstain else {}
        return [*rows, *(["--abstain"] if abstain else []), *_list_options({**models, **own})]
    if kind == "labeled":
        return ["ASKED", "ANSWERS"]
    if kind == "joined":
        return [*rows, "--rules", ",".join(content["rules"]), "--how", str(content["how"])]
    if kind == "refined":
        more = ["--unlabeled", "UNLABELED"] if content["counts"]["unlabeled"] else []
        models = {"encoder": content["encoder"]}
        return [*rows, "--eval", "EVAL", *more, *_list_options({**content["settings"], **models})]
    if kind == "grown":
        own = {name: value for name, value in content["settings"].items() if name != "teacher"}
        teacher = content["writer"]["name"] if content["writer"] != content["model"] else None
        return [*rows, "--model", content["model"]["name"], *_list_options({"teacher": teacher, **own})]
    if kind == "grown-rounds":
        own = {name: value for name, value in content["settings"].items() if name not in ("teacher", "round")}
        asked = {"base": content["base"], "rounds": content["rounds"], **own}
        return [*rows, "--eval", "EVAL", "--model", "MODEL", *_list_options(asked)]
    if kind == "label-budget":
        return [
            "--curve",
            "NAME=CURVE",
            "--price",
            "NAME=PRICE",
            "--money",
            ",".join(f"{m:g}" for m in content["money"]),
        ]
    options = {name: content[name] for name in ("batch", "by", "label_column", "annotator")}
    labeled = ["--labeled", "LABELED"] if content["counts"]["labeled"] else []
    return [*rows, *labeled, *_list_options(options), "--check", str(content["check"])]


def _list_options(options: Mapping[str, Any]) -> list[str]:
    return [
        word
        for name, value in options.items()
        if value is not None
        for word in (f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value))
    ]
