"""The rows that a folder was computed from, read again from the files that its manifest names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.dataset import Dataset
from thresher.dataset.mixture.reload import load_recorded
from thresher.errors import ThresherError
from thresher.numeric.arrays import Int64


@dataclass(frozen=True)
class Pool:
    """The pool of a folder.

    Attributes:
        rows: the pool, or None when it is no longer available.
        missing: the reason, as a sentence; empty when it is available.
    """

    rows: Dataset | None
    missing: str = ""

    def positions(self, row_ids: pl.Series) -> Int64:
        """Return the positions of rows in the pool: (n,), -1 for a row that is not in it."""
        assert self.rows is not None
        ids = self.rows.frame["row_id"]
        positions = pl.DataFrame({"row_id": ids, "at": np.arange(len(ids))})
        asked = row_ids.cast(pl.String).alias("row_id").to_frame()
        return asked.join(positions, on="row_id", how="left", maintain_order="left")["at"].fill_null(-1).to_numpy()


def read_pool(content: Mapping[str, Any], *, row_ids: pl.Series) -> Pool:
    """Read the pool that a manifest names; if it is gone or has changed, the page says so.

    Args:
        content: of the manifest; `run.inputs` are the paths of the pool's files, `schema` and
            `id_column` how it was read.
        row_ids: rows that must be in it, such as those that were picked. (The fingerprint of an
            experiment's pool does not help here: rows held out for the test were read from the same
            file.)
    """
    paths = list_pool_files(content)
    if not paths:
        return Pool(None, "The manifest does not say where the pool was read from.")
    gone = [path for path in paths if not Path(path).is_file()]
    if gone:
        return Pool(None, f"The pool was read from {gone[0]}, and that file no longer exists.")
    try:
        rows = load_recorded(paths, _schema(content), id_column=content.get("id_column"))
    except ThresherError as error:
        return Pool(None, f"The pool can no longer be read ({error}).")
    if not row_ids.is_in(rows.frame["row_id"].implode()).all():
        return Pool(None, f"The pool at {paths[0]} has changed since this folder was written.")
    return Pool(rows)


def list_pool_files(content: Mapping[str, Any]) -> list[str]:
    """Return the paths of the pool's files when the folder was written."""
    inputs = content.get("run", {}).get("inputs", [])
    return [str(path) for path in (inputs.get("pool", []) if isinstance(inputs, Mapping) else inputs)]


def _schema(content: Mapping[str, Any]) -> dict[str, Any] | None:
    schema = content.get("schema")
    kind = None if schema is None else schema.get("kind", content.get("task"))
    return None if schema is None or kind is None else {**schema, "kind": kind}
