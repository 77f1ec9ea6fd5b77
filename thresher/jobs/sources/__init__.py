"""Sources: where a job's rows come from, and which of them are new.

`scan.py` finds new files, `incoming.py` reads their rows, `database.py` runs a query,
`addresses.py` checks addresses. A new kind of source is one reader here and one settings class in
`jobs/settings.py`.
"""
