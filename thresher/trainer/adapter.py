"""Adapter: a folder that any peft user can load, with what it was measured at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from thresher.artifacts.manifest import Manifest
from thresher.artifacts.result import Result, copy_result
from thresher.artifacts.stored import read_json
from thresher.trainer.deployment.settings import ContrastOptions, ContrastSettings, PredictOptions, PredictSettings
from thresher.validation import build_settings, document_options

if TYPE_CHECKING:
    import polars as pl

METRICS = "metrics.json"
KIND = "adapter"


@dataclass(frozen=True, repr=False)
class Adapter(Result):
    """A trained adapter.

    Attributes:
        path: its folder: `adapter_model.safetensors`, `adapter_config.json`, tokenizer,
            `metrics.json`, `loss.csv`, `loss.png`, `predictions.parquet`,
            `predictions_base.parquet` (language models), `README.md`,
            `manifest.json`. Without `out` the folder is temporary and goes with this object; `save`
            keeps it.
        manifest: what it was trained on, with which settings, and from where.
        metrics: the content of `metrics.json`.
    """

    path: Path
    manifest: Manifest
    metrics: Mapping[str, Any]

    @staticmethod
    def read(folder: str | Path) -> Adapter:
        """Read an adapter folder.

        Raises:
            ManifestError: the folder is not one that `train` wrote, or is damaged.
        """
        path = Path(folder)
        manifest = Manifest.read_kind(path, KIND, "an adapter")
        return Adapter(path, manifest, read_json(path / METRICS))

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Copy the adapter to a folder, whole or not at all, and return its path.

        Raises:
            ManifestError: the adapter is not as it was written.
            OutputError: the folder holds something else and `force` is not set, or cannot be
                written.
        """
        return copy_result(self.path, self.manifest, folder, force=force)

    @document_options(PredictSettings)
    def predict(self, texts: str | Sequence[str], **options: Unpack[PredictOptions]) -> pl.DataFrame:
        """Return what the adapter makes of texts of yours, and what its base does without it.

        Args:
            texts: to classify, to answer or, for the task "text", to continue; n of them.
            options: fields of `PredictSettings`.

        Returns:
            Of a language model (n, 3): `text`, `base` and `adapter`. Of a classifier (n * labels,
            4): `text`, `label`, and its probability by `base` (the same head on the encoder without
            the adapter; null where the adapter trained the head of its architecture) and `adapter`,
            each text's likeliest label first.

        Raises:
            InputError: there is no text, or a model cannot read one.
            ManifestError: a file of the adapter is damaged or missing.
            NotFoundError: its base is not there, or cannot be reached.
            MissingExtraError: the packages of the extra `train` are not installed.
        """
        from thresher.trainer.deployment.predict import predict

        settings: PredictSettings = build_settings(PredictSettings, "predict", options)
        return predict(self.path, self.metrics, [texts] if isinstance(texts, str) else list(texts), settings)

    @document_options(ContrastSettings)
    def contrast(self, **options: Unpack[ContrastOptions]) -> pl.DataFrame:
        """Return texts that the adapter writes and its base would not, the most telling first.

        Each token is drawn from p ~ p_tuned (p_tuned / p_base)^gamma among plausible ones
        (`trainer/deployment/contrast.py`).

        Args:
            options: fields of `ContrastSettings`.

        Returns:
            (write, 3): `text`, `excess` (mean log p_tuned - log p_base of its tokens) and `tokens`.

        Raises:
            InputError: the adapter is a classifier's.
            NotFoundError: its base is not there, or cannot be reached.
            MissingExtraError: the packages of the extra `train` are not installed.
        """
        from thresher.trainer.deployment.contrast import write_contrast

        settings: ContrastSettings = build_settings(ContrastSettings, "novelty", options)
        return write_contrast(self.path, self.metrics, settings)

    def list_facts(self) -> list[tuple[str, str]]:
        """Return base, rows and held-out scores."""
        return summarize(self.metrics)


def summarize(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the main facts of `metrics.json` as (name, text)."""
    from thresher.evaluation.held_out import name_control

    train = metrics["counts"]["train"]
    lines = [
        ("model", str(metrics["model"]["name"])),
        ("task", str(metrics["task"])),
        ("rows", f"{train['rows']:,} ({train['tokens']:,} tokens), {metrics['n_steps']:,} steps"),
    ]
    lines += [
        (name, format_estimate(value)) for name, value in (metrics["held_out"] or {}).items() if name != "classes"
    ]
    base = metrics.get("base")
    if base is not None:
        lines += [
            (each["name"], f"{base['metric']} {format_estimate(each['scores'][base['metric']])}")
            for each in base["references"]
        ]
        lines += [("verdict", base["sentence"])] if base["sentence"] else []
    comparison = metrics["comparison"]
    if comparison is not None:
        lines.append(
            ("this", f"{comparison['metric']} {format_estimate(comparison['subset'])} over seeds {comparison['seeds']}")
        )
        lines.append((name_control(metrics), f"{comparison['metric']} {format_estimate(comparison['random'])}"))
        lines.append(("difference", f"{format_estimate(comparison['difference'])}"))
    return lines


def format_estimate(estimate: Mapping[str, Any]) -> str:
    """Return an estimate of `metrics.json` as "0.812 ± 0.011 (n = 600)"."""
    value, stderr = estimate["value"], estimate["stderr"]
    shown = "not a number" if value is None else f"{value:.4g}"
    return f"{shown}{'' if stderr is None else f' ± {stderr:.2g}'} (n = {estimate['n']:,})"
