"""Jobs: curation that a scheduler runs, from what is new at the sources to the next snapshot.

`run.py` is the call, `pipeline.py` lists its steps, `job_file.py` and `settings.py` are the job
file, `inspection.py` shows jobs and runs; `sources/`, `update/`, `drift/` and
`snapshots/` are the parts. Imports everything below `cli`, which alone imports it. A new step of a
run is a function in `pipeline.py` and a module in the part it belongs to.
"""

from thresher.jobs.events import Event
from thresher.jobs.run import RunResult, run_job

__all__ = ["Event", "RunResult", "run_job"]
