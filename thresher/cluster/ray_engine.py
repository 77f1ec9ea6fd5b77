"""Ray as the engine: plain tasks for files, Ray Data actor pools for models."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from thresher import errors
from thresher.cluster.stage import ModelWork, Record, Work, do
from thresher.errors import InputError, MissingExtraError, ThresherError

REQUIRED = ("ray", "pyarrow", "pandas", "fsspec")  # the last three: of Ray Data
N_RETRIES = 10  # of a shard whose worker or node is lost
REACH_SECONDS = 5.0
FOUND, LOCAL = "auto", "local"  # the cluster that runs on this machine; a new one for this process


class RayEngine:
    """Runs shards on the Ray cluster that this process is connected to.

    A task whose worker or node is lost is run again elsewhere; so is what an actor was at. What a user can mend comes
    back as it would be raised here.
    """

    name = "ray"

    def map_shards(self, work: Work, numbers: Sequence[int]) -> Iterator[Record]:
        """Do shards as Ray tasks of one processor each."""
        import ray

        shared = ray.put(work)
        memory = min(work.memory_bytes, self._largest_node()) or None
        task = ray.remote(num_cpus=1, max_retries=N_RETRIES, memory=memory)(answer)
        waiting = {task.remote(shared, number) for number in numbers}
        try:
            while waiting:
                done, _ = ray.wait(list(waiting), num_returns=1)
                waiting.difference_update(done)
                yield from (record_of(text) for text in ray.get(done))
        finally:
            for left in waiting:
                ray.cancel(left, force=True)

    def map_shards_with_model(self, work: ModelWork, numbers: Sequence[int]) -> Iterator[Record]:
        """Do shards in a Ray Data actor pool: one model per actor, on a GPU of its own where the cluster has some."""
        import ray.data

        has_gpu, n_workers = self._workers()
        n_actors = max(1, min(n_workers, len(numbers)))
        _quiet()
        shards = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
        answers = shards.map_batches(
            _Actor,
            fn_constructor_args=(work,),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=n_actors, initial_size=n_actors),
            num_cpus=1,
            num_gpus=1 if has_gpu else None,
        )
        for row in answers.iter_rows():
            yield record_of(row["answer"])

    @staticmethod
    def _largest_node() -> int:
        """Return the memory of the largest node: a task that asks for more would never start."""
        import ray

        return max((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]), default=0)

    @staticmethod
    def _workers() -> tuple[bool, int]:
        """Return whether models run on GPUs, and how many there are of what they run on."""
        import ray

        resources = ray.cluster_resources()
        n_gpus = int(resources.get("GPU", 0))
        return n_gpus > 0, n_gpus or math.ceil(resources.get("CPU", 1))


class _Actor:
    """Holds a model between shards."""

    def __init__(self, work: ModelWork) -> None:
        self._work = work
        self._held: object = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the shards of a batch."""
        return {"answer": np.array([self._answer(int(number)) for number in batch["number"]], object)}

    def _answer(self, number: int) -> str:
        if self._held is None:
            try:
                self._held = self._work.hold()
            except ThresherError as error:
                return _told(error)
        return answer(self._work, number)


def answer(work: Work, number: int) -> str:
    """Do a shard on a node, and return its record, or what the user must mend, as JSON."""
    try:
        return json.dumps(do(work, number))
    except ThresherError as error:
        return _told(error)


def _told(error: ThresherError) -> str:
    return json.dumps({"failure": type(error).__name__, "sentence": str(error)})


def record_of(text: str) -> Record:
    """Return the record in an answer, or raise what the user must mend."""
    found: Record = json.loads(text)
    if "failure" not in found:
        return found
    kind = getattr(errors, found["failure"], InputError)
    error: ThresherError = kind.__new__(kind)
    error.args = (found["sentence"],)
    raise error


@contextmanager
def connected(address: str | None = None) -> Iterator[RayEngine]:
    """Connect to a cluster, or start Ray on this machine, for as long as the block runs.

    Args:
        address: HOST:PORT of a cluster, "auto" for the one that runs on this machine; None for RAY_ADDRESS, or, where
            that is not set, a cluster of this machine alone. A connection that is there already is used.

    Raises:
        MissingExtraError: ray or what Ray Data needs is not installed.
        InputError: the address cannot be reached.
    """
    for package in REQUIRED:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "engine ray", "ray")
    import ray

    wanted = os.environ.get("RAY_ADDRESS") if address is None and not ray.is_initialized() else address
    if wanted:
        _check_reachable(wanted)
    if ray.is_initialized():
        _check_connection(wanted)
        yield RayEngine()
        return
    try:
        if wanted and wanted != LOCAL:
            ray.init(address=wanted, log_to_driver=False, logging_level=logging.WARNING)
        else:
            ray.init(address=LOCAL, log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"engine ray: the cluster at '{wanted or 'this machine'}' cannot be joined ({reason}); check "
            f"--address with: ray status"
        ) from None
    try:
        yield RayEngine()
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Refuse an address that nobody answers at; Ray itself would try for minutes and then end the process.

    Raises:
        InputError: nobody does, or it is the address of a Ray client server.
    """
    if address in (FOUND, LOCAL):
        return
    if "://" in address:
        raise InputError(
            f"--address: must be HOST:PORT of a Ray cluster, or auto, got '{address}'; run thresher on a node of the "
            f"cluster (ray job submit), which sees the same files, with --address auto"
        )
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit()):
        raise InputError(f"--address: must be HOST:PORT of a Ray cluster, or auto, got '{address}'")
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--address: no Ray cluster answers at {address} ({error}); start one with ray start --head --port={port}, "
            f"or leave --address out to use this machine alone"
        ) from None


def _check_connection(address: str | None) -> None:
    """Refuse another address than that of the cluster which this process is connected to already.

    Raises:
        InputError: it is another.
    """
    import ray

    found = ray.get_runtime_context().gcs_address
    if address not in (None, FOUND, LOCAL, found):
        raise InputError(
            f"--address: this process is connected to {found} already, got '{address}'; call ray.shutdown()"
        )


def _quiet() -> None:
    """Let Ray Data show no bars and no plans of its own."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
