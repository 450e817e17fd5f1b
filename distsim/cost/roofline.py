"""The roofline: a kernel takes the longer of its arithmetic at peak rate and its traffic at peak bandwidth.

Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model" (2009).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.cost.recorded import timed_rows
from distsim.errors import TraceError
from distsim.registry import register
from distsim.trace.graph import NodeType, Program


@register("cost", "roofline")
@dataclass(frozen=True, slots=True)
class Roofline:
    """max(num_ops / peak, tensor_size / bandwidth) for compute on the GPU, tensor_size / bandwidth for memory nodes.

    Host operations, and nodes that tell neither their operations nor their bytes, keep their recorded duration.
    """

    peak: float  #: FLOP/s
    bandwidth: float  #: bytes/s

    def durations(self, program: Program, where: str) -> NDArray[np.int64]:
        """ps per row, 0 for rows that are not timed. Raises TraceError for a node that tells nothing to go by."""
        timed = timed_rows(program)
        memory = timed & (program.type != NodeType.COMP)
        known = timed & ~program.cpu & ((program.num_ops > 0) | (program.tensor_size > 0))
        nothing = timed & ~known & (program.duration_ps < 0)
        if nothing.any():
            row = int(np.flatnonzero(nothing)[0])
            raise TraceError(
                f"node {int(program.id[row])} has neither num_ops, tensor_size nor a recorded duration", where=where,
                expected="one of them",
            )  # fmt: skip
        arithmetic = np.where(memory, 0.0, np.maximum(program.num_ops, 0) / self.peak)
        traffic = np.maximum(program.tensor_size, 0) / self.bandwidth
        modelled = np.rint(np.maximum(arithmetic, traffic) * 1e12).astype(np.int64)
        return np.where(known, modelled, np.where(timed, np.maximum(program.duration_ps, 0), 0))
