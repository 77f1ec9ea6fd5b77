"""Locking: one run at a time per output folder, also between hosts that share it.

`lock.py` takes and keeps the lock, `heartbeat.py` is the process that renews it while a run is
busy. `artifacts/remote/lock.py` keeps the same lock in an object store. The
two files must stay side by side: one starts the other by path.
"""
