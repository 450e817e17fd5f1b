"""Every kernel takes what kernels of its name usually take: the simplest model of computation that a capture allows.

It is what profiling by name predicts: the mean over kernels is right, the single ones, of other shapes, are not. ``distsim
study error`` measures what that does to a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.cost.recorded import Recorded
from distsim.cost.rescaled import kernel_rows
from distsim.registry import register
from distsim.trace.graph import NodeType, Program, TaskGraph


@register("cost", "typical")
class Typical:
    """The mean recorded duration of all kernels, copies or fills of the same name and type in a graph, all ranks together."""

    def __init__(self, graph: TaskGraph) -> None:
        """Raises TraceError where a node with work has no recorded duration."""
        copies = np.bincount(graph.rank_program, minlength=len(graph.programs))
        keys, times, weights = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for program, count in zip(graph.programs, copies.tolist(), strict=True):
            rows = kernel_rows(program)
            keys.append(_key(program, rows))
            times.append(Recorded().durations(program, graph.source)[rows])
            weights.append(np.full(len(rows), count, np.int64))
        self._keys, inverse = np.unique(np.concatenate(keys), return_inverse=True)
        weight: NDArray[Any] = np.concatenate(weights)
        size = max(len(self._keys), 1)
        total = np.bincount(inverse.ravel(), weight * np.concatenate(times).astype(float), size)
        count_of = np.bincount(inverse.ravel(), weight, size)
        self._usual = np.rint(total / np.maximum(count_of, 1)).astype(np.int64)

    def durations(self, program: Program, where: str) -> NDArray[np.int64]:
        """ps per row; of names that the graph did not have, of the host and of delays, as recorded. Raises as recorded."""
        found = Recorded().durations(program, where)
        rows = kernel_rows(program)
        key = _key(program, rows)
        at = np.minimum(np.searchsorted(self._keys, key), max(len(self._keys) - 1, 0))
        known = self._keys[at] == key if len(self._keys) else np.zeros(len(rows), dtype=bool)
        found[rows[known]] = self._usual[at[known]]
        return found


def _key(program: Program, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Name and type as one number."""
    return program.name[rows].astype(np.int64) * len(NodeType) + program.type[rows]
