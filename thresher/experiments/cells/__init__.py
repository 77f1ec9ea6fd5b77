"""Cells: rows chosen by a method, trained and measured once, kept by content (decision record 3).

One cell (`cell`), its cache (`cache`), and the two ways to run many: worker processes on this
machine (`worker_pool`, whose children run `worker_process`) and a Ray cluster (`ray_engine`).
Imported by the experiments; knows only `experiments.experiment`, which all cells of an experiment
share. Add another way to run cells here.
"""
