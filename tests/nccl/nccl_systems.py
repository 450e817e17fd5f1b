"""Systems for tests: every GPU, any number of nodes and NICs."""

from __future__ import annotations

from hypothesis import strategies as st

from distsim.nccl.gpus import GPUS
from distsim.nccl.selection import OPERATIONS
from distsim.nccl.system import System

operations = st.sampled_from(OPERATIONS)
sizes = st.integers(0, 1 << 36)


@st.composite
def systems(draw):
    nodes = draw(st.sampled_from([1, 1, 1, 2, 3, 4, 5, 8, 16, 31, 32, 64, 128]))
    ranks = draw(st.integers(max(2, nodes), min(1024, 8 * nodes)))
    return System(
        draw(st.sampled_from(sorted(GPUS))), ranks, nodes, draw(st.integers(1, 16)) if nodes > 1 else 0,
        draw(st.sampled_from([12.5, 25.0, 50.0, 100.0])) if nodes > 1 else 0.0, draw(st.sampled_from(["ib", "roce", "efa"])),
        draw(st.sampled_from(["intel", "amd", "arm"])), draw(st.booleans()), draw(st.booleans()),
    )  # fmt: skip
