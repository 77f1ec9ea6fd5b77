"""A pool in several files, and engines; tests get the functions by the fixture `kit`."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from thresher.selection.distributed import InProcess, select_distributed
from thresher.selection.request import SelectCall

WORDS = [f"word{number}" for number in range(60)]


def make_rows(n: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows of some topics, of different lengths."""
    rng = random.Random(seed)
    topics = [rng.sample(WORDS, 8) for _ in range(12)]
    rows = []
    for number in range(n):
        topic = rng.choice(topics)
        prompt = " ".join(rng.choices(topic, k=rng.randint(3, 9)))
        completion = " ".join(rng.choices(topic, k=rng.randint(2, 7)))
        rows.append({"prompt": f"{prompt} {number % 97}", "completion": completion, "kind": rng.choice("abc")})
    return rows


def write_shards(folder: Path, rows: list[dict[str, Any]], n_shards: int) -> Path:
    """Write rows as JSON lines, in so many files of different sizes."""
    folder.mkdir(parents=True)
    cuts = [len(rows) * number**2 // n_shards**2 for number in range(n_shards + 1)]
    for number in range(n_shards):
        lines = (json.dumps(row) + "\n" for row in rows[cuts[number] : cuts[number + 1]])
        (folder / f"part-{number}.jsonl").write_text("".join(lines))
    return folder


def read_facts(subset: Any) -> dict[str, Any]:
    """Return what a manifest tells, but for what differs between two runs."""
    return {key: value for key, value in subset.manifest.content.items() if key != "run"}


def assert_same(here: Any, there: Any) -> None:
    """Compare two subsets in all that is written of them."""
    assert read_facts(there) == read_facts(here)
    assert there.manifest.hash == here.manifest.hash
    assert there.scores.row_id.equals(here.scores.row_id)
    assert np.array_equal(there.scores.value, here.scores.value)
    assert np.array_equal(there.kept, here.kept)
    assert there.dropped.equals(here.dropped)
    assert there.rows == here.rows


@pytest.fixture(scope="session")
def kit() -> ModuleType:
    """Return this module."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def pool_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 5 files with 300 rows: some repeat others in other files, two cannot be used."""
    rows = make_rows(300)
    rows[150] = rows[299] = rows[297] = dict(rows[3])
    rows[40] = {"prompt": 5}
    rows[222] = {"prompt": "no answer", "completion": ""}
    return write_shards(tmp_path_factory.mktemp("pools") / "pool", rows, 5)


def build_call(pool: Any, method: Any = "facility-location", **options: Any) -> SelectCall:
    return SelectCall.of_options(pool, method, {"budget": 40, "encoder": "static", **options}, None)


def run_in_process(
    pool: Any, out: Path, method: Any = "facility-location", *, partitions: int | None = None, **given: Any
):
    """Select with the engine that is this process."""
    return select_distributed(InProcess(), build_call(pool, method, **given), out, partitions=partitions)
