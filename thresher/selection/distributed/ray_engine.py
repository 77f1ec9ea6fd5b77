"""Ray as the engine: plain tasks for files, Ray Data actor pools for models."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from thresher import errors
from thresher.errors import InputError, MissingExtraError, OutputError, ThresherError
from thresher.selection.distributed.stage import ModelWork, Record, Work, run_shard

REQUIRED = ("ray", "pyarrow", "pandas", "fsspec")  # the last three: of Ray Data
N_RETRIES = 10  # of a shard whose worker or node is lost
N_WAITING = 1_000  # tasks that Ray knows of at once: each answer costs a look at all of them
LOOK_SECONDS = 60.0  # without an answer, before nodes are looked at
SHARD_SECONDS = 86_400.0  # in which Ray Data must see one shard done: slow models take hours
PATIENCE_SECONDS = 600.0  # without a node that could run a task: one may be on its way
REACH_SECONDS = 5.0
AUTO, LOCAL = "auto", "local"  # the cluster that runs on this machine; a new one for this process


class RayEngine:
    """Runs shards on the Ray cluster that this process is connected to.

    A task whose worker or node is lost is run again elsewhere; so is what an actor was at. What a
    user can fix comes back as it would be raised here.
    """

    name = "ray"

    def map_shards(self, work: Work, numbers: Sequence[int]) -> Iterator[Record]:
        """Do shards as Ray tasks of one processor each."""
        import ray

        shared = ray.put(work)
        memory = min(work.memory_bytes, _largest_node())
        task = ray.remote(num_cpus=1, max_retries=N_RETRIES, memory=memory or None)(run_shard_as_json)
        todo, node_wait = iter(numbers), _NodeWait(memory)
        waiting = [task.remote(shared, number) for number in islice(todo, N_WAITING)]
        try:
            while waiting:
                done, waiting = ray.wait(waiting, num_returns=1, timeout=LOOK_SECONDS)
                if not done:
                    node_wait.check()
                waiting += [task.remote(shared, number) for number in islice(todo, len(done))]
                with _explain_lost_work():
                    answers = ray.get(done)
                yield from map(parse_answer, answers)
        finally:
            for left in waiting:
                ray.cancel(left, force=True)

    def map_shards_with_model(self, work: ModelWork, numbers: Sequence[int]) -> Iterator[Record]:
        """Do shards in a Ray Data actor pool: one model per actor, on a GPU if it can use one."""
        import ray.data

        has_gpu, n_workers = _workers(work)
        n_actors = max(1, min(n_workers, len(numbers)))
        shards = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
        _configure(shards.context)
        answers = shards.map_batches(
            _Actor,
            fn_constructor_args=(work,),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=n_actors, initial_size=n_actors),
            num_cpus=1,
            num_gpus=1 if has_gpu else None,
            max_restarts=N_RETRIES,  # a shard may kill each worker that does it
            max_task_retries=N_RETRIES,
        )
        with _explain_lost_work():
            for row in answers.iter_rows():
                yield parse_answer(row["answer"])


def _largest_node() -> int:
    """Return the memory of the largest node: a task that asks for more would never start."""
    return max((int(resources.get("memory", 0)) for resources in _nodes()), default=0)


def _nodes() -> list[dict[str, float]]:
    """Return what each node has."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _workers(work: ModelWork) -> tuple[bool, int]:
    """Return whether models run on GPUs, and how many there are of what they run on."""
    import ray

    resources = ray.cluster_resources()
    n_gpus = int(resources.get("GPU", 0)) if work.can_use_gpu else 0
    return n_gpus > 0, n_gpus or math.ceil(resources.get("CPU", 1))


class _NodeWait:
    """Waits for a node that can run a task, and not for ever."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._since: float | None = None

    def check(self) -> None:
        """Look at the nodes.

        Raises:
            InputError: none has had a processor and the memory for a long time.
        """
        if any(node.get("CPU", 0) >= 1 and node.get("memory", 0) >= self._memory for node in _nodes()):
            self._since = None
            return
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= PATIENCE_SECONDS:
            raise InputError(
                f"engine ray: needs a node with a processor and {self._memory / 1e9:.1f} GB for tasks, found none "
                f"among {len(_nodes())} in {PATIENCE_SECONDS / 60:.0f} minutes; add one and run the same command again"
            )


@contextmanager
def _explain_lost_work() -> Iterator[None]:
    """Say what a user can do about work that Ray gave up; other errors stay as they are.

    Raises:
        InputError: workers were lost again and again.
    """
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError

    try:
        yield
    except (NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"engine ray: a shard was given up after {N_RETRIES} retries, its worker or node was lost each time "
            f"({type(error).__name__}: {reason}); give workers more memory or split the files, and run the same "
            f"command again"
        ) from None


class _Actor:
    """Keeps models in memory between shards."""

    def __init__(self, work: ModelWork) -> None:
        self._work = work
        self._models: object = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the shards of a batch."""
        return {"answer": np.array([self._run(int(number)) for number in batch["number"]], object)}

    def _run(self, number: int) -> str:
        if self._models is None:
            try:
                self._models = self._work.load_models()
            except ThresherError as error:
                return _encode_error(error)
        return run_shard_as_json(self._work, number)


def run_shard_as_json(work: Work, number: int) -> str:
    """Do a shard on a node, and return its record, or what the user must fix, as JSON."""
    try:
        return json.dumps(run_shard(work, number))
    except ThresherError as error:
        return _encode_error(error)
    except OSError as error:
        place, reason = error.filename or work.folder, error.strerror or str(error)
        return _encode_error(
            OutputError(f"{place}: must be readable and writable, got '{reason}'; fix that and run again")
        )


def _encode_error(error: ThresherError) -> str:
    return json.dumps({"failure": type(error).__name__, "sentence": str(error), "host": socket.gethostname()})


def parse_answer(text: str) -> Record:
    """Return the record in an answer, or raise what the user must fix."""
    answer: Record = json.loads(text)
    if "failure" not in answer:
        return answer
    kind = getattr(errors, answer["failure"], InputError)
    error: ThresherError = kind.__new__(kind)
    where = "" if answer["host"] == socket.gethostname() else f" (on {answer['host']})"
    error.args = (f"{answer['sentence']}{where}",)
    raise error


@contextmanager
def connect(address: str | None = None) -> Iterator[RayEngine]:
    """Connect to a cluster, or start Ray on this machine, for as long as the block runs.

    Args:
        address: HOST:PORT of a cluster, "auto" for the one that runs on this machine; None for
            RAY_ADDRESS, or, where that is not set, a cluster of this machine alone. A connection
            that is there already is used.

    Raises:
        MissingExtraError: ray or what Ray Data needs is not installed.
        InputError: the address cannot be reached.
    """
    for package in REQUIRED:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "engine ray", "ray")
    import ray

    if address is None and not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS")
    if address:
        _check_reachable(address)
    if ray.is_initialized():
        _check_connection(address)
        yield RayEngine()
        return
    try:
        if address and address != LOCAL:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        else:
            ray.init(address=LOCAL, log_to_driver=False, include_dashboard=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"engine ray: the cluster at '{address or 'this machine'}' cannot be joined ({reason}); check "
            f"--address with: ray status"
        ) from None
    try:
        yield RayEngine()
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Refuse an address that nobody answers at; Ray would try for minutes and end the process.

    Raises:
        InputError: nobody does, or it is the address of a Ray client server.
    """
    if address in (AUTO, LOCAL):
        return
    if "@" in address:  # not repeated: it may be a password
        raise InputError(
            "--address: must be HOST:PORT of a Ray cluster, or auto, without a user name or password, found one"
        )
    place = address.partition("?")[0]  # behind it there may be a token
    if "://" in address:
        raise InputError(
            f"--address: must be HOST:PORT of a Ray cluster, or auto, got '{place}'; run thresher on a node of the "
            f"cluster (ray job submit), which sees the same files, with --address auto"
        )
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit()):
        raise InputError(f"--address: must be HOST:PORT of a Ray cluster, or auto, got '{place}'")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
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

    connected = ray.get_runtime_context().gcs_address
    if address not in (None, AUTO, LOCAL, connected):
        raise InputError(
            f"--address: this process is connected to {connected} already, got '{address}'; call ray.shutdown()"
        )


def _configure(context: Any) -> None:
    """Let Ray Data show no bars and no plans of its own, and wait for shards that take hours.

    Args:
        context: of one data set, so that the user's own data sets are as they were.
    """
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if hasattr(context, "execution_no_progress_timeout_s"):  # newer versions give up early
        context.execution_no_progress_timeout_s = SHARD_SECONDS
    logging.getLogger("ray.data").setLevel(logging.ERROR)
