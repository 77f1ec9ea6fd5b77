"""Growth: rows that a model writes, each checked by reading, refused with its reason or kept.

`grow.py` is the call (pool -> rows + refused + manifest), `settings.py` its options, `seeds.py`
what is asked of whom, `ways/` one file per way of growing, `refusing.py` what is refused of all of
them (copies, leaks), `result.py` the folder. Nothing that a model wrote is run, and no row that a
model wrote is grown from. Imported by `cli`; imports `curation`, `features`, `checks` and `models`.
A new way is a file in `ways/` and a line in `grow.py`.
"""
