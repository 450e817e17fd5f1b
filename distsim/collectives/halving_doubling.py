"""Recursive halving and doubling: bandwidth-optimal in a logarithmic number of steps, for powers of two.

Source: Rabenseifner, "Optimization of collective reduction operations" (2004); Thakur, Rabenseifner & Gropp, "Optimization
of collective communication operations in MPICH" (2005). Choose it for medium and large buffers on networks without a
penalty for distance: log2(n) steps instead of the ring's n-1, at the same bytes.

reduce_scatter: step i exchanges with the partner ``r xor 2^i``, a half of what is left; all_gather: the same backwards, the
farthest partner first; all_reduce: the one after the other. Distances and sizes are ASTRA-sim's.
"""

from __future__ import annotations

import numpy as np

from distsim.collectives.blocks import Layout
from distsim.collectives.pipeline import Rows, exchanges, pipelined
from distsim.collectives.schedule import Collective, Schedule
from distsim.errors import CollectiveError
from distsim.registry import register


@register("collective", "halving_doubling")
class HalvingDoubling:
    """Rows are step-major. A rank enters a step when its exchange of the last one is complete in both directions."""

    operations = ("all_reduce", "reduce_scatter", "all_gather")

    def schedule(self, collective: Collective) -> Schedule:
        """The transfers of all chunks. Raises CollectiveError where the group is not a power of two."""
        n, operation = collective.size, collective.operation
        if n & (n - 1):
            below = 1 << (n.bit_length() - 1)
            raise CollectiveError(
                f"halving_doubling cannot serve a group of {n}",
                expected="a power of two",
                near=[f"groups of {below} and {2 * below}", "recursive_doubling, ring, double_binary_tree for any size"],
            )
        bits = n.bit_length() - 1
        halving = list(range(bits)) if operation != "all_gather" else []
        steps = halving + (list(reversed(range(bits))) if operation != "reduce_scatter" else [])
        members = np.arange(n, dtype=np.int32)
        segments = Layout(collective, collective.chunks).sizes()

        # what r sends in step i: while halving, the segments that agree with its partner in the bits 0..i; then with itself
        keys = [(members ^ (1 << i) if k < len(halving) else members) % (2 << i) for k, i in enumerate(steps)]
        sums = [segments.reshape(collective.chunks, -1, 2 << i).sum(axis=1) for i in range(bits)]
        sizes = np.stack([sums[i][:, key] for i, key in zip(steps, keys, strict=True)], axis=1)

        def payload(chunk: int, row: int) -> list[int]:
            step, rank = divmod(row, n)
            return list(range(chunk * n + int(keys[step][rank]), (chunk + 1) * n, 2 << steps[step]))

        partners = np.stack([members ^ np.int32(1 << i) for i in steps])
        reduce = np.repeat(np.arange(len(steps)) < len(halving), n)
        src = np.tile(members, len(steps))
        rows = Rows(src, partners.reshape(-1), *exchanges(partners, members), reduce)
        return pipelined(n, rows, sizes.reshape(collective.chunks, -1), payload, collective.chunks)
