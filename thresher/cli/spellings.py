"""Names that people type because other tools taught them: they are read, and shown nowhere.

Every long option may be spelled with underscores, and `--learning_rate` needs no line here.
"""

from __future__ import annotations

from collections.abc import Collection

# Name in other tools -> our names of the same thing; a command takes the first that it has.
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "model_name_or_path": ("model", "encoder"),
    "base_model": ("model",),
    "model_name": ("model", "encoder"),
    "output_dir": ("out",),
    "output": ("out",),
    "overwrite_output_dir": ("force",),
    "dataset": ("pool", "data"),
    "dataset_name": ("pool", "data"),
    "train_file": ("pool", "data"),
    "eval_file": ("eval", "eval_rows"),
    "validation_file": ("eval", "eval_rows"),
    "lr": ("learning_rate",),
    "num_train_epochs": ("epochs",),
    "num_epochs": ("epochs",),
    "per_device_train_batch_size": ("batch_size",),
    "train_batch_size": ("batch_size",),
    "gradient_accumulation_steps": ("gradient_accumulation",),
    "max_seq_length": ("max_length",),
    "max_seq_len": ("max_length",),
    "cutoff_len": ("max_length",),
    "lora_r": ("lora_rank",),
    "rank": ("lora_rank",),
    "target_modules": ("lora_targets",),
    "lora_target": ("lora_targets",),
    "lora_target_modules": ("lora_targets",),
    "use_rslora": ("rslora",),
    "use_dora": ("dora",),
    "lr_scheduler_type": ("schedule",),
    "warmup_ratio": ("warmup_share",),
    "eval_steps": ("eval_every",),
    "quantize_4bit": ("load_in_4bit",),
    "random_seed": ("seed",),
    "num_workers": ("workers",),
    "n_workers": ("workers",),
    "jobs": ("workers",),
}


def find_name(word: str, names: Collection[str]) -> str | None:
    """Return the name that a word stands for among the names of a command's parameters.

    Args:
        word: with dashes or underscores, without leading dashes.
        names: of the parameters.
    """
    word = word.replace("-", "_")
    if word in names:
        return word
    return next((name for name in OTHER_NAMES.get(word, ()) if name in names), None)
