"""Attribution: which training rows an answer of an adapter came from, and the proof.

`settings.py` are the options, `row_influence.py` scores rows by sketched gradients,
`proof.py` trains again without the suspects and without random rows, `why.py` is the call. Imported
by `cli`. Another score of rows is a function in `row_influence.py`.
"""
