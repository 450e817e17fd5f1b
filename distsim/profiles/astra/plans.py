"""How ASTRA-sim's system layer would run a collective: chunks, phases, queues. Pure arithmetic, no time.

A plan says how many equal chunks there are (the tail chunk is full-size) and which phases each walks through.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from distsim.errors import CollectiveError
from distsim.profiles.astra import layout as L  # noqa: N812
from distsim.profiles.astra.config import AstraConfig, Implementation, check_size

_OPERATION = {
    "all_reduce": L.ALL_REDUCE, "all_gather": L.ALL_GATHER, "reduce_scatter": L.REDUCE_SCATTER, "all_to_all": L.ALL_TO_ALL,
}  # fmt: skip
_ALGORITHM = {"ring": L.RING, "direct": L.DIRECT, "halvingDoubling": L.HALVING, "doubleBinaryTree": L.TREE}


def _chunks(config: AstraConfig, operation: str, size: int) -> tuple[int, int]:
    """(number of chunks, bytes of each)."""
    if not 0 < size < 1 << 53:
        raise CollectiveError(f"{operation} of {size} bytes", expected="at least 1 and less than 2^53 bytes")
    chunk = size // config.splits
    if operation != "all_gather" and chunk < config.ranks:
        chunk = config.ranks
        size = config.splits * chunk
    if chunk == 0:
        raise CollectiveError(
            f"an all_gather of {size} bytes cannot be cut into {config.splits} chunks",
            fix="Lower preferred-dataset-splits (ASTRA-sim never ends here).",
        )
    return math.ceil(size / chunk), chunk


class Plans:
    """The plans of a run, each made once; ``rows`` and ``phases`` become the kernels' tables."""

    def __init__(self, config: AstraConfig) -> None:
        self.config = config
        self._known: dict[tuple[str, int, int, int], int] = {}
        self._rows: list[tuple[int, int, int, int]] = []
        self._phases: list[list[int]] = []
        self.max_phases = 1
        self.max_parallel = 1
        self.max_chunks = 1

    def plan(self, operation: str, size: int, group_size: int = 0, dims: int = -1) -> int:
        """Number of the plan of a collective. group_size: members of a proper sub-group, 0 for all ranks; dims: bits of
        the dimensions that take part, -1 for all. Raises CollectiveError, ConfigError."""
        key = (operation, size, group_size, dims)
        if key not in self._known:
            self._known[key] = self._make(*key)
        return self._known[key]

    def recorded(self) -> int:
        """The plan of a collective that only takes its recorded time (broadcast in ASTRA-sim)."""
        key = ("recorded", 0, 0, 0)
        if key not in self._known:
            self._known[key] = len(self._rows)
            self._rows.append((0, len(self._phases), 0, 0))
        return self._known[key]

    def _make(self, operation: str, size: int, group_size: int, dims: int) -> int:
        if operation not in _OPERATION:
            raise CollectiveError(
                f"ASTRA-sim has no {operation}", expected="all_reduce, all_gather, reduce_scatter or all_to_all",
                fix="Run it without --profile astra.",
            )  # fmt: skip
        config = self.config
        chunks, chunk = _chunks(config, operation, size)
        first = len(self._phases)
        if group_size:
            self._phase(Implementation("ring"), operation, 0, group_size, chunk, L.ANY_QUEUE, local=True)
        else:
            self._walk(operation, config.implementation(operation), chunk, dims)
        count = len(self._phases) - first
        if count == 0:
            raise CollectiveError(f"the {operation} involves no dimension with more than one rank")
        self._rows.append((chunks, first, count, 0))
        self.max_phases, self.max_chunks = max(self.max_phases, count), max(self.max_chunks, chunks)
        return len(self._rows) - 1

    def _walk(self, operation: str, implementations: tuple[Implementation, ...], size: int, dims: int) -> None:
        """Phases over the dimensions that take part."""
        taking = [d for d in range(len(implementations)) if dims >> d & 1]
        flat = self.config.ranks
        sizes = [flat if i.flat else self.config.dims[d].size for d, i in enumerate(implementations)]

        def phase(op: str, d: int, bytes_: int, queue: int) -> int:
            return self._phase(implementations[d], op, d, sizes[d], bytes_, queue, local=False)

        if operation != "all_reduce" or self.config.optimization == "baseline":
            for d in reversed(taking) if operation == "all_gather" else taking:
                size = phase(operation, d, size, L.ANY_QUEUE)
            return
        for d in taking[:-1]:
            size = phase("reduce_scatter", d, size, L.FIRST_HALF)
        for d in taking[-1:]:
            size = phase("all_reduce", d, size, L.FIRST_HALF)
        for d in reversed(taking[:-1]):
            size = phase("all_gather", d, size, L.SECOND_HALF)

    def _phase(
        self, implementation: Implementation, operation: str, d: int, n: int, size: int, queue: int, *, local: bool
    ) -> int:
        """Append one phase; returns the bytes that the next one works on."""
        check_size(implementation, operation, n)
        algorithm = _ALGORITHM[implementation.algorithm]
        levels = n.bit_length() - 1
        share = size if operation == "all_gather" else size // n
        parallel, cycle, count = 1, n, {"all_reduce": 2 * (n - 1), "all_to_all": n * (n - 1) // 2}.get(operation, n - 1)
        start = share
        if algorithm == L.DIRECT:
            parallel = min(implementation.window or n - 1, n - 1)
            cycle, count = 2 * parallel, 2 * (n - 1) if operation == "all_reduce" else n - 1
        elif algorithm == L.HALVING:
            cycle, count = levels, 2 * levels if operation == "all_reduce" else levels
            start = size if operation == "all_gather" else size // 2
        elif algorithm == L.TREE:
            cycle, count, start = 1, 0, size
        self.max_parallel = max(self.max_parallel, parallel)
        row = [0] * L.PHASE_W
        row[L.F_ALGORITHM], row[L.F_OPERATION], row[L.F_DIM], row[L.F_SIZE] = algorithm, _OPERATION[operation], d, n
        row[L.F_BYTES], row[L.F_ALLOCATE], row[L.F_PARALLEL], row[L.F_CYCLE] = size, queue, parallel, cycle
        row[L.F_COUNT], row[L.F_LOCAL], row[L.F_START] = count, int(local), start
        row[L.F_RING] = len(self.config.dims) if implementation.flat else d
        self._phases.append(row)
        return {"all_gather": size * n, "reduce_scatter": size // n}.get(operation, size)

    def messages_per_rank(self) -> int:
        """Messages that a rank sends in the largest plan: the work that a run may take."""
        best = 0
        for chunks, first, count, _ in self._rows:
            best = max(
                best, chunks * sum(p[L.F_COUNT] + 2 * (p[L.F_ALGORITHM] == L.TREE) for p in self._phases[first : first + count])
            )
        return best

    def algorithms(self) -> set[int]:
        """Algorithms in use."""
        return {phase[L.F_ALGORITHM] for phase in self._phases}

    def tables(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(plan rows, phase rows), flat."""
        rows = np.array(self._rows or [(0, 0, 0, 0)], dtype=np.int64)
        phases = np.array(self._phases or [[0] * L.PHASE_W], dtype=np.int64)
        return rows.ravel(), phases.ravel()
