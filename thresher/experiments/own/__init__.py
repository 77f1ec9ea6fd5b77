"""What people bring to experiments: measured scores, trainers of their own, files of methods.

`points.py` reads measured scores from a table, `fit_points.py` answers from them how many rows are
enough; `trainer.py` runs a command in the place of the training of cells, `method_file.py` reads
methods. Imported by `experiments` alone.
"""
