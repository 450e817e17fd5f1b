"""What a collective or a message puts on links: edges between the hosts of its members, and how many bytes cross each.

Every operation is a *pattern* (ring, exchange, star) with shares, times a *factor* of bytes. A ring over members in their
order goes round inside each node, and from node to node over all local members at once: member i of one node to member i of
the next, as NCCL's channels use all rails. An exchange between even nodes goes by rail (NCCL's PXN): inside the sender's node
to the member of the receiver's local rank, from there to the receiver's node. Pure functions; nothing here knows time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from distsim.errors import CollectiveError, ConfigError

RING, EXCHANGE, GATHER, SCATTER = "ring", "exchange", "gather", "scatter"
#: operation -> pattern; a barrier moves nothing that counts, but takes its latencies
PATTERNS = {
    "all_reduce": RING, "all_gather": RING, "reduce_scatter": RING, "broadcast": RING, "reduce": RING, "barrier": RING,
    "all_to_all": EXCHANGE, "gather": GATHER, "scatter": SCATTER,
}  # fmt: skip
#: more edges than this are refused (about 100 bytes each)
MOST_EDGES = 4_000_000


def pattern_of(operation: str) -> str:
    """Pattern of an operation. Raises CollectiveError where it is not known."""
    found = PATTERNS.get(operation)
    if found is None:
        raise CollectiveError(f"no pattern of links for {operation}", expected=f"one of {', '.join(PATTERNS)}")
    return found


def factor(operation: str, size: int, members: int) -> int:
    """Bytes, times ``members``, that an edge of share 1 carries; ``size``: per-rank input (collectives/blocks.py).

    broadcast and reduce: n - 1 copies, spread evenly over the n edges of the ring, whoever is the root.
    """
    if operation == "barrier":
        return 0
    if operation == "all_reduce":
        return 2 * (members - 1) * size
    if operation == "all_gather":
        return (members - 1) * size * members
    if operation in ("reduce_scatter", "broadcast", "reduce"):
        return (members - 1) * size
    if operation == "gather":
        return size * members
    return size  # all_to_all, scatter: an n-th of the buffer for each


def steps(operation: str, members: int) -> int:
    """Latencies that follow one another, where no closed form knows better."""
    if operation == "all_reduce":
        return 2 * (members - 1)
    return 1 if PATTERNS[operation] != RING else members - 1


@dataclass(frozen=True, slots=True, eq=False)
class Edges:
    """Columns: row of the instance, source and destination host, share of the factor."""

    instance: NDArray[np.int64]
    src: NDArray[np.int32]
    dst: NDArray[np.int32]
    share: NDArray[np.float64]


def edges(pattern: str, hosts: NDArray[np.int64], node: NDArray[np.int64], root: int = 0) -> Edges:
    """Edges of instances of one size.

    Args:
        hosts: (instances, members): host of each member.
        node: of every host of the topology: which hosts share a box.
        root: index of the root, of gather and scatter.

    Raises: ConfigError where there are too many edges.
    """
    count, n = hosts.shape
    first = _first_of_node(node[hosts])
    kinds, kind = np.unique(first, axis=0, return_inverse=True)
    parts = []
    for number in range(len(kinds)):
        rows = np.flatnonzero(kind.ravel() == number)
        distinct = len(np.unique(kinds[number]))
        many = n * (distinct + n // distinct if distinct < n and n % distinct == 0 else n) * count
        if pattern == EXCHANGE and many > MOST_EDGES:
            raise ConfigError(
                f"an exchange of {count} x {n} ranks has {many:,} edges", expected=f"at most {MOST_EDGES:,}",
                fix="Take groups of fewer ranks.",
            )  # fmt: skip
        src, dst, share = _template(pattern, tuple(kinds[number].tolist()), root)
        mine = hosts[rows]
        parts.append((np.repeat(rows, len(src)), mine[:, src].ravel(), mine[:, dst].ravel(), np.tile(share, len(rows))))
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Edges(columns[0].astype(np.int64), columns[1].astype(np.int32), columns[2].astype(np.int32), columns[3])


def _first_of_node(node: NDArray[np.int64]) -> NDArray[np.int64]:
    """Per row, of every member: the first member on its node."""
    order = np.argsort(node, axis=1, kind="stable")
    ordered = np.take_along_axis(node, order, axis=1)
    new = np.ones(node.shape, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    begin = np.maximum.accumulate(np.where(new, np.arange(node.shape[1]), 0), axis=1)
    found = np.empty_like(order)
    np.put_along_axis(found, order, np.take_along_axis(order, begin, axis=1), axis=1)
    return found


@lru_cache(maxsize=32)
def _template(
    pattern: str, starts: tuple[int, ...], root: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(source member, destination member, share) of one instance. starts: of every member, the first on its node."""
    first = np.array(starts, np.int64)
    n = len(first)
    every = np.arange(n)
    if pattern in (GATHER, SCATTER):
        others = every[every != root]
        centre = np.full(n - 1, root)
        share = np.ones(n - 1)
        return (others, centre, share) if pattern == GATHER else (centre, others, share)
    nodes = [np.flatnonzero(first == start) for start in np.unique(first)]
    sizes = {len(local) for local in nodes}
    if pattern == EXCHANGE and not (len(nodes) > 1 and len(sizes) == 1 and sizes != {1}):
        src, dst = np.repeat(every, n), np.tile(every, n)
        apart = src != dst
        return src[apart], dst[apart], np.ones(n * (n - 1))
    parts = []
    if pattern == EXCHANGE:
        local = np.stack(nodes)  # (nodes, local members), all even
        count, g = local.shape
        a, b = (side.ravel() for side in np.indices((g, g)))
        inside = a != b
        parts.append((local[:, a[inside]].ravel(), local[:, b[inside]].ravel(), np.full(count * g * (g - 1), float(count))))
        a, b = (side.ravel() for side in np.indices((count, count)))
        apart = a != b
        parts.append((local[a[apart]].ravel(), local[b[apart]].ravel(), np.full(count * (count - 1) * g, float(g))))
        nodes = []
    for number, local in enumerate(nodes):
        g = len(local)
        if g > 1:
            parts.append((local, np.roll(local, -1), np.full(g, 1.0 if len(nodes) == 1 else (g - 1) / g)))
        if len(nodes) > 1:
            after = nodes[(number + 1) % len(nodes)]
            rails = min(g, len(after))
            parts.append((local[:rails], after[:rails], np.full(rails, 1 / rails)))
    if not parts:
        return every[:0], every[:0], np.zeros(0)
    src_all, dst_all, share_all = (np.concatenate(column) for column in zip(*parts, strict=True))
    return src_all, dst_all, share_all
