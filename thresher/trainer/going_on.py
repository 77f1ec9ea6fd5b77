"""Continuing from an adapter: `train --from FOLDER` starts with its weights, not fresh ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thresher.artifacts.folder import MANIFEST
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.seal import find_damage, hash_file
from thresher.artifacts.stored import read_json
from thresher.errors import InputError, SettingsError
from thresher.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from thresher.models.causal_lm.base_model import BaseModel
from thresher.trainer.adapter import METRICS
from thresher.trainer.engine.adapters.kinds import VERA_FACTOR
from thresher.trainer.engine.load_model import MINILM, get_loadable_name
from thresher.trainer.engine.pooled_classifier import HEAD_CONFIG, HEAD_WEIGHTS, has_head, read_head_config
from thresher.trainer.engine.pooling import Pooling
from thresher.trainer.settings import AdapterKind, TrainSettings

FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, HEAD_CONFIG, HEAD_WEIGHTS)
# what can be trained further, by the name that peft gives it
KINDS: dict[str, tuple[AdapterKind, ...]] = {
    "LORA": ("lora", "loraplus", "lorafa", "half"),
    "VERA": ("vera",),
    "PROMPT_TUNING": ("prompt",),
    "PREFIX_TUNING": ("prefix",),
}


@dataclass(frozen=True)
class Start:
    """The adapter that a training goes on from.

    Attributes:
        folder: of peft.
        config: content of its configuration.
    """

    folder: Path
    config: Mapping[str, Any]

    @property
    def base(self) -> str:
        """Name or folder of the base that it adapts."""
        return str(self.config["base_model_name_or_path"])

    def choose_model(self, model: str | Path | None) -> str | Path | None:
        """Return the base to load: what was asked for, else the adapter's own."""
        return model or (None if self.base == MINILM else self.base)

    def identity(self) -> dict[str, str]:
        """Return the checksum of each file that decides the result."""
        return {name: hash_file(self.folder / name) for name in FILES if (self.folder / name).is_file()}

    def take_settings(self, settings: TrainSettings) -> TrainSettings:
        """Return the settings with what the adapter decides: kind, rank, scale and layers.

        Raises:
            SettingsError: a setting asks for something else than the adapter is.
        """
        kind, default = str(self.config["peft_type"]), TrainSettings()
        kinds = KINDS.get(kind)
        if kinds is None:
            raise SettingsError(f"from: {kind} adapters cannot be trained further, got {self.folder}; train a new one")
        if settings.adapter not in kinds:
            if settings.adapter is not None:
                raise SettingsError(
                    f"from: an adapter of kind {kind} goes on as {' or '.join(kinds)}, got adapter "
                    f"'{settings.adapter}'; leave adapter out"
                )
            settings = replace(settings, adapter=kinds[0])
        for name, value in self._list_fixed().items():
            given = getattr(settings, name)
            if given not in (getattr(default, name), value):
                raise SettingsError(
                    f"from: {name} is that of the adapter, {value}, got {given}; leave {name} out, or train a new one"
                )
            settings = replace(settings, **{name: value})
        if settings.lora_targets != "auto" or settings.lora_layers != "all":
            raise SettingsError("from: the layers are those of the adapter; leave lora_targets and lora_layers out")
        return settings

    def _list_fixed(self) -> dict[str, Any]:
        """Return the settings that the adapter decides."""
        config = self.config
        if config["peft_type"] == "LORA":
            return {
                "lora_rank": int(config["r"]),
                "lora_alpha": float(config["lora_alpha"]),
                "rslora": bool(config.get("use_rslora")),
                "dora": bool(config.get("use_dora")),
            }
        if config["peft_type"] == "VERA":
            return {"lora_rank": int(config["r"]) // VERA_FACTOR}
        return {"virtual_tokens": int(config["num_virtual_tokens"])} if "num_virtual_tokens" in config else {}

    def check_fit(self, base: BaseModel, labels: tuple[str, ...], pooling: Pooling | None) -> None:
        """Refuse another base, other labels and another pooling than the adapter was made for.

        Raises:
            InputError: one of these differs.
        """
        if self.base not in (base.name, get_loadable_name(base)):
            raise InputError(f"from: {self.folder} adapts '{self.base}', got model '{base.name}'; leave model out")
        manifest = self.folder / MANIFEST
        if manifest.is_file():
            model = Manifest.read(self.folder).content.get("model") or {}
            if model.get("fingerprint") not in (None, base.fingerprint):
                raise InputError(
                    f"from: {self.folder} was trained on other weights of '{base.name}' than are there now; train a "
                    f"new adapter"
                )
        if not labels:
            return
        own_pooling, own_labels = self._read_head()
        if own_labels != labels or own_pooling != pooling:
            raise InputError(
                f"from: labels and pooling must be those of {self.folder}, which has {len(own_labels)} labels, found "
                f"{len(labels)} in the rows and their pool; train a new adapter"
            )

    def _read_head(self) -> tuple[Pooling | None, tuple[str, ...]]:
        """Return pooling and labels of a classifier; no pooling: the head of its architecture."""
        if has_head(self.folder):
            return read_head_config(self.folder)
        metrics = self.folder / METRICS
        if not metrics.is_file():
            raise InputError(f"from: a classifier goes on with its head, found none in {self.folder}; train a new one")
        return None, tuple(read_json(metrics).get("labels", ()))


def open_start(folder: str | Path) -> Start:
    """Open the adapter that training goes on from.

    Raises:
        InputError: the folder holds no adapter, or is damaged.
    """
    path = Path(folder).expanduser()
    if not (path / ADAPTER_CONFIG).is_file():
        hint = "; give it as model" if (path / "config.json").is_file() else ""
        raise InputError(f"from: must be the folder of an adapter, found no {ADAPTER_CONFIG} in {path}{hint}")
    damage = find_damage(path) if (path / MANIFEST).is_file() else None
    if damage is not None:
        raise InputError(f"from: {damage}; train it again")
    try:
        config = read_json(path / ADAPTER_CONFIG)
    except json.JSONDecodeError as error:
        raise InputError(f"from: {path / ADAPTER_CONFIG} must be JSON, got {error}; copy it again") from None
    needed = ["base_model_name_or_path", "peft_type"]
    if isinstance(config, dict) and config.get("peft_type") == "LORA":
        needed += ["r", "lora_alpha"]
    absent = [name for name in needed if not isinstance(config, dict) or config.get(name) is None]
    if absent:
        raise InputError(f"from: {path / ADAPTER_CONFIG} must hold {', '.join(absent)}, found none; copy it again")
    return Start(path, config)
