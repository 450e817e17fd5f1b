"""Writes down the operations of one pass over a layer, in program order."""

from __future__ import annotations

from distsim.cost.kernel import Kernel, gemm, memory
from distsim.workload.training.layers.shard import Shard
from distsim.workload.training.operations import COMPUTE, Operation


class Writer:
    """A pass being written: kernels follow each other on the compute stream, communications go to their group's stream.

    A blocking communication (:meth:`exchange`) holds up the next kernel; one that :meth:`begin` starts does so only from
    where :meth:`wait` is called.
    """

    def __init__(self, shard: Shard, part: str) -> None:
        self.shard = shard
        self.part = part
        self.operations: list[Operation] = []
        self._last = -1  #: last kernel
        self._due: tuple[int, ...] = ()  #: communications that the next kernel waits for
        self.scaled = True  #: whether GEMMs run in the plan's narrow format, if it has one
        self.resting = -1  #: a gathering whose last pieces are still under way

    def kernel(self, name: str, kind: str, kernel: Kernel, launches: int = 1) -> int:
        """A kernel; ``launches``: how many the software issues for it."""
        self.operations.append(
            Operation(name, kind, kernel, after=self._due, part=self.part, launches=launches, stream=COMPUTE)
        )
        self._due = ()
        self._last = len(self.operations) - 1
        return self._last

    def gemm(self, name: str, m: int, n: int, k: int, *, plain: bool = False) -> int:
        """y (m, n) = x (m, k) W. ``plain``: in the activations' dtype whatever the big GEMMs use."""
        dtype = self.shard.dtype if self.scaled and not plain else self.shard.plain
        return self.kernel(name, "gemm", gemm(m, n, k, dtype, self.shard.plain))

    def quantise(self, elements: float) -> None:
        """Casts of a GEMM's input to the scaled format that the plan asks for, with the transposed copy that the backward
        pass needs; nothing where GEMMs run in the activations' dtype."""
        dtype = self.shard.dtype
        if self.scaled and dtype in ("fp8", "fp4") and not self.shard.stack.fused_casts:
            narrow = 1.0 if dtype == "fp8" else 0.5625
            self.kernel("quantise", "memory", memory(elements * (self.shard.width + 2 * narrow)))

    def memory(self, name: str, moved: float, launches: int = 1) -> int:
        """An element-wise kernel (or ``launches`` of them) that moves so many bytes."""
        return self.kernel(name, "memory", memory(moved), launches)

    def begin(self, name: str, group: str, operation: str, size: float) -> int:
        """A communication that starts when the kernels so far are done, and that nothing waits for yet."""
        after = tuple(sorted({*self._due, *((self._last,) if self._last >= 0 else ())}))
        self.operations.append(
            Operation(name, group, None, operation, int(size), group, group, after, self.part)
        )
        return len(self.operations) - 1

    def wait(self, *begun: int) -> None:
        """The next kernel starts after these."""
        self._due = tuple(sorted({*self._due, *(index for index in begun if index >= 0)}))

    def exchange(self, name: str, group: str, operation: str, size: float) -> None:
        """A communication that the next kernel waits for."""
        self.wait(self.begin(name, group, operation, size))
