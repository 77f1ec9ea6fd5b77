"""Cache: values that were computed once and are read again, by text, by folder or by answer.

`feature_cache.py` holds arrays by key, `by_text.py` computes only what is missing,
`folder_cache.py` keeps whole folders (trained adapters, experiment cells), `answer_cache.py`
generated answers, `fingerprint.py` says what a value depends on. Imported by `models`, `features`
and above; imports `artifacts` and below. It knows nothing of what it stores.
"""
