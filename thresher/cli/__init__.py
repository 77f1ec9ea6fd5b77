"""The command line: one file per verb, which parses, calls one function, and prints.

`main.py` lists the verbs and turns errors into exit codes, `with_options.py` makes options of
settings classes, `options.py` holds what is left, `output.py` prints, `progress.py` shows
progress, `usage.py` words errors. Nothing imports it. A new verb is one file here and one line in
`main.py`.
"""
