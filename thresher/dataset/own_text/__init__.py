"""What a row says of its own, behind the text that many rows share.

`words.py` cuts texts into words, `shared_text.py` finds prefixes, suffixes and passages that many
rows share, `marking.py` marks them, `own_text.py` returns what is left of each text, `matching.py`
finds rows of one dataset in another. Rules, features and trainer compare rows by what these say.
Imports `numeric` alone besides `Dataset`; a new place where shared text may stand goes into
`shared_text.py`.
"""
