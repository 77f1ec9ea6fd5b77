from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest

from thresher.errors import NotFoundError
from thresher.features import FeatureCache


@dataclass
class Rows:
    """What the feature arrow asks of a dataset, and nothing else."""

    lines: list[str]
    kind: str = "text"
    labels: list[str] | None = None
    columns: dict[str, pl.Series] = field(default_factory=dict)
    files: list[str] | None = None

    @property
    def frame(self) -> pl.DataFrame:
        n = len(self.lines)
        return pl.DataFrame(
            {
                "row_id": [f"row{i}" for i in range(n)],
                "response": self.labels or self.lines,
                "file": self.files or ["pool.jsonl"] * n,
            },
            schema=dict.fromkeys(("row_id", "response", "file"), pl.String),
        )

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def texts(self) -> pl.Series:
        return pl.Series("text", self.lines, dtype=pl.String)

    def column(self, name: str) -> pl.Series:
        if name not in self.columns:
            raise NotFoundError(f"column '{name}' not found")
        return self.columns[name]


WORDS = [
    "red",
    "blue",
    "mug",
    "knife",
    "tent",
    "lamp",
    "for",
    "the",
    "camping",
    "kitchen",
    "steel",
    "small",
    "12",
    "ml",
]


def sentences(n: int, *, seed: int = 0, longest: int = 30) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{i} " + " ".join(rng.choice(WORDS, size=rng.integers(1, longest))) for i in range(n)]


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


@pytest.fixture(autouse=True)
def no_cache_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("THRESHER_CACHE", str(tmp_path / "default-cache"))


@pytest.fixture
def make_rows():
    return Rows


@pytest.fixture
def make_sentences():
    return sentences
