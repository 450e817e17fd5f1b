"""The order in which a program's nodes can run: topological, lowest id first among those that could come next."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import TraceError
from distsim.kernel.jit import kernel
from distsim.trace.graph import Program


@kernel
def kahn(
    n: int, dep_ptr: Any, dep: Any, key: Any, row_of: Any, waiting: Any, next_ptr: Any, after: Any, heap: Any, out: Any
) -> int:
    """Fill ``out`` with rows in topological order, smallest ``key`` first; the number of rows that could be placed.

    ``key`` ranks the rows (row_of is its inverse); waiting (n), next_ptr (n + 1, zeros), after (len(dep)) and heap (n) are
    working space.
    """
    for row in range(n):
        waiting[row] = dep_ptr[row + 1] - dep_ptr[row]
        for k in range(dep_ptr[row], dep_ptr[row + 1]):
            next_ptr[dep[k]] += 1
    total = 0
    for row in range(n):
        count = next_ptr[row]
        next_ptr[row] = total
        total += count
    next_ptr[n] = total
    for row in range(n):
        for k in range(dep_ptr[row], dep_ptr[row + 1]):
            after[next_ptr[dep[k]]] = row
            next_ptr[dep[k]] += 1
    # next_ptr[row] is now where row's successors end, next_ptr[row - 1] where they begin
    size = 0
    for place in range(n):
        if waiting[row_of[place]] == 0:
            heap[size] = place  # ascending, hence already a heap
            size += 1
    done = 0
    while size > 0:
        row = row_of[heap[0]]
        size -= 1
        last = heap[size]
        at = 0
        while 2 * at + 1 < size:
            child = 2 * at + 1
            if child + 1 < size and heap[child + 1] < heap[child]:
                child += 1
            if heap[child] >= last:
                break
            heap[at] = heap[child]
            at = child
        heap[at] = last
        out[done] = row
        done += 1
        for k in range(next_ptr[row - 1] if row > 0 else 0, next_ptr[row]):
            successor = after[k]
            waiting[successor] -= 1
            if waiting[successor] == 0:
                at = size
                size += 1
                place = key[successor]
                while at > 0 and heap[(at - 1) // 2] > place:
                    heap[at] = heap[(at - 1) // 2]
                    at = (at - 1) // 2
                heap[at] = place
    return done


def _placed(program: Program) -> NDArray[np.int32]:
    """Rows in order; fewer than the program has where there is a cycle."""
    n = len(program)
    ascending = bool((np.diff(program.id) > 0).all())
    rows = np.repeat(np.arange(n, dtype=np.int32), np.diff(program.dep_ptr))
    if ascending and bool((program.dep < rows).all()):
        return np.arange(n, dtype=np.int32)
    row_of = np.arange(n) if ascending else np.argsort(program.id, kind="stable")
    key = np.empty(n, np.int64)
    key[row_of] = np.arange(n)
    run, compiled = kahn.for_work(8 * (n + len(program.dep)))
    inputs: list[Any] = [program.dep_ptr, program.dep, key, row_of]
    space: list[Any] = [np.zeros(n, np.int64), np.zeros(n + 1, np.int64), np.zeros(len(program.dep), np.int64),
                        np.zeros(n, np.int64), np.zeros(n, np.int64)]  # fmt: skip
    if not compiled:
        inputs, space = [column.tolist() for column in inputs], [column.tolist() for column in space]
    done = run(n, *inputs, *space)
    return np.array(space[-1][:done], np.int32)


def program_order(program: Program) -> NDArray[np.int32]:
    """All rows in program order. TraceError where dependencies form a cycle (use :func:`find_cycle` to name it)."""
    order = _placed(program)
    if len(order) < len(program):
        ids = " -> ".join(str(int(program.id[row])) for row in find_cycle(program))
        raise TraceError(f"nodes depend on each other in a cycle: {ids}")
    return order


def find_cycle(program: Program) -> list[int]:
    """Rows of one cycle, each depending on the next and the last on the first; empty where there is none."""
    order = _placed(program)
    if len(order) == len(program):
        return []
    stuck = np.ones(len(program), np.bool_)
    stuck[order] = False
    row = int(np.flatnonzero(stuck)[0])
    path: list[int] = []
    seen: dict[int, int] = {}
    while row not in seen:
        seen[row] = len(path)
        path.append(row)
        row = next(int(d) for d in program.dep[program.dep_ptr[row] : program.dep_ptr[row + 1]] if stuck[d])
    return path[seen[row] :]
