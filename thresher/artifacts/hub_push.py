"""Publishing an output folder on the Hugging Face Hub: private, in one commit, with a card."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.artifacts.seal import IDENTITY, find_damage
from thresher.errors import InputError, ManifestError, MissingExtraError
from thresher.printable import escape_markdown

CARD = "README.md"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
_REPO_TYPES = {"subset": "dataset", "adapter": "model", "snapshot": "dataset"}


def check_push(repo_id: str | None, out: str | Path | None = "") -> None:
    """Refuse, before anything is computed, what could not be published afterwards.

    Args:
        repo_id: "owner/name"; nothing is checked where it is None.
        out: the folder that will be published, where that may be missing.

    Raises:
        InputError: the id is malformed, the Hub is switched off, or nobody is logged in.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    if repo_id is None:
        return
    if out is None:
        raise InputError("push_to_hub: needs the folder that is published, found none; add --out DIR")
    if not _ID.fullmatch(repo_id):
        raise InputError(f"push_to_hub: must be owner/name, got '{repo_id}'")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingExtraError("huggingface_hub", "push_to_hub", "hub")
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise InputError("push_to_hub: the Hub must be reachable, HF_HUB_OFFLINE is set; unset it, or leave this out")
    if not get_token():
        raise InputError("push_to_hub: a token is required, found none; set HF_TOKEN, or run 'hf auth login'")


def push_to_hub(folder: str | Path, repo_id: str, *, private: bool = True) -> str:
    """Publish a subset, an adapter or a snapshot, in one commit: all of its files, or none.

    Args:
        folder: that thresher wrote; nothing in it changes.
        repo_id: "owner/name"; made where it is not there.
        private: of a repository that is made.

    Returns:
        The address of the commit.

    Raises:
        InputError: the Hub refused it, or cannot be reached.
        ManifestError: the folder is of another kind, or damaged.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    check_push(repo_id)
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    path = Path(folder)
    content = Manifest.read(path).content
    kind = str(content.get("kind"))
    if kind not in _REPO_TYPES:
        raise ManifestError(f"{path}: must be a {', '.join(_REPO_TYPES)} to be published, found '{kind}'")
    if (damage := find_damage(path)) is not None:
        raise ManifestError(f"{damage}; write it again")
    files = [each for each in sorted(path.rglob("*")) if each.is_file() and each.name != IDENTITY]
    names = {each.relative_to(path).as_posix(): each for each in files}
    shown = {name: each for name, each in names.items() if not any(part.startswith(".") for part in name.split("/"))}
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(each)) for name, each in shown.items()]
    if CARD not in shown:
        operations.append(CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=format_card(content).encode()))
    api, repo_type = HfApi(endpoint=os.environ.get("HF_ENDPOINT")), _REPO_TYPES[kind]
    message = f"Publish a {kind} of thresher"
    try:
        api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        commit = api.create_commit(repo_id, operations, commit_message=message, repo_type=repo_type)
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
        raise InputError(f"{repo_id}: the Hub must take the {kind}, got '{first}'; check the token's rights") from error
    return str(commit.commit_url)


def format_card(content: Mapping[str, Any]) -> str:
    """Return the card of a subset: how its rows were chosen, from what, and what was dropped."""
    counts = content.get("counts", {})
    lines = ["---", "tags: [thresher]", "---", "", "# Rows selected by thresher", ""]
    kept, usable = counts.get("kept"), counts.get("usable")
    if kept is not None and usable is not None:
        method, budget = escape_markdown(str(content["method"])), escape_markdown(str(content["budget"]))
        lines += [f"{kept:,} of {usable:,} rows, selected by `{method}` (budget {budget}, seed {content['seed']}).", ""]
    lines += ["| dropped because | rows |", "|---|---|"]
    reasons = {**counts.get("dropped_by_reason", {}), **counts.get("rejected_by_reason", {})}
    lines += [f"| {escape_markdown(str(reason))} | {count:,} |" for reason, count in reasons.items()]
    lines += ["", "| read from | sha256 |", "|---|---|"]
    lines += [f"| {escape_markdown(str(one['name']))} | {one['sha256']} |" for one in content.get("inputs", ())]
    lines += ["", "`manifest.json` has the settings, the models and all counts.", ""]
    return "\n".join(lines)
