"""One message as :class:`~distsim.network.model.Transfers`, and what all levels refuse."""

from __future__ import annotations

import numpy as np

from distsim.errors import ConfigError
from distsim.network.model import LONGEST, Transfers
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
    """Raise ConfigError when columns do not fit together, or one holds a host that is not there, a negative size or delay.

    That rows depend on earlier rows only is checked by the kernels, which walk the dependencies anyway.
    """
    rows = len(transfers.src)
    dep_ptr = transfers.dep_ptr
    lengths = {len(transfers.dst), len(transfers.bytes), len(transfers.delay), len(dep_ptr) - 1}
    if lengths != {rows} or dep_ptr[0] != 0 or dep_ptr[-1] != len(transfers.dep) or (dep_ptr[1:] < dep_ptr[:-1]).any():
        raise ConfigError(
            "the columns of Transfers do not fit together", expected="T rows, T + 1 rising dep_ptr, that many dep"
        )
    if not rows:
        return
    for name, column, limit in (
        ("src", transfers.src, topology.hosts),
        ("dst", transfers.dst, topology.hosts),
        ("bytes", transfers.bytes, 1 << 53),  # whole numbers of float64
        ("delay", transfers.delay, LONGEST),
    ):
        if rows <= 64:
            # NOTE: a numpy reduction costs 3 us however short the column; pipelines start one-row groups by the thousand.
            values = column.tolist()
            low, high = min(values), max(values)
        else:
            low, high = int(column.min()), int(column.max())
        if low < 0 or high >= limit:
            row = int(np.flatnonzero((column < 0) | (column >= limit))[0])
            raise ConfigError(
                f"{name} is {column[row]}", where=f"transfer {row}", expected=f"0 <= {name} < {limit} on {topology.name}"
            )


def forward_dependency(row: int) -> ConfigError:
    """The refusal of a row that depends on itself, a later row or none at all."""
    return ConfigError("a transfer depends on a row that does not come before it", where=f"transfer {row}")


def too_long() -> ConfigError:
    """The refusal of a time that the clock cannot hold."""
    return ConfigError("a transfer would end beyond 2^62 ps (53 days)", fix="Check sizes, bandwidths and latencies.")
