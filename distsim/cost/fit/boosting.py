"""Gradient-boosted regression trees, small and exact: complete binary trees of one depth over binned features.

Least squares on residuals that are clipped (Huber), so that a few wild rows do not own a tree; a share of the rows per tree.
Source: Friedman, "Greedy Function Approximation: A Gradient Boosting Machine" (2001) and "Stochastic Gradient Boosting" (2002).
Growing and asking run compiled where there is enough to do; the trees are flat lists, written as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.kernel.jit import kernel

Array = NDArray[np.float64]

BINS = 48  #: of every feature, by quantiles
TREES = 400
DEPTH = 6
RATE = 0.06  #: share of a tree's correction that is taken
ROWS = 0.7  #: share of the rows that a tree is grown on
LEAST = 6  #: rows of a leaf
RIDGE = 3.0  #: rows' worth of pull of a leaf towards no correction
CLIP = 0.3  #: largest residual that counts in full


@kernel
def grow(
    bins: Any, rows: int, features: int, counts: int, residual: Any, used: Any, depth: int, least: int, ridge: float,
    node: Any, sums: Any, weights: Any, feature: Any, threshold: Any, value: Any, base: int,
) -> None:  # fmt: skip
    """One tree, level by level, into feature, threshold (from ``base`` on) and value: children of node i are 2i+1 and 2i+2.

    A node that is not split sends everything left. ``node`` becomes the leaf of every row; sums and weights are room."""
    for row in range(rows):
        node[row] = 0
    for level in range(depth):
        start = (1 << level) - 1
        width = 1 << level
        for place in range(width * features * counts):
            sums[place] = 0.0
            weights[place] = 0.0
        for row in range(rows):
            if used[row]:
                at = (node[row] - start) * features * counts
                for column in range(features):
                    place = at + column * counts + bins[row * features + column]
                    sums[place] += residual[row]
                    weights[place] += 1.0
        for which in range(width):
            best = 1e-12
            chosen = -1
            edge = counts
            at = which * features * counts
            total = 0.0
            many = 0.0
            for place in range(counts):
                total += sums[at + place]
                many += weights[at + place]
            whole = total * total / (many + ridge)
            for column in range(features):
                left = 0.0
                count = 0.0
                for place in range(counts - 1):
                    left += sums[at + column * counts + place]
                    count += weights[at + column * counts + place]
                    if count >= least and many - count >= least:
                        right = total - left
                        gain = left * left / (count + ridge) + right * right / (many - count + ridge) - whole
                        if gain > best:
                            best = gain
                            chosen = column
                            edge = place
            feature[base + start + which] = max(chosen, 0)
            threshold[base + start + which] = edge
        for row in range(rows):
            mine = node[row]
            if bins[row * features + feature[base + mine]] <= threshold[base + mine]:
                node[row] = 2 * mine + 1
            else:
                node[row] = 2 * mine + 2
    first = (1 << depth) - 1
    for leaf in range(1 << depth):
        sums[leaf] = 0.0
        weights[leaf] = 0.0
    for row in range(rows):
        if used[row]:
            sums[node[row] - first] += residual[row]
            weights[node[row] - first] += 1.0
    for leaf in range(1 << depth):
        value[leaf] = sums[leaf] / (weights[leaf] + ridge)


@kernel
def ask(
    bins: Any, rows: int, features: int, trees: int, depth: int, feature: Any, threshold: Any, value: Any, out: Any
) -> None:  # fmt: skip
    """Sum of all trees for every row."""
    inner = (1 << depth) - 1
    for row in range(rows):
        found = 0.0
        for tree in range(trees):
            at = 0
            for _ in range(depth):
                place = tree * inner + at
                if bins[row * features + feature[place]] <= threshold[place]:
                    at = 2 * at + 1
                else:
                    at = 2 * at + 2
            found += value[tree * (inner + 1) + at - inner]
        out[row] = found


@dataclass(frozen=True, slots=True)
class Boosted:
    """A learner.

    Attributes:
        edges: bin edges of every feature: a value is in the first bin whose edge it does not exceed.
        depth: of every tree.
        feature, threshold: of the 2^depth - 1 inner nodes of every tree, one tree after the other.
        value: of the 2^depth leaves of every tree.
    """

    edges: list[list[float]]
    depth: int
    feature: list[int]
    threshold: list[int]
    value: list[float]

    @property
    def trees(self) -> int:
        """Number of trees."""
        return len(self.value) >> self.depth

    def predict(self, features: Array) -> Array:
        """What the learner says to rows of features, (n, f)."""
        rows, columns = features.shape
        binned = _binned(features, self.edges)
        run, compiled = ask.for_work(rows * self.trees * self.depth)
        if compiled:
            out = np.zeros(rows)
            run(binned, rows, columns, self.trees, self.depth, np.array(self.feature), np.array(self.threshold),
                np.array(self.value), out)  # fmt: skip
            return out
        listed = [0.0] * rows
        run(binned.tolist(), rows, columns, self.trees, self.depth, self.feature, self.threshold, self.value, listed)
        return np.array(listed)


def _binned(features: Array, edges: list[list[float]]) -> NDArray[np.int64]:
    """Bins of all rows, flat, row after row."""
    found = [np.searchsorted(np.array(edge), features[:, column], side="left") for column, edge in enumerate(edges)]
    return np.ascontiguousarray(np.stack(found, axis=1).astype(np.int64)).reshape(-1)


def boost(
    features: Array, target: Array, rng: np.random.Generator, *, trees: int = TREES, depth: int = DEPTH, rate: float = RATE
) -> Boosted:
    """A learner of ``target`` (n,) from ``features`` (n, f). The same for the same generator."""
    rows, columns = features.shape
    # NOTE: an edge between two values, never on one: the last digit of a logarithm must not decide
    edges = []
    for column in range(columns):
        distinct = np.unique(features[:, column])
        middles = (distinct[1:] + distinct[:-1]) / 2
        if len(middles) >= BINS:
            middles = middles[np.linspace(0, len(middles) - 1, BINS - 1).astype(int)]
        edges.append([float(one) for one in middles])
    binned = _binned(features, edges)
    run, compiled = grow.for_work(trees * depth * rows * columns)
    inner = (1 << depth) - 1
    room = (1 << depth) * columns * BINS
    shape: Any = np.zeros if compiled else (lambda count, dtype=float: [dtype(0)] * count)
    feature, threshold = shape(trees * inner, dtype=int), shape(trees * inner, dtype=int)
    value, node = shape(1 << depth), shape(rows, dtype=int)
    sums, weights = shape(room), shape(room)
    data = binned if compiled else binned.tolist()
    values: list[float] = []
    found = np.zeros(rows)
    for tree in range(trees):
        residual = np.clip(target - found, -CLIP, CLIP)
        used = np.asarray(rng.random(rows) < ROWS)
        given: tuple[Any, Any] = (residual, used) if compiled else (residual.tolist(), used.tolist())
        run(
            data, rows, columns, BINS, *given, depth, LEAST, RIDGE, node, sums, weights, feature, threshold, value, tree * inner
        )
        leaves = rate * np.asarray(value, dtype=np.float64)
        found += leaves[np.asarray(node) - inner]
        values += [float(f"{leaf:.4g}") for leaf in leaves]
    return Boosted(edges, depth, [int(one) for one in feature], [int(one) for one in threshold], values)
