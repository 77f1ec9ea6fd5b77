"""What people bring to experiments: scores that they have measured, and trainers of their own.

`points.py` reads measured scores from a table, `fit_points.py` answers from them how many rows are
enough; `trainer.py` runs a command in the place of the training of cells. Imported by `experiments`
alone.
"""
