"""How long a block takes: its operations on their streams, on a device and links that nothing else uses.

This is the training counterpart of a leased closed form: a block whose links nobody else enters takes the same time however
often it runs, so it is worked out once. ``grain=kernel`` of the graph builder hands the operations themselves to the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from distsim.workload.training.operations import Operation


@dataclass(frozen=True, slots=True)
class BlockTime:
    """ps: from the block's start to the end of its last operation.

    computing: by kind of kernel. exposed: by communicator, time in which computation waited for it. launch: time in which
    it waited for the host to issue kernels. They add up to ``span``. hidden: communication behind computation.
    weight: the part of ``computing`` that is gradients of weights (``wgrad``), which schedules with a split backward move.
    host: time that the host needs to issue everything.
    """

    span: int
    computing: Mapping[str, int] = field(default_factory=dict)
    exposed: Mapping[str, int] = field(default_factory=dict)
    hidden: Mapping[str, int] = field(default_factory=dict)
    launch: int = 0
    weight: int = 0
    host: int = 0
    recomputed: int = 0


NOTHING = BlockTime(0)


def merged(blocks: Sequence[tuple[BlockTime, int]]) -> BlockTime:
    """Blocks one after the other, each so many times. The host runs ahead: only where it needs longer than the device for all
    of them does the device wait."""
    span = sum((b.span - b.launch) * n for b, n in blocks)
    host = sum(b.host * n for b, n in blocks)
    launch = max(0, host - span)
    return BlockTime(
        span + launch, _sum([(b.computing, n) for b, n in blocks]), _sum([(b.exposed, n) for b, n in blocks]),
        _sum([(b.hidden, n) for b, n in blocks]), launch, sum(b.weight * n for b, n in blocks), host,
        sum(b.recomputed * n for b, n in blocks),
    )  # fmt: skip


def _sum(parts: Sequence[tuple[Mapping[str, int], int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part, times in parts:
        for key, value in part.items():
            total[key] = total.get(key, 0) + value * times
    return total


def timed(
    operations: Sequence[Operation], kernel_ps: Callable[[Operation], int], message_ps: Callable[[Operation], int],
    *, launch_ps: int = 0, overhead_ps: int = 0, interference: float = 1.0,
) -> BlockTime:  # fmt: skip
    """Run operations: each stream in order, each operation after those that it names.

    launch_ps: of the host per kernel; overhead_ps: of the host for the block. interference: a kernel is so much slower while
    a communication runs beside it.
    """
    ends: list[int] = []
    free: dict[str, int] = {}
    computing: dict[str, int] = {}
    exposed: dict[str, int] = {}
    moved: dict[str, int] = {}
    now = 0  # end of the last kernel
    weight = launches = recomputed = 0
    busy_until = 0  # end of the communication that ends last
    for operation in operations:
        start = max((ends[i] for i in operation.after), default=0)
        if operation.kernel is None:
            start = max(start, free.get(operation.stream, 0))
            took = message_ps(operation)
            end = free[operation.stream] = start + took
            moved[operation.group] = moved.get(operation.group, 0) + took
            busy_until = max(busy_until, end)
        else:
            if start > now:
                _blame(exposed, operations, ends, operation.after, now, start)
                now = start
            took = kernel_ps(operation)
            if interference > 1.0 and busy_until > now:
                beside = min(round(took * interference), busy_until - now)
                took = beside + max(0, took - round(beside / interference))
            end = now = now + took
            computing[operation.kind] = computing.get(operation.kind, 0) + took
            launches += operation.launches
            if operation.part == "wgrad":
                weight += took
            elif operation.part == "recompute":
                recomputed += took
        ends.append(end)
    last = max(ends, default=0)
    if last > now:
        _blame(exposed, operations, ends, range(len(operations)), now, last)
    hidden = {group: max(0, took - exposed.get(group, 0)) for group, took in moved.items()}
    host = launches * launch_ps + overhead_ps
    short = max(0, host - last)
    return BlockTime(last + short, computing, exposed, hidden, short, weight, host, recomputed)


def _blame(
    exposed: dict[str, int], operations: Sequence[Operation], ends: Sequence[int], among: Sequence[int], since: int, until: int
) -> None:
    """Time in which computation waited goes to the communicator that ended last."""
    last = max(among, key=lambda i: (ends[i], i))
    group = operations[last].group
    exposed[group] = exposed.get(group, 0) + until - since
