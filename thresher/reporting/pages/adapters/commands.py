"""The commands that write folders of several adapters again, from their manifests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMMANDS = {"soup": "soup", "experts": "train"}


def list_places(run: Mapping[str, Any], role: str) -> list[str]:
    """Return where rows were, or the role in capitals where the manifest does not say."""
    return list(run.get(role) or [role.upper()])


def build_adapter_words(content: Mapping[str, Any]) -> list[str]:
    """Return data and options of such a command, without those of the training.

    Args:
        content: of the manifest.
    """
    run, settings = content["run"], content["settings"]
    if content["kind"] == "soup":
        words = [*list_places(run, "adapters"), "--dev", ",".join(list_places(run, "dev"))]
        words += [word for rows in run.get("data", ()) for word in ("--data", rows)]
        own = {name: settings[name] for name in ("ways", "density", "seed")}
    else:
        words = [",".join(list_places(run, "inputs"))]
        own = {"experts": settings["k"]}
        own |= {name: settings[name] for name in ("clusters", "common", "encoder", "seeds", "seed")}
    words += ["--eval", ",".join(list_places(run, "eval"))]
    for name, value in own.items():
        if value is not None:
            words += [f"--{name}", ",".join(value) if isinstance(value, list | tuple) else str(value)]
    return words
