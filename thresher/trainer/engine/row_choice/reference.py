"""The model that says which tokens are novel: found, checked and hashed before any training."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from thresher.artifacts.local_path import expand_path
from thresher.artifacts.remote.fetch import localize
from thresher.errors import InputError, SettingsError
from thresher.models.adapter_files import ADAPTER_CONFIG
from thresher.models.causal_lm.adapter import read_base_name
from thresher.models.causal_lm.base_model import BaseModel, find_base
from thresher.trainer.engine.load_model import get_loadable_name
from thresher.trainer.settings import Task, TrainSettings

HASHED = (".safetensors", ".bin", ".json")


def check_choice(settings: TrainSettings, task: Task, base: BaseModel) -> None:
    """Refuse choices of tokens that do not fit the task, and a reference that is not there.

    Raises:
        SettingsError: masked or chosen tokens of a classifier, which has none.
        InputError: the reference is no model of the same tokens.
    """
    for name in ("mask_answer", "tokens"):
        if task == "classification" and getattr(settings, name) != getattr(settings.plain, name):
            raise SettingsError(f"train: {name} is for language models, and these rows have labels; leave it out")
    if settings.token_reference is not None:
        find_reference(settings, base)


def find_reference(settings: TrainSettings, base: BaseModel) -> Path:
    """Return the folder of the reference: an adapter of the base, or a model of as many tokens.

    Raises:
        InputError: it is no model, one of other tokens, or an adapter of another base.
    """
    folder = Path(localize(str(settings.token_reference))).expanduser()
    if (folder / ADAPTER_CONFIG).is_file():
        own = read_base_name(folder)
        if not {own, own.partition("@")[0]} & {base.name, get_loadable_name(base)}:
            raise InputError(
                f"token_reference: an adapter of the base '{base.name}' is required, found one of '{own}' in {folder}"
            )
        return expand_path(folder)
    model = find_base(folder if folder.is_dir() else str(settings.token_reference))
    if model.n_vocabulary != base.n_vocabulary:
        raise InputError(
            f"token_reference: a model of the base's {base.n_vocabulary:,} tokens is required, found "
            f"{model.n_vocabulary:,} in '{model.name}'"
        )
    return model.folder


def identify_reference(settings: TrainSettings, base: BaseModel) -> dict[str, Any]:
    """Return the hash of the reference's files, where there is one."""
    if settings.token_reference is None:
        return {}
    hashed = hashlib.sha256()
    for path in sorted(find_reference(settings, base).iterdir()):
        if path.suffix in HASHED:
            hashed.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return {"token_reference": hashed.hexdigest()}
