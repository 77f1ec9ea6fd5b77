"""Artifacts: results on disk, which appear whole or not at all, and their manifests.

`folder.py` writes files and folders atomically, `disk_errors.py` lets errors of the disk name the
file, `exchange.py` lets two folders exchange places, `scratch.py` makes temporary folders,
`local_path.py` refuses addresses where only paths can be, `remote/` reads and writes at addresses,
`hub_push.py` publishes on the Hub, `locking/` keeps two runs apart, `cache_root.py` says where the
cache is, `manifest.py` is the JSON record, `result.py` the shape
of what the arrows return, `seal.py` its checksums, `stored.py` reads what they
vouch for, `damaged_database.py` puts damaged SQLite files aside, `safe_csv.py` keeps spreadsheets
from running cells as formulas. Imported by everything that writes;
imports only `plugins`, `validation`, `numeric` and below. A new kind of record goes beside
`manifest.py`; a new output folder uses `OutputFolder`.
"""
