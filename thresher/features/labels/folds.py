"""Folds that follow from the content of the rows alone."""

from __future__ import annotations

import numpy as np

from thresher.numeric.arrays import Int64


def stratified_folds(group: Int64, n_folds: int) -> Int64:
    """Return the fold of each row, (n,): sizes differ by at most one, in all and in each group.

    Rows of a group are dealt to the folds in turn, and the next group goes on where the last one
    stopped, so that groups of fewer rows than folds do not all fall into the first. Rows in the
    order of a hash of their content make the folds random and independent of the order of the file.

    Args:
        group: (n,) code of each row's class.
        n_folds: how many.
    """
    fold = np.empty(len(group), dtype=np.int64)
    fold[np.argsort(group, kind="stable")] = np.arange(len(group)) % n_folds
    return fold
