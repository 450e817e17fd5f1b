"""Rows of collectives on trees: what goes up to the root, what comes down from it.

A tree is a list of parents (-1 for the root). Several trees over the same members may work at once, each on its own piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from distsim.collectives.blocks import Layout
from distsim.collectives.pipeline import Rows, pipelined, ragged
from distsim.collectives.schedule import Collective, Schedule

#: operation -> (something goes up, something comes down)
DIRECTIONS = {
    "all_reduce": (True, True), "barrier": (True, True), "reduce": (True, False), "gather": (True, False),
    "broadcast": (False, True), "scatter": (False, True),
}  # fmt: skip


def tree_schedule(
    collective: Collective, trees: Sequence[list[int]], segments: Callable[[int], Sequence[int]] | None = None
) -> Schedule:
    """The schedule on ``trees``, tree k on the k-th part of every chunk.

    An inner node sends up when all its children have arrived; the root of an all_reduce or barrier sends down when all of
    its own have; everybody passes on what came down to all of its children. Rows go level by level: deepest first going
    up, the root's children first coming down; a node's children in the order of their numbers.

    Args:
        collective: one of the operations in DIRECTIONS.
        trees: parents of every member, one list per tree.
        segments: node -> segments that its edge to its parent carries; None: all of them.
    """
    n = collective.size
    up, down = DIRECTIONS[collective.operation]
    edges: list[tuple[int, int, int, bool]] = []  # tree, child, parent, upwards
    depths = [_depths(tree) for tree in trees]
    links = sorted((depths[k][v], v, k) for k in range(len(trees)) for v in range(n) if trees[k][v] >= 0)
    if up:
        edges += [(k, v, trees[k][v], True) for _, v, k in sorted(links, key=lambda link: (-link[0], *link[1:]))]
    if down:
        edges += [(k, v, trees[k][v], False) for _, v, k in links]

    arrived: dict[tuple[int, int, bool], list[int]] = {}  # tree, node, from below -> rows
    deps = []
    for row, (tree, child, parent, upwards) in enumerate(edges):
        sender, receiver = (child, parent) if upwards else (parent, child)
        from_below = upwards or trees[tree][parent] < 0
        deps.append(arrived.get((tree, sender, from_below), []))
        arrived.setdefault((tree, receiver, upwards), []).append(row)
    child_of, parent_of = (np.array([edge[i] for edge in edges], np.int32) for i in (1, 2))
    upward = np.array([edge[3] for edge in edges], np.bool_)
    rows = Rows(
        np.where(upward, child_of, parent_of),
        np.where(upward, parent_of, child_of),
        *ragged(deps),
        upward & (collective.operation in ("all_reduce", "reduce")),
    )
    if collective.operation == "barrier":
        return pipelined(n, rows, np.ones((1, len(edges)), np.int64), lambda _chunk, _row: [0], 1)

    pieces = collective.chunks * len(trees)
    parts = Layout(collective, pieces).sizes().reshape(collective.chunks, len(trees), n)
    if segments is None:
        sizes = parts.sum(axis=2)[:, [edge[0] for edge in edges]]
    else:
        sizes = np.stack([parts[:, edge[0], list(segments(edge[1]))].sum(axis=1) for edge in edges], axis=1)

    def payload(chunk: int, row: int) -> list[int]:
        tree, child, _, _ = edges[row]
        first = (chunk * len(trees) + tree) * n
        return [first + s for s in (range(n) if segments is None else segments(child))]

    return pipelined(n, rows, sizes, payload, pieces)


def _depths(tree: list[int]) -> list[int]:
    """Edges between each node and its root."""
    depths = [0 if parent < 0 else -1 for parent in tree]
    for node in range(len(tree)):
        path = []
        while depths[node] < 0:
            path.append(node)
            node = tree[node]
        for above, below in enumerate(reversed(path), start=depths[node] + 1):
            depths[below] = above
    return depths
