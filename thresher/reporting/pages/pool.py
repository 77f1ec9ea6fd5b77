"""The rows that a folder was made from, read again from where its manifest says they were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.dataset import Dataset, Schema, load
from thresher.errors import ThresherError


@dataclass(frozen=True)
class Pool:
    """The pool of a folder.

    Attributes:
        rows: as a Dataset, or None when it cannot be had any more.
        missing: why not, as a sentence; empty when it is there.
    """

    rows: Dataset | None
    missing: str = ""

    def positions(self, row_ids: pl.Series) -> NDArray[np.int64]:
        """Return where rows stand in the pool: (n,), -1 for a row that is not there."""
        assert self.rows is not None
        ids = self.rows.frame["row_id"]
        places = pl.DataFrame({"row_id": ids, "at": np.arange(len(ids))})
        wanted = pl.DataFrame({"row_id": row_ids.cast(pl.String)})
        return wanted.join(places, on="row_id", how="left", maintain_order="left")["at"].fill_null(-1).to_numpy()


def read_pool(content: Mapping[str, Any], *, row_ids: pl.Series) -> Pool:
    """Read the pool that a manifest names; a pool that is gone or has changed is no error, the page says so.

    Args:
        content: of the manifest; `run.inputs` are the places of the pool's files, `schema` and
            `id_column` how it was read.
        row_ids: rows that must be in it, such as those that were picked. (The fingerprint of an
            experiment's pool is of no use here: rows held out for the test were read from the same
            file.)
    """
    places = places_of(content)
    if not places:
        return Pool(None, "The manifest does not tell where the pool was read from.")
    gone = [place for place in places if not Path(place).is_file()]
    if gone:
        return Pool(None, f"The pool was read from {gone[0]}, where there is no file any more.")
    try:
        rows = load([Path(place) for place in places], schema=_schema(content), id_column=content.get("id_column"))
    except ThresherError as error:
        return Pool(None, f"The pool can no longer be read ({error}).")
    if not row_ids.is_in(rows.frame["row_id"].implode()).all():
        return Pool(None, f"The pool at {places[0]} has changed since this folder was made.")
    return Pool(rows)


def places_of(content: Mapping[str, Any]) -> list[str]:
    """Return where the files of the pool were, when the folder was made."""
    found = content.get("run", {}).get("inputs", [])
    if isinstance(found, Mapping):
        found = found.get("pool", [])
    return [str(place) for place in found]


def _schema(content: Mapping[str, Any]) -> Schema | None:
    found = content.get("schema")
    if found is None:
        return None
    columns = {role: tuple(names) for role, names in found["columns"].items()}
    kind = found.get("kind", content.get("task"))
    return None if kind is None else Schema(name=found["name"], kind=kind, columns=columns)
