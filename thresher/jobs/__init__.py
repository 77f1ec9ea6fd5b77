"""Jobs: curation that a scheduler runs, from what is new at the sources to the next snapshot."""

from thresher.jobs.events import Event
from thresher.jobs.run import RunResult, run_job

__all__ = ["Event", "RunResult", "run_job"]
