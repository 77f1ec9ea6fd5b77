"""A trained adapter on new texts, its base beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from thresher.artifacts.seal import find_damage
from thresher.errors import InputError, ManifestError
from thresher.models.adapter_files import ADAPTER_CONFIG
from thresher.trainer.deployment.settings import PredictOptions, PredictSettings
from thresher.validation import build_settings

if TYPE_CHECKING:
    import torch

    from thresher.models.causal_lm.base_model import BaseModel

M = TypeVar("M")
R = TypeVar("R")

TEXTS_AT_ONCE = 32  # in one forward pass of a classifier


def predict(folder: Path, metrics: Mapping[str, Any], texts: Sequence[str], settings: PredictSettings) -> pl.DataFrame:
    """Return what an adapter makes of texts, and its base without it; see `predict_each`."""
    return predict_each([folder] * len(texts), metrics, texts, settings, sealed=folder)


def predict_routed(
    content: Mapping[str, Any],
    texts: str | Sequence[str],
    options: PredictOptions,
    *,
    what: str,
    route: Callable[[Sequence[str]], Sequence[Path]],
    sealed: Path,
    again: str,
) -> pl.DataFrame:
    """Return what the adapters of a result make of texts; see `predict_each`.

    Args:
        content: of the result.
        texts: to classify, to answer or to continue.
        options: fields of `PredictSettings`.
        what: name of the result.
        route: tells the folder of the adapter for each text.
        sealed: folder of the result.
        again: what to do where a file is damaged.
    """
    settings: PredictSettings = build_settings(PredictSettings, "predict", options)
    own = [texts] if isinstance(texts, str) else list(texts)
    _require_texts(own)
    trained = _find_trained(content, what, again)
    return predict_each(route(own), trained, own, settings, sealed=sealed, again=again)


def predict_each(
    folders: Sequence[Path],
    metrics: Mapping[str, Any],
    texts: Sequence[str],
    settings: PredictSettings,
    *,
    sealed: Path,
    again: str = "train it again",
) -> pl.DataFrame:
    """Return what the adapter of each text makes of it, and the base without it.

    Each model is loaded once.

    Args:
        folders: (n,) of the adapter of each text, of one base.
        metrics: content of the `metrics.json` that `train` wrote.
        texts: to classify, to answer or, for the task "text", to continue; n of them.
        settings: of the call.
        sealed: folder whose manifest vouches for the adapters.
        again: what to do where a file is damaged.

    Returns:
        Of a language model (n, 3): `text`, `base` and `adapter`, the likeliest answer of each. Of a
        classifier (n * labels, 4): `text`, `label` and its probability by `base` and `adapter`,
        each text's likeliest label first. The base of a classifier is its encoder without the
        adapter under the same head; `base` is null where there is none: the head of the base's
        architecture, or all weights, were trained.

    Raises:
        InputError: there is no text, or a model cannot read one.
        ManifestError: a file of the adapter is damaged or missing.
        NotFoundError: its base is not there, or cannot be reached.
        MissingExtraError: the packages of the extra `train` are not installed.
    """
    from thresher.models.device import check_device

    _require_texts(texts)
    if (damage := find_damage(sealed)) is not None:
        raise ManifestError(f"{damage}; {again}")
    check_device(settings.device)
    if metrics["task"] == "classification":
        tables = _spread(folders, lambda folder, own: _classify(folder, metrics, [texts[i] for i in own], settings))
        return pl.concat(tables)
    answer = _continue if metrics["task"] == "text" else _answer
    sides = {folder: name_sides(folder, metrics) for folder in dict.fromkeys(folders)}
    answers = {
        side: _spread([sides[folder][side] for folder in folders], lambda name, own: answer(name, texts, own, settings))
        for side in ("base", "adapter")
    }
    return pl.DataFrame({"text": list(texts), **answers}, schema=dict.fromkeys(("text", "base", "adapter"), pl.String))


def _spread(models: Sequence[M], run: Callable[[M, list[int]], list[R]]) -> list[R]:
    """Return a result for each place, from one run of each model over all places that it has."""
    results: dict[int, R] = {}
    for model in dict.fromkeys(models):
        own = [place for place, each in enumerate(models) if each == model]
        results |= dict(zip(own, run(model, own), strict=True))
    return [results[place] for place in range(len(models))]


def _require_texts(texts: Sequence[str]) -> None:
    if not texts or not all(text.strip() for text in texts):
        raise InputError("predict: every text must hold a word, got none; give at least one text")


def _find_trained(content: Mapping[str, Any], what: str, again: str) -> Mapping[str, Any]:
    """Return what the adapters of a folder were trained as, which earlier versions did not write.

    Raises:
        ManifestError: it does not say.
    """
    if "trained" not in content:
        raise ManifestError(f"{what}: an earlier version wrote this folder, without what trying it takes; {again}")
    return content["trained"]  # type: ignore[no-any-return]


def name_sides(folder: Path, metrics: Mapping[str, Any]) -> dict[str, str]:
    """Return the models of an adapter: its base, and itself, by the name that they load by."""
    from thresher.models.causal_lm.adapter import read_base_name

    base = read_base_name(folder) if (folder / ADAPTER_CONFIG).is_file() else str(metrics["model"]["name"])
    return {"base": base, "adapter": str(folder)}


def _answer(model: str, texts: Sequence[str], places: Sequence[int], settings: PredictSettings) -> list[str]:
    """Return the likeliest answers of a language model to the texts at some places."""
    from thresher.models.context import ModelContext
    from thresher.models.generation.decoding import Decoding
    from thresher.models.generation.generator import user_turn
    from thresher.models.generation.local import LocalGenerator
    from thresher.models.settings import ModelSettings

    context = ModelContext(models=ModelSettings(model=model, device=settings.device), cache=None)
    decoding = Decoding(max_new_tokens=settings.max_new_tokens)
    conversations = [user_turn(texts[place]) for place in places]
    answers = LocalGenerator(context).generate(conversations, decoding, stage="answers", context=context)
    for place, (answer,) in zip(places, answers, strict=True):
        if answer.problem is not None:
            raise InputError(f"text {place + 1}: cannot be answered: {answer.problem}; shorten or change it")
    return [f"{answer.text}{' ...' if answer.is_cut else ''}" for (answer,) in answers]


def _continue(model: str, texts: Sequence[str], places: Sequence[int], settings: PredictSettings) -> list[str]:
    """Return what a language model writes behind the texts at some places."""
    from thresher.evaluation.run import generate
    from thresher.models.causal_lm.chat_template import start_tokens
    from thresher.models.causal_lm.language_model import language_model
    from thresher.models.precision import inference

    lm = language_model(model, device=settings.device, dtype=None)
    ids = lm.tokenizer([texts[place] for place in places], add_special_tokens=False)["input_ids"]
    prompts = [[*start_tokens(lm.tokenizer, row, is_asked=True), *row] for row in ids]
    with inference("the texts"):
        return generate(lm.model, prompts, lm.tokenizer, max_new_tokens=settings.max_new_tokens, device=lm.device)


def _classify(
    folder: Path, metrics: Mapping[str, Any], texts: Sequence[str], settings: PredictSettings
) -> list[pl.DataFrame]:
    """Return the probabilities of the labels of each text."""
    import torch

    from thresher.models.causal_lm.adapter import disable_adapter
    from thresher.trainer.engine.adapters.whole_model import is_whole_model
    from thresher.trainer.engine.pooled_classifier import PooledClassifier

    labels: tuple[str, ...] = tuple(metrics["labels"])
    device = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model, tokenizer = _load_classifier(folder, metrics, labels)
    model = model.to(device)
    options = {"padding": True, "truncation": True, "max_length": metrics["settings"]["max_length"]}
    batches = [
        tokenizer(list(texts[start : start + TEXTS_AT_ONCE]), return_tensors="pt", **options).to(device)
        for start in range(0, len(texts), TEXTS_AT_ONCE)
    ]
    with_adapter = _compute_probabilities(model, batches)
    without: list[list[float]] | None = None
    if isinstance(model, PooledClassifier) and not is_whole_model(folder):
        with disable_adapter(model.body):
            without = _compute_probabilities(model, batches)
    return [
        pl.DataFrame(
            {
                "text": [text] * len(labels),
                "label": labels,
                "base": [None] * len(labels) if without is None else without[at],
                "adapter": with_adapter[at],
            },
            schema={"text": pl.String, "label": pl.String, "base": pl.Float64, "adapter": pl.Float64},
        ).sort("adapter", descending=True, maintain_order=True)
        for at, text in enumerate(texts)
    ]


def _load_classifier(folder: Path, metrics: Mapping[str, Any], labels: tuple[str, ...]) -> tuple[Any, Any]:
    """Return a classifier with its adapter, and its tokenizer, which pads on the right."""
    import torch

    from thresher.models.causal_lm.base_model import find_base, load_tokenizer
    from thresher.trainer.engine.adapters.whole_model import is_whole_model
    from thresher.trainer.engine.load_model import load_model
    from thresher.trainer.engine.lora import load_adapter
    from thresher.trainer.engine.pooled_classifier import PooledClassifier, has_head, load_head, read_head_config
    from thresher.trainer.settings import TrainSettings

    settings, is_whole = TrainSettings(**metrics["settings"]), is_whole_model(folder)
    base = find_base(folder) if is_whole else _find_base(folder)
    tokenizer = load_tokenizer(base)
    tokenizer.padding_side = "right"
    pooling = read_head_config(folder)[0] if has_head(folder) else None
    with torch.random.fork_rng():  # a head is initialized before it is read
        loaded = load_model(
            base,
            task="classification",
            settings=settings,
            pad_id=tokenizer.pad_token_id,
            labels=labels,
            pooling=pooling,
        )
        if not is_whole:
            return load_adapter(loaded.model, folder), tokenizer
        if isinstance(loaded.model, PooledClassifier):
            load_head(loaded.model, folder)
        return loaded.model.eval(), tokenizer


def _compute_probabilities(model: Any, batches: Sequence[Any]) -> list[list[float]]:
    """Return the probability of each label, one list per text."""
    from thresher.models.precision import inference

    rows: list[list[float]] = []
    with inference(f"{TEXTS_AT_ONCE} texts"):
        for batch in batches:
            logits: torch.Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            rows += logits.double().softmax(dim=-1).tolist()
    return rows


def _find_base(folder: Path) -> BaseModel:
    """Return the base of an adapter."""
    from thresher.models.causal_lm.adapter import read_base_name
    from thresher.trainer.engine.load_model import find_named_base

    return find_named_base(read_base_name(folder))
