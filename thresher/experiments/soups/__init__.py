"""Soups: adapters of several data sets, merged into one.

`settings.py` are the options, `inputs.py` checks adapters and rows, `soup.py` is the call and its
folder; how weights are merged is in
`trainer/engine/adapters/merging.py`. Imported by `cli`; imports the trainer and below. Another way
to merge is a word of `WAYS` there.
"""
