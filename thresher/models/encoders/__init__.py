"""Sentence encoders: text in, one vector per text out.

`encoder.py` is the protocol, `load.py` picks one by name, `static.py` and `minilm.py` are the
embedded ones, `sentence.py` wraps sentence-transformers, `wordpiece.py` tokenizes for the static
encoder. Imported by `features` and above. A new encoder is one file here and one branch in
`load.py`.
"""
