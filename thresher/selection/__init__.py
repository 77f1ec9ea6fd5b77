"""Selection: the arrow from scores to subset and manifest.

`run.py` holds `select`, `request.py` checks what was asked, `choose.py` ranks and cuts,
`dry_run.py` estimates cost, `pool_adapters.py` trains the adapters that some methods need,
`distributed/` does the same over many machines. Imported by `experiments`, `jobs` and `cli`;
imports `selectors`, `features`, `subset` and below.
"""
