"""Transfers: one message, the hosts that meet in them, and what all levels refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.network.model import LONGEST, NO_LANE, Transfers
from distsim.topology.graph import Topology


def single(src: int, dst: int, size: int, delay: int = 0) -> Transfers:
    """One message of ``size`` bytes from host ``src`` to host ``dst``, delivered ``delay`` ps after its last byte arrives."""
    return Transfers(
        src=np.array([src], dtype=np.int32),
        dst=np.array([dst], dtype=np.int32),
        bytes=np.array([size], dtype=np.int64),
        dep_ptr=np.zeros(2, dtype=np.int64),
        dep=np.zeros(0, dtype=np.int32),
        delay=np.array([delay], dtype=np.int64),
    )


def refuse_bad(transfers: Transfers, topology: Topology) -> None:
    """Raise ConfigError when columns are no DAG of transfers (those of a pattern are one), or a host is not there."""
    refuse_strangers(transfers, topology)
    if transfers.pattern is None:
        refuse_bad_columns(*transfers.columns())


def refuse_strangers(transfers: Transfers, topology: Topology) -> None:
    """Raise ConfigError on a host or a lane that is not there."""
    pattern = transfers.pattern
    for name, column in zip(("src", "dst"), pair_hosts(transfers), strict=True):
        at = _outside(column, topology.hosts)
        if at is not None:
            # NOTE: pairs are numbered by first use: the first bad pair is that of the first bad row.
            row = at if pattern is None else int(np.flatnonzero(pattern.pair == at)[0])
            raise _refusal(name, column[at], row, f"0 <= {name} < {topology.hosts} on {topology.name}")
    lane = transfers.lane
    if lane is None:
        return
    if len(lane) != len(transfers.src):
        raise ConfigError("the columns of Transfers do not fit together", expected="one lane per row")
    wrong = np.flatnonzero((lane < NO_LANE) | (lane >= topology.ways))
    if len(wrong):
        raise _refusal("lane", int(lane[wrong[0]]), int(wrong[0]), f"{NO_LANE} <= lane < {topology.ways} on {topology.name}")


def pair_hosts(transfers: Transfers) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The hosts of every pair of the pattern, or, without one, of every row."""
    pattern, members = transfers.pattern, transfers.members
    if pattern is None or members is None:
        return transfers.src, transfers.dst
    return members[pattern.src], members[pattern.dst]


def pair_lanes(transfers: Transfers) -> NDArray[np.int32] | None:
    """The lanes that go with :func:`pair_hosts`."""
    return transfers.lane if transfers.pattern is None else transfers.pattern.lane


def refuse_bad_columns(
    src: NDArray[np.int32], dst: NDArray[np.int32], size: NDArray[np.int64], dep_ptr: NDArray[np.int64],
    dep: NDArray[np.int32], delay: NDArray[np.int64],
) -> None:  # fmt: skip
    """Raise ConfigError when columns do not fit together, a host, size or delay is out of any range, or a row depends on one
    that is not before it."""
    rows = len(src)
    lengths = {len(dst), len(size), len(delay), len(dep_ptr) - 1}
    if lengths != {rows} or dep_ptr[0] != 0 or dep_ptr[-1] != len(dep) or (dep_ptr[1:] < dep_ptr[:-1]).any():
        raise ConfigError(
            "the columns of Transfers do not fit together", expected="T rows, T + 1 rising dep_ptr, that many dep"
        )
    for name, column, limit in (
        ("src", src, 1 << 31),
        ("dst", dst, 1 << 31),
        ("bytes", size, 1 << 53),  # whole numbers of float64
        ("delay", delay, LONGEST),
    ):
        row = _outside(column, limit)
        if row is not None:
            raise _refusal(name, column[row], row, f"0 <= {name} < {limit}")
    if len(dep):
        owner = np.repeat(np.arange(rows), np.diff(dep_ptr))
        wrong = (dep < 0) | (dep >= owner)
        if wrong.any():
            raise ConfigError("a transfer depends on a row that does not come before it", where=f"transfer {owner[wrong][0]}")


def _outside(column: NDArray[Any], limit: int) -> int | None:
    """The first row that is negative or not below ``limit``."""
    if not len(column):
        return None
    if len(column) <= 64:
        # NOTE: a numpy reduction costs 3 us however short the column; pipelines start one-row groups by the thousand.
        values = column.tolist()
        low, high = min(values), max(values)
    else:
        low, high = int(column.min()), int(column.max())
    if low >= 0 and high < limit:
        return None
    return int(np.flatnonzero((column < 0) | (column >= limit))[0])


def _refusal(name: str, value: int, row: int, expected: str) -> ConfigError:
    return ConfigError(f"{name} is {value}", where=f"transfer {row}", expected=expected)


def too_long() -> ConfigError:
    """The refusal of a time that the clock cannot hold."""
    return ConfigError("a transfer would end beyond 2^62 ps (53 days)", fix="Check sizes, bandwidths and latencies.")
