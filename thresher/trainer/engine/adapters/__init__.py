"""Kinds of adapters: what `train --adapter` can put on a base model.

`kinds.py` refuses what a kind cannot do and builds peft's configuration, `starts.py` initializes
low-rank matrices, `layer_choice.py` chooses layers, `updates.py` is what happens to gradients
around a step, `whole_model.py` trains all weights, `going_on.py` continues from an adapter.
Imported by `trainer`. A new kind is a name in `trainer/settings.py`, its configuration in
`kinds.py`, and a start or an update where it needs one.
"""
