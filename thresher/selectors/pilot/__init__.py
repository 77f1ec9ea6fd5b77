"""The pilot of `auto`: methods race on the user's own rows, before one of them chooses.

`arms.py` names the methods that race, `splits.py` divides the pool into candidates and held-out
rows, `student.py` is the cheap learner that judges, `statistics.py` says what a paired difference
is worth, `race.py` runs the two stages and decides. Imported by `selectors.auto` alone; a new arm
is one line in `arms.py`.
"""
