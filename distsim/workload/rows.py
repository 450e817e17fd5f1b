"""Distinct rows of a table of integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]


def unique_rows(*columns: NDArray[Any]) -> tuple[_Ints, _Ints, _Ints]:
    """(distinct rows ascending, first place of each, number of every row's).

    What numpy.unique finds on an axis, whose sort of records takes many times as long.

    >>> unique_rows(np.array([2, 1, 2]), np.array([5, 7, 5]))
    (array([[1, 7],
           [2, 5]]), array([1, 0]), array([1, 0, 1]))
    """
    table = np.stack([np.asarray(column, np.int64) for column in columns], axis=1)
    order = np.lexsort(table.T[::-1])
    ordered = table[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    which = np.empty(len(order), np.int64)
    which[order] = np.cumsum(new) - 1
    return ordered[new], order[new], which
