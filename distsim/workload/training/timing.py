"""How long a pipeline takes: runs the slots of every stage in order, each as soon as what it needs is there.

Pure and small: no streams, no network. It tells bubbles, bounds and in-flight activations of a schedule; the execution graph
of a step is made and simulated elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from distsim.errors import ConfigError, DeadlockError
from distsim.workload.training.schedules.slot import BW, B, F, PipelineSchedule, Slot, W

#: ps by (phase, chunk)
Times = Mapping[tuple[str, int], int]

_SHOWN = 4  # stages that a deadlock names


@dataclass(frozen=True, slots=True)
class Timeline:
    """What :func:`run` answers; times in ps from the start of the step.

    orders: the slots per stage, as given. start, end: of these slots. makespan: end of the last slot of all. idle: per stage,
    the makespan less the time in which it ran slots (a blocking send is idle).
    """

    orders: Sequence[Sequence[Slot]]
    start: list[list[int]]
    end: list[list[int]]
    makespan: int
    idle: list[int]

    def in_flight(self, stage: int) -> int:
        """Most forward passes of this stage whose activations are held at once."""
        return sum(peak(self.orders[stage]).values())


#: a slot with its links: (phase, chunk, own, needs, away, also, also_away, makes, sends, makes_too, sends_too). Keys number
#: what slots make; key 0 is there from the start, key 1 is what nobody needs. own: made earlier by this stage, or it never
#: will be. needs, also: made before it starts; away: by another stage. makes, makes_too: at its end; sends: to another stage.
_Step = tuple[str, int, int, int, bool, int, bool, int, bool, int, bool]


@dataclass(frozen=True, slots=True)
class Program:
    """Orders and paths, linked: who needs what of whom. Made once by :func:`program`, run with any times."""

    orders: Sequence[Sequence[Slot]]
    steps: Sequence[Sequence[_Step]]
    keys: int

    def run(self, times: Times | Sequence[Times], p2p: int = 0, *, blocking: bool = False) -> Timeline:
        """See :func:`run`."""
        stages = len(self.orders)
        took = [
            _durations(order, times if isinstance(times, Mapping) else times[stage]) for stage, order in enumerate(self.orders)
        ]
        done = [-1] * self.keys
        done[0] = 0
        waiting: dict[int, int] = {}  # key -> stage
        at, free = [0] * stages, [0] * stages
        start: list[list[int]] = [[] for _ in range(stages)]
        end: list[list[int]] = [[] for _ in range(stages)]
        ready = list(range(stages))
        while ready:
            stage = ready.pop()
            mine, duration, now, starts, ends = self.steps[stage], took[stage], free[stage], start[stage], end[stage]
            for index in range(at[stage], len(mine)):
                phase, chunk, own, needs, away, also, also_away, makes, sends, makes_too, sends_too = mine[index]
                if done[own] < 0:
                    break
                there = done[needs]
                if there < 0:
                    waiting[needs] = stage
                    break
                if away:
                    there += p2p
                begin = there if there > now else now
                if also:
                    there = done[also]
                    if there < 0:
                        waiting[also] = stage
                        break
                    if also_away:
                        there += p2p
                    if there > begin:
                        begin = there
                now = begin + duration[phase, chunk]
                done[makes] = done[makes_too] = now
                starts.append(begin)
                ends.append(now)
                if sends or sends_too:
                    if blocking:
                        now += p2p
                    if makes in waiting:
                        ready.append(waiting.pop(makes))
                    if makes_too in waiting:
                        ready.append(waiting.pop(makes_too))
            at[stage], free[stage] = len(ends), now
        self._all_ran(at)
        makespan = max((ends[-1] for ends in end if ends), default=0)
        busy = [sum(ends) - sum(starts) for starts, ends in zip(start, end, strict=True)]
        return Timeline(self.orders, start, end, makespan, [makespan - one for one in busy])

    def _all_ran(self, at: Sequence[int]) -> None:
        """Raise DeadlockError where a stage did not come to its end."""
        stuck = [stage for stage, order in enumerate(self.orders) if at[stage] < len(order)]
        if stuck:
            words = [f"stage {stage} at {_words(self.orders[stage][at[stage]])}" for stage in stuck[:_SHOWN]]
            raise DeadlockError(
                f"{len(stuck)} of {len(at)} pipeline stages wait for ever: {', '.join(words)}"
                + (", ..." if len(stuck) > _SHOWN else ""),
                expected="an order in which every forward comes before its backward, on all stages alike",
            )


def run(
    orders: Sequence[Sequence[Slot]],
    paths: Sequence[Sequence[int]],
    times: Times | Sequence[Times],
    p2p: int = 0,
    *,
    blocking: bool = False,
) -> Timeline:
    """Run every stage's slots in the order given.

    A forward waits for the forward of the chunk before it; a backward for its own forward and for the backward of the chunk
    after it; a W for its B. A stage runs one slot at a time. An F directly before a BW is a pair (DualPipe): it starts when
    both have what they need, and what they make leaves together.

    Args:
        orders: slots per stage.
        paths: per micro-batch, the stage of every chunk in model order.
        times: ps per (phase, chunk); one mapping for all stages, or one each (slow or uneven stages). BW may be left out
            where B and W are there: it is their sum.
        p2p: ps from the end of a slot until another stage has what it made.
        blocking: the sender is held up for that long, too (sends that are not overlapped).

    Raises:
        ConfigError: a slot given twice, on a stage that is not its own, or without a time.
        DeadlockError: an order that can never go on; the message names stages and slots that wait.
    """
    return program(orders, paths).run(times, p2p, blocking=blocking)


def program(orders: Sequence[Sequence[Slot]], paths: Sequence[Sequence[int]]) -> Program:
    """Link the slots. Raises ConfigError where a slot is given twice or on a stage that is not its own."""
    steps = [_linked(stage, order, paths) for stage, order in enumerate(orders)]
    return Program(orders, steps, 2 + 2 * len(paths) * max(map(len, paths), default=0))


@lru_cache(maxsize=64)
def _program_of(kind: type[PipelineSchedule], stages: int, virtual: int, micro_batches: int) -> Program:
    schedule = kind()
    orders = [schedule.order(stage, stages, virtual, micro_batches) for stage in range(stages)]
    return program(orders, [schedule.path(m, stages, virtual, micro_batches) for m in range(micro_batches)])


def schedule_run(
    schedule: PipelineSchedule,
    stages: int,
    virtual: int,
    micro_batches: int,
    times: Times | Sequence[Times],
    p2p: int = 0,
    *,
    blocking: bool = False,
) -> Timeline:
    """:func:`run` of a schedule; what it links is remembered. Raises ConfigError where it does not take these numbers."""
    return _program_of(type(schedule), stages, virtual, micro_batches).run(times, p2p, blocking=blocking)


def peak_in_flight(
    schedule: PipelineSchedule,
    stage: int,
    stages: int,
    virtual: int,
    micro_batches: int,
    weights: Mapping[int, float] | None = None,
) -> dict[int, int]:
    """Chunk -> micro-batches whose activations a stage holds at its fullest moment; see :func:`peak`.

    Raises ConfigError where the schedule does not take these numbers.
    """
    return peak(schedule.order(stage, stages, virtual, micro_batches), weights)


def peak(order: Sequence[Slot], weights: Mapping[int, float] | None = None) -> dict[int, int]:
    """Chunk -> micro-batches in flight at the first moment at which most are, all chunks of this order together.

    In flight: from the forward until the end of the backward, where that is split until the end of W. Stages run their slots
    one at a time, so the order alone tells. ``weights``: bytes per micro-batch of every chunk, where they are not alike.
    """
    split = {(micro_batch, chunk) for phase, micro_batch, chunk in order if phase == W}
    held: dict[int, int] = {}
    fullest: dict[int, int] = {}
    total = most = 0.0
    for phase, micro_batch, chunk in order:
        weight = weights[chunk] if weights is not None else 1
        if phase == F:
            held[chunk] = held.get(chunk, 0) + 1
            total += weight
            if total > most:
                most, fullest = total, dict(held)
        elif phase != B or (micro_batch, chunk) not in split:
            held[chunk] -= 1
            total -= weight
    return {chunk: fullest.get(chunk, 0) for chunk in sorted(held)}


def _durations(order: Sequence[Slot], times: Times) -> dict[tuple[str, int], int]:
    """ps of every (phase, chunk) of a stage. Raises ConfigError where one has no time or a negative one."""
    found = {}
    for phase, chunk in sorted({(slot.phase, slot.chunk) for slot in order}):
        if phase == BW and (BW, chunk) not in times and (B, chunk) in times and (W, chunk) in times:
            found[phase, chunk] = times[B, chunk] + times[W, chunk]
        elif times.get((phase, chunk), -1) >= 0:
            found[phase, chunk] = times[phase, chunk]
        else:
            raise ConfigError(f"no time for {phase} of chunk {chunk}", where="pipeline timing", expected="0 ps or more")
    return found


def _linked(stage: int, order: Sequence[Slot], paths: Sequence[Sequence[int]]) -> list[_Step]:
    """The slots of a stage with what they need and make. Raises ConfigError where a slot cannot be this stage's."""
    if len(set(order)) < len(order):
        twice = next(slot for index, slot in enumerate(order) if slot in order[:index])
        raise ConfigError(f"stage {stage} runs {_words(twice)} twice", where="pipeline schedule")
    steps: list[_Step] = []
    pair = False
    for index, slot in enumerate(order):
        needs, away, makes, sends, own = _ends(stage, slot, paths)
        also, also_away, makes_too, sends_too = 0, False, 1, False
        if pair:
            # what the forward of the pair made leaves with this one
            makes_too, sends_too, pair = steps[-1][7], steps[-1][8], False
            steps[-1] = (*steps[-1][:7], 1, False, 1, False)
        elif index + 1 < len(order) and _pairs(slot, order[index + 1]):
            pair = True
            also, also_away, *_ = _ends(stage, order[index + 1], paths)
        steps.append((slot.phase, slot.chunk, own, needs, away, also, also_away, makes, sends, makes_too, sends_too))
    return steps


def _pairs(slot: Slot, after: Slot) -> bool:
    """Whether they run beside each other: a forward and a whole backward, not its own."""
    return slot.phase == F and after.phase == BW and slot[1:] != after[1:]


def _ends(stage: int, slot: Slot, paths: Sequence[Sequence[int]]) -> tuple[int, bool, int, bool, int]:
    """(needs, away, makes, sends, own) of a slot. Raises ConfigError where it cannot be this stage's."""
    phase, micro_batch, chunk = slot
    path = paths[micro_batch] if 0 <= micro_batch < len(paths) else ()
    chunks = len(path)
    if not 0 <= chunk < chunks or path[chunk] != stage:
        raise ConfigError(f"{_words(slot)} is not of stage {stage}", where="pipeline schedule")
    forward = 2 + 2 * (micro_batch * chunks + chunk)
    backward = forward + 1
    before = chunk > 0 and path[chunk - 1] != stage
    after = chunk + 1 < chunks and path[chunk + 1] != stage
    if phase == F:
        return forward - 2 if chunk else 0, before, forward, after, 0
    if phase in (B, BW):
        return backward + 2 if chunk + 1 < chunks else 0, after, backward, before, forward
    if phase == W:
        return 0, False, 1, False, backward
    raise ConfigError(f"unknown phase {phase!r}", where="pipeline schedule", expected="F, B, W or BW")


def _words(slot: Slot) -> str:
    """``F of micro-batch 3, chunk 2``."""
    return f"{slot.phase} of micro-batch {slot.micro_batch}, chunk {slot.chunk}"
