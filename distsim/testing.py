"""Contract checks that ship with the package: whoever registers a component runs the check of its role over it.

::

    from distsim.testing import check_collective_algorithm, check_network_model

    def test_mine():
        check_collective_algorithm("mine")
        check_network_model(MyLevel)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from distsim import registry
from distsim.collectives.check import check
from distsim.collectives.schedule import OPERATIONS, Collective, Schedule, schedule
from distsim.errors import CollectiveError
from distsim.network.check import check_network_model
from distsim.workload.training.schedules.check import check_pipeline_schedule

__all__ = ["check_collective_algorithm", "check_network_model", "check_pipeline_schedule"]


def check_collective_algorithm(
    name: str,
    *,
    operations: Iterable[str] = (),
    sizes: Iterable[int] = range(1, 10),
    chunks: Iterable[int] = (1, 3),
    amounts: Iterable[int] = (1003, 5, 0),
    **options: Any,
) -> dict[str, list[int]]:
    """Proves, for every combination and three roots, that the algorithm does what it says (``collectives.check``).

    It may refuse a group, with a CollectiveError that names the group's size; a group of one must be an empty schedule, and
    the same question must get the same answer twice.

    Args:
        name: under which it is registered as a ``collective``.
        operations: all that it says it serves, if empty.
        sizes: of the group.
        chunks: numbers of chunks.
        amounts: bytes; odd ones and ones below the number of blocks find most faults.
        options: other fields of Collective: window, dims, per_dim, optimization.

    Returns:
        the sizes served, per operation.

    Raises:
        AssertionError: what is wrong, and for which Collective.
        UnknownNameError: no such algorithm.
    """
    algorithm = registry.lookup("collective", name)
    unknown = set(algorithm.operations) - set(OPERATIONS)
    assert not unknown, f"{name} lists operations that do not exist: {sorted(unknown)}"
    served: dict[str, list[int]] = {}
    sizes, chunks, amounts = list(sizes), list(chunks), list(amounts)
    for operation in operations or algorithm.operations:
        served[operation] = []
        for size in sizes:
            asked = [
                Collective(operation, size, amount, chunk, root, **options)
                for amount in amounts
                for chunk in chunks
                for root in sorted({0, size // 2, size - 1})
            ]
            if all([_serves(name, collective) for collective in asked]):
                served[operation].append(size)
        assert served[operation], f"{name} refuses {operation} for every size of {sizes}"
    return served


def _serves(name: str, collective: Collective) -> bool:
    """False where the algorithm refuses."""
    try:
        answer = schedule(name, collective)
    except CollectiveError as refusal:
        if str(collective.size) not in str(refusal):
            raise AssertionError(f"{name} refuses {collective} without naming the size: {refusal}") from refusal
        return False
    assert collective.size > 1 or not len(answer), f"{name} moves something in a group of one: {collective}"
    assert _same(answer, schedule(name, collective)), f"{name} answers differently when asked twice: {collective}"
    try:
        check(answer, collective)
    except CollectiveError as fault:
        raise AssertionError(f"{name} is wrong for {collective}: {fault}") from fault
    return True


def _same(one: Schedule, other: Schedule) -> bool:
    columns = ("src", "dst", "bytes", "dep_ptr", "dep", "reduce")
    return all(np.array_equal(getattr(one, column), getattr(other, column)) for column in columns)
