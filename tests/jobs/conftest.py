"""Small jobs, made in a folder of their own."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import nightly
from thresher.jobs.run import run_job

TOPICS = {
    "cooking": ["boil", "rice", "onion", "salt", "oven", "bread", "soup", "pepper", "butter", "recipe"],
    "sailing": ["wind", "mast", "harbour", "rope", "anchor", "tide", "deck", "hull", "sail", "storm"],
    "banking": ["loan", "interest", "deposit", "branch", "credit", "teller", "account", "fee", "ledger", "bond"],
}


def make_rows(n, seed, topics=tuple(TOPICS)):
    """Return n short rows about some topics; the same seed gives the same rows."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        words = TOPICS[topics[number % len(topics)]]
        said = " ".join(rng.choice(words, 9))
        rows.append({"prompt": f"tell of {said} {seed}-{number}", "completion": " ".join(rng.choice(words, 6))})
    return rows


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class JobKit:
    """A job file, its sources and its output in one folder."""

    def __init__(self, root: Path):
        self.root = root
        self.file = root / "job.toml"
        self.out = root / "out"
        self.events = []

    def write(self, *, select="", steps='[[steps]]\nrule = "exact-duplicates"\n', more="", source=None, output=""):
        source = 'files = ["src/*.jsonl"]' if source is None else source
        self.root.mkdir(exist_ok=True, parents=True)
        self.file.write_text(
            f"[[sources]]\n{source}\n{steps}\n[select]\n{select}\n"
            f'[features]\nencoder = "static"\n[output]\nfolder = "out"\n{output}\n{more}\n'
        )
        return self

    def add(self, name, rows):
        return write_jsonl(self.root / "src" / f"{name}.jsonl", rows)

    def run_first(self, **options):
        """Write the job, give it five rows, and run it."""
        self.write(**options)
        self.add("a", make_rows(5, 1))
        return self.run()

    def run(self, **options):
        self.events = []
        return run_job(self.file, on_event=self.events.append, **options)

    def warnings(self):
        return [event.message for event in self.events if event.level != "info"]

    def table(self, version=None):
        import polars as pl

        folder = self.out / "latest" if version is None else self.out / "snapshots" / f"v{version:06d}"
        return pl.read_parquet(sorted((folder / "data").glob("*.parquet")))

    def manifest(self):
        return json.loads((self.out / "latest" / "manifest.json").read_bytes())


@pytest.fixture
def kit(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "cache"))
    return JobKit(tmp_path / "job")


@pytest.fixture
def rows():
    return make_rows


@pytest.fixture
def read_snapshot():
    return nightly.read_snapshot
