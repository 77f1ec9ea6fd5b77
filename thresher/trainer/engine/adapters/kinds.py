"""What each kind of adapter is to peft, and what it cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from thresher.errors import SettingsError
from thresher.trainer.settings import TrainSettings

Way = Literal["mean", "ties", "dare", "regmean"]  # to merge adapters

FROM_WEIGHTS = ("pissa", "olora", "corda")  # start with a part of the weights themselves
FROM_ROWS = ("eva", "corda")  # start from what layers read
SOFT = ("prompt", "prefix")
LOW_RANK = ("lora", "loraplus", "lorafa", "half", "pissa", "olora", "orthogonal", "eva", "corda")
# of kinds that train otherwise than before
RECIPES: dict[str | None, int] = {"corda": 2, "prefix": 2}
DORA = ("lora", "loraplus", "half")
VERA_FACTOR = 32  # VeRA's rank costs two numbers per layer: rank 8 of LoRA, 256 of VeRA
INITIAL_RANK = 1.5  # AdaLoRA starts with so many times its rank
PRUNING_STARTS, PRUNING_ENDS = 0.1, 0.7  # shares of AdaLoRA's steps


def check_adapter(
    settings: TrainSettings,
    task: str,
    *,
    scale: str = "trained",
    is_merged: bool = False,
    is_diagnosed: bool = False,
) -> None:
    """Refuse what a kind of adapter cannot do.

    Args:
        settings: of the training, resolved.
        task: of the training.
        scale: as in `UntouchedSettings`.
        is_merged: a merged model is asked for.
        is_diagnosed: a diagnosis of the weights is asked for.

    Raises:
        SettingsError: with what the kind cannot do, and what to do.
    """
    kind = settings.adapter
    problem = _find_problem(settings, task)
    if scale != "trained" and kind not in LOW_RANK:
        problem = f"scale: '{scale}' needs an update that is a low-rank product; leave scale out"
    if is_diagnosed and kind not in LOW_RANK:
        problem = "diagnose: needs an update that is a low-rank product; leave diagnose out"
    if is_diagnosed and settings.load_in_4bit:
        problem = "diagnose: needs the weights themselves, which 4 bits do not keep; leave diagnose or load_in_4bit out"
    if is_merged and kind in SOFT:
        problem = "merge: virtual tokens are no weights that could be merged; leave merge out"
    if is_merged and kind == "full":
        problem = "merge: all weights are trained, so the result is a full model already; leave merge out"
    if problem:
        raise SettingsError(f"train: adapter '{kind}' cannot be trained like this: {problem}")


def _find_problem(settings: TrainSettings, task: str) -> str | None:
    """Return why these settings do not fit the kind, or None."""
    kind, is_low_rank, rank = settings.adapter, settings.adapter in LOW_RANK, int(settings.lora_rank or 0)
    checks = (
        (kind == "prefix" and task == "classification", "a prefix is for language models; take prompt"),
        (kind in SOFT and settings.packing, "packed rows would share its virtual tokens; leave packing out"),
        (
            kind == "prefix" and settings.gradient_checkpointing,
            "a prefix needs the cache that gradient_checkpointing turns off; leave it out",
        ),
        (kind == "full" and settings.load_in_4bit, "weights of 4 bits cannot be trained; leave load_in_4bit out"),
        (
            kind in FROM_WEIGHTS and settings.load_in_4bit,
            "its start takes the weights apart, which 4 bits do not allow; leave load_in_4bit out",
        ),
        (
            kind in FROM_WEIGHTS and (settings.lora_dropout or 0) > 0,
            "its start cancels a part of the weights, which dropout would disturb; set lora_dropout to 0",
        ),
        (
            settings.dora and kind not in DORA,
            f"dora goes with {', '.join(DORA)} only; leave dora out",
        ),
        (settings.rslora and not is_low_rank, f"rslora goes with {', '.join(LOW_RANK)} only; leave rslora out"),
        (
            kind == "orthogonal" and rank % 2 == 1,
            f"its rank must be even, got {rank}; set lora_rank to {rank + 1}",
        ),
        (
            kind in (*SOFT, "full") and settings.lora_targets != "auto",
            "it does not work layer by layer; leave lora_targets out",
        ),
        (
            kind in (*SOFT, "full") and settings.lora_layers != "all",
            "it adapts no layers; leave lora_layers out",
        ),
        (
            kind == "adalora" and settings.early_stopping_patience is not None,
            "its ranks fall by a schedule that early stopping would cut short; leave early_stopping_patience out",
        ),
    )
    return next((problem for is_wrong, problem in checks if is_wrong), None)


def name_adapter(settings: TrainSettings) -> str:
    """Return what a message calls the adapter."""
    return "LoRA" if settings.adapter == "lora" else f"adapter '{settings.adapter}'"


def fit_settings(settings: TrainSettings, task: str) -> TrainSettings:
    """Return settings with what a kind cannot do left out, as a search over kinds needs it."""
    kind = settings.adapter
    changes: dict[str, Any] = {}
    if kind in FROM_WEIGHTS:
        changes["lora_dropout"] = 0.0
    if kind not in DORA:
        changes["dora"] = False
    if kind not in LOW_RANK:
        changes["rslora"] = False
    if kind == "orthogonal":
        rank = int(settings.lora_rank or 0)
        changes["lora_rank"] = rank + rank % 2
    if kind in (*SOFT, "full"):
        changes |= {"lora_targets": "auto", "lora_layers": "all"}
    fitted = replace(settings, **changes)
    check_adapter(fitted, task)
    return fitted


def build_config(
    settings: TrainSettings,
    *,
    task_type: str,
    n_steps: int,
    seed: int,
    linear: Sequence[str],
    excluded: Sequence[str],
    whole: Sequence[str],
) -> Any:
    """Return peft's configuration of a kind that is neither "full" nor read from a folder.

    Args:
        settings: of the training, resolved.
        task_type: of peft.
        n_steps: optimizer steps of the run: AdaLoRA's schedule needs it.
        seed: of VeRA's shared matrices.
        linear: all linear layers below the head, by their whole names.
        excluded: layers that are not adapted.
        whole: layers that are trained whole.
    """
    import peft

    kind, targets, rank = settings.adapter, settings.lora_targets, int(settings.lora_rank or 0)
    if kind in SOFT:
        common: dict[str, Any] = {"task_type": task_type, "num_virtual_tokens": settings.virtual_tokens}
        if kind == "prefix":
            return peft.PrefixTuningConfig(**common)
        return peft.PromptTuningConfig(prompt_tuning_init=peft.PromptTuningInit.SAMPLE_VOCAB, **common)
    common = {"task_type": task_type, "modules_to_save": list(whole) or None}
    if kind == "vera":  # knows no layers to exclude
        return peft.VeraConfig(
            target_modules=[name for name in linear if name not in set(excluded) and _is_meant(name, targets)],
            r=VERA_FACTOR * rank,
            vera_dropout=settings.lora_dropout,
            projection_prng_key=seed % 2**32,
            **common,
        )
    common |= {
        "target_modules": "all-linear" if targets == "auto" else list(targets),
        "exclude_modules": list(excluded) or None,
    }
    common |= {"lora_alpha": settings.lora_alpha, "lora_dropout": settings.lora_dropout}
    if kind == "adalora":
        n_first = int(PRUNING_STARTS * n_steps)
        return peft.AdaLoraConfig(
            init_r=max(rank + 1, round(INITIAL_RANK * rank)),
            target_r=rank,
            total_step=n_steps,
            tinit=n_first,
            tfinal=max(0, min(n_steps - n_first - 1, round((1 - PRUNING_ENDS) * n_steps))),
            **common,
        )
    return peft.LoraConfig(r=rank, use_rslora=settings.rslora, use_dora=settings.dora, **common)


def _is_meant(name: str, targets: Sequence[str] | str) -> bool:
    return targets == "auto" or any(f".{name}".endswith(f".{target}") for target in targets)
