"""Tracking: runs of trainings and experiments, sent to wandb, mlflow, trackio or tensorboard.

`tracker.py` says which trackers are asked for and follows the events of a training; `backends.py`
has one class for each, by its public API. Nothing is imported unless it is asked for. Imported by
`trainer/train.py` and `experiments/`. A new tracker is a class in `backends.py` and a line there.
"""
