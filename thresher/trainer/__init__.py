"""Training: rows become a LoRA adapter that any peft user can load, with what it was measured at.

`train.py` is the call; `settings.py` its settings, `context.py` the call resolved and checked,
`split.py` what is held out, `runs.py` one run per seed and side, `held_out.py` their measurement,
`result.py` and `model_card.py` the output folder, `engine/` a run itself. Imported by `selection`,
`experiments`, `reporting` and `cli`; imports `evaluation`, `models`, `subset`, `dataset` and below.
A new setting is a field in `settings.py`, read where it acts.
"""
