"""A Prefect flow: the Python function itself, with the run's result as state."""

from __future__ import annotations

import sys

from prefect import flow, get_run_logger, task
from prefect.states import Completed, Failed


@task(retries=3, retry_delay_seconds=600)
def curate(job: str) -> dict:
    from thresher.jobs import run_job

    logger = get_run_logger()
    levels = {"info": logger.info, "warning": logger.warning, "error": logger.error}
    result = run_job(job, on_event=lambda event: levels[event.level](event.message))
    if result.outcome == "busy":
        raise RuntimeError("another run is at work")  # tried again
    return {"outcome": result.outcome, "version": result.version, "snapshot": str(result.snapshot)}


@flow(name="curate-pool")
def curate_pool(job: str = "job.toml"):
    told = curate(job)
    if told["outcome"] == "gate":
        return Failed(message="a drift or quality gate failed; see 'thresher curate show'", data=told)
    return Completed(message=f"{told['outcome']}, version {told['version']}", data=told)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        curate_pool.serve(name="nightly", cron="17 2 * * *")
    else:
        curate_pool(*sys.argv[1:2])
