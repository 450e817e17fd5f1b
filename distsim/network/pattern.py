"""What a DAG of transfers is before it is placed: whom its members send to, in which order, how much, after what.

One schedule runs on many groups of hosts. What all of them have in common is checked, numbered and digested once here, so
that a network only looks at the distinct pairs of a DAG that it meets on other hosts: 64 for a ring of 64, not 8,064 rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.network.model import NO_LANE, Transfers
from distsim.network.transfers import refuse_bad_columns

_TABLE = 1 << 22  # below, values are numbered by a table without sorting them first


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Pattern:
    """A DAG of transfers between members 0, 1, 2 ... that have no hosts yet. Never changed once made."""

    src: NDArray[np.int32]  #: member, of every distinct pair (and lane) in order of first use
    dst: NDArray[np.int32]
    pair: NDArray[np.int32]  #: of every row
    bytes: NDArray[np.int64]  #: this and what follows: of every row, as in Transfers
    dep_ptr: NDArray[np.int64]
    dep: NDArray[np.int32]
    delay: NDArray[np.int64]
    digest: str  #: of everything above but the names of members
    lane: NDArray[np.int32] | None = None  #: of every distinct pair, as in Transfers; not in the digest, as routes will tell
    share: NDArray[np.float64] | None = None  #: of every row, as in Transfers; not in the digest, as only ``fluid`` cares

    @classmethod
    def of(
        cls, src: NDArray[np.int32], dst: NDArray[np.int32], size: NDArray[np.int64], dep_ptr: NDArray[np.int64],
        dep: NDArray[np.int32], delay: NDArray[np.int64], lane: NDArray[np.int32] | None = None,
        share: NDArray[np.float64] | None = None,
    ) -> Pattern:  # fmt: skip
        """From columns as in Transfers, with members for hosts. Raises ConfigError where they are no DAG of transfers."""
        refuse_bad_columns(src, dst, size, dep_ptr, dep, delay)
        members = 1 + max(int(src.max()), int(dst.max())) if len(src) else 0
        key = src.astype(np.int64) * members + dst
        pairs = members * members
        lanes = 1
        if lane is not None and len(lane):
            if len(lane) != len(src) or lane.min() < NO_LANE:
                raise ConfigError("lanes are no column of Transfers", expected=f"one of {NO_LANE}, 0, 1, 2 ... per row")
            lanes = int(lane.max()) + 2
            key = key * lanes + (lane + 1)
        pair, used = by_first_use(key, pairs * lanes)
        digest = hashlib.sha1(usedforsecurity=False)  # the fastest where processors have it
        # NOTE: with the types fixed, this and dep_ptr say how long every column is: no two DAGs are spelled alike.
        digest.update(b"%d %d " % (len(src), len(used)))
        for column, kind in ((pair, np.int32), (dep_ptr, np.int64), (size, np.int64), (delay, np.int64), (dep, np.int32)):
            digest.update(np.ascontiguousarray(column, dtype=kind).data)
        lane_of = None if lane is None else (used % lanes - 1).astype(np.int32)
        used = used // lanes
        first, second = (used // max(1, members)).astype(np.int32), (used % max(1, members)).astype(np.int32)
        return cls(first, second, pair, size, dep_ptr, dep, delay, digest.hexdigest(), lane_of, share)

    def on(self, members: NDArray[np.int32]) -> Transfers:
        """The DAG with member m on host ``members[m]``; several may share one."""
        return Transfers(
            members[self.src][self.pair], members[self.dst][self.pair], self.bytes, self.dep_ptr, self.dep, self.delay,
            pattern=self, members=members, lane=None if self.lane is None else self.lane[self.pair], share=self.share,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.pair)


def by_first_use(values: NDArray[Any], limit: int) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Number values in ``0 ... limit - 1`` by their first appearance: (number of each, the distinct ones in that order).

    >>> numbers, distinct = by_first_use(np.array([7, 3, 7, 0]), 8)
    >>> numbers.tolist(), distinct.tolist()
    ([0, 1, 0, 2], [7, 3, 0])
    """
    names = None
    if limit > max(_TABLE, 4 * len(values)):
        names, values = np.unique(values, return_inverse=True)
        limit = len(names)
    order = np.arange(len(values), dtype=np.int32)
    table = np.empty(limit, dtype=np.int32)
    table[values[::-1]] = order[::-1]  # of equal indices the last one written stays: the first use
    distinct = values[table[values] == order]
    table[distinct] = order[: len(distinct)]
    return table[values], distinct if names is None else names[distinct]
