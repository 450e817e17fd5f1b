"""Durations as they were recorded in the trace."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TraceError
from distsim.registry import register
from distsim.trace.graph import NodeType, Program


def timed_rows(program: Program) -> NDArray[np.bool_]:
    """Rows that take a time of their own: compute and memory nodes, delays."""
    return np.isin(program.type, (NodeType.COMP, NodeType.MEM_LOAD, NodeType.MEM_STORE, NodeType.DELAY))


@register("cost", "recorded")
class Recorded:
    """The trace's own durations. Nodes without one but without work either (no num_ops, no tensor_size) take no time."""

    def durations(self, program: Program, where: str) -> NDArray[np.int64]:
        """ps per row, 0 for rows that are not timed. Raises TraceError for a node with work but no recorded duration."""
        timed = timed_rows(program)
        missing = timed & (program.duration_ps < 0) & ((program.num_ops > 0) | (program.tensor_size > 0))
        if missing.any():
            row = int(np.flatnonzero(missing)[0])
            raise TraceError(
                f"node {int(program.id[row])} has no recorded duration ({int(missing.sum())} such nodes)", where=where,
                fix="Give the device that should run it: --compute roofline --peak 989TFLOPS --memory-bandwidth 3.35TB/s.",
            )  # fmt: skip
        return np.where(timed, np.maximum(program.duration_ps, 0), 0)
