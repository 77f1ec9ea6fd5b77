"""The training engine: one run, from tokenized rows to the weights of an adapter.

`fit.py` sets a run up, `loop.py` makes the steps, `checkpoint.py` saves and resumes,
`tokenization.py` and `batches.py` prepare data, `lora.py` and `head.py` are the trained weights,
`schedule.py` the learning rate, `losses.py` the losses. Imported by `trainer` only. A new loss or
schedule is a function in its file, chosen in `trainer/settings.py`.
"""
