"""Where the error of a prediction comes from: computation, memory, communication or scheduling.

Two worlds with the same nodes, the measured and the predicted one, are mixed part by part: each part comes from one of them,
and the mixture is simulated. A part's share of the error is what replacing its measured times by the predicted ones adds to
the step, averaged over the orders in which the parts can be replaced (the Shapley value: Shapley, 1953), so that shares do not
depend on an order and sum exactly to the error. Parts that are equal in both worlds need no runs: at most 2^4.

compute         durations of kernels
memory          durations of copies and fills (and of kernels that only move data, where asked for)
communication   transfer times of collectives, or the simulated network in place of them
scheduling      durations of host work, launch latencies and gaps; dependencies, streams and order

In ps; shares are exact in twelfths and are rounded by largest remainders, ties in the order of the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.steps import step_lengths
from distsim.analysis.underway import communicates, under_way
from distsim.errors import TraceError
from distsim.result import Result
from distsim.trace.graph import NodeType, Program, TaskGraph
from distsim.trace.kineto.kernels import kernel_class

PARTS = ("compute", "memory", "communication", "scheduling")
#: classes of kernels that only move data
MOVING = ("norm", "softmax", "elementwise", "reduction", "embedding", "index", "optimizer")

Ints = NDArray[np.int64]
#: simulates a graph; True: communication goes over the simulated network, False: it takes its recorded times
Run = Callable[[TaskGraph, bool], Result]
Progress = Callable[[float | None, str], None]
_Subset = frozenset[str]
#: 12 |S|! (3 - |S|)! / 4! by |S|: weight of what a part adds to the set S of parts replaced before it
_WEIGHTS = (3, 1, 1, 3)
#: columns that make up the order of a program: what a prediction of scheduling may change
_ORDER = ("dep", "dep_ptr", "stream", "id", "type")


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predicted world: a graph with the same kernels, copies and communications, and the durations that a model gives them.

    simulated: transfers take what the simulated network says, not what the graph says.
    """

    graph: TaskGraph
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class Split:
    """The error of one time, in ps: measured + sum of parts = predicted."""

    what: str
    measured: int
    predicted: int
    parts: Mapping[str, int]

    @property
    def error(self) -> int:
        """predicted - measured."""
        return self.predicted - self.measured


@dataclass(frozen=True, slots=True)
class Kernels:
    """How well a part's own durations are predicted, one node at a time, all ranks together.

    nodes: with a measured time. mape: mean of |predicted - measured| / measured. off: sum of |predicted - measured| over the
    sum of measured; bias: the same with signs, so that errors cancel. spent: measured ps, sum over nodes. wrong, net: ps, sums
    of the errors without and with sign.
    """

    nodes: int
    mape: float
    spent: int
    wrong: int
    net: int

    @property
    def off(self) -> float:
        return self.wrong / self.spent if self.spent else 0.0

    @property
    def bias(self) -> float:
        return self.net / self.spent if self.spent else 0.0


@dataclass(frozen=True, slots=True)
class ErrorSplit:
    """The decomposition. ``total``: of the steps together, or of the whole run where the trace tells no steps."""

    total: Split
    run: Split  #: of the whole run, begin to end
    steps: tuple[Split, ...]  #: of each step: of its slowest rank, first device operation to last
    ranks: tuple[Split, ...]  #: of each rank's end
    step_ranks: tuple[Split, ...]  #: of each step of each rank; of each rank's end where there are no steps
    kernels: Mapping[str, Kernels]  #: by part, without scheduling where its structure differs
    composition: Composition
    differs: tuple[str, ...]  #: parts in which the worlds differ
    runs: int  #: simulations that it took


@dataclass(frozen=True, slots=True)
class Composition:
    """How errors compose: ps of each stage, per rank (kernels) and of the total (the rest). Each stage loses what cancels.

    kernels: sum of the errors of all durations, without sign. parts: of each part the sum with signs, then without. reached:
    what each part adds to the total, without sign (hidden time is gone). step: the error of the total, without sign.
    """

    kernels: int
    parts: int
    reached: int
    step: int


def split_error(
    measured: TaskGraph, predicted: TaskGraph | Prediction, run: Run, *, moving_kernels: bool = False,
    progress: Progress | None = None,
) -> ErrorSplit:  # fmt: skip
    """Decompose the error of a prediction.

    Args:
        measured: as it was, every duration recorded; collectives with their transfer times where it was captured.
        predicted: the same nodes by id, kernels, copies and communications at least; host work and delays may differ.
        run: simulates a mixture; deterministic.
        moving_kernels: kernels of classes that only move data (MOVING) count as memory.
        progress: told what is going on.

    Raises: TraceError where the worlds have other ranks or nodes; and what ``run`` raises.
    """
    said = predicted if isinstance(predicted, Prediction) else Prediction(predicted)
    worlds = _Worlds(measured, said, moving_kernels)
    say = progress or (lambda fraction, what: None)
    differs = tuple(part for part in PARTS if worlds.differ(part))
    subsets = [frozenset(some) for size in range(len(differs) + 1) for some in combinations(differs, size)]
    values: dict[_Subset, Ints] = {}
    moved: dict[_Subset, tuple[Ints, Ints]] = {}
    names: list[str] = []
    for place, subset in enumerate(subsets):
        told = " and ".join(sorted(subset)) or "nothing"
        say(place / len(subsets), f"simulating with {told} predicted")
        result = run(worlds.mixture(subset), said.simulated and "communication" in subset)
        told_names, values[subset] = _times(result)
        names = names or told_names
        if told_names != names:
            raise TraceError(
                "the prediction has other steps than the measurement", where=said.graph.source,
                expected=", ".join(measured.steps),
            )  # fmt: skip
        if subset <= {"communication"}:
            moved[subset] = _transfers(result)
    rows = _shared(values, differs)
    full = frozenset(differs)
    splits = {
        name: Split(name, int(values[frozenset()][at]), int(values[full][at]), rows[at]) for at, name in enumerate(names)
    }  # fmt: skip
    steps = tuple(split for name, split in splits.items() if name.startswith("step "))
    each = tuple(split for name, split in splits.items() if name.startswith("rank ") and ", " in name)
    ranks = tuple(split for name, split in splits.items() if name.startswith("rank ") and ", " not in name)
    total = _sum("steps", steps) if steps else replace(splits["run"], what="run")
    kernels = worlds.kernels(moved, "communication" in differs)
    found = _composition(kernels, total, measured.ranks)
    return ErrorSplit(total, splits["run"], steps, ranks, each or ranks, kernels, found, differs, len(subsets))


def with_durations(graph: TaskGraph, durations: Callable[[Program, str], Ints], *, host: bool = True) -> TaskGraph:
    """The graph with the durations of a compute provider; communication keeps its own.

    Args:
        durations: of a program, as a compute provider gives them; the second argument says where, for messages.
        host: False: host work, launch latencies and gaps take no time, as in simulators that know of GPUs only.

    Raises: what ``durations`` raises.
    """
    programs = []
    for number, program in enumerate(graph.programs):
        ranks = np.flatnonzero(graph.rank_program == number)
        made = durations(program, f"{graph.source}: rank {int(ranks[0]) if len(ranks) else number}")
        kept = np.isin(program.type, (NodeType.COMM_COLL, NodeType.COMM_SEND, NodeType.COMM_RECV))
        column = np.where(kept, program.duration_ps, made)
        if not host:
            column = np.where((program.type == NodeType.DELAY) | ((program.type == NodeType.COMP) & program.cpu), 0, column)
        programs.append(replace(program, duration_ps=column.astype(np.int64)))
    return replace(graph, programs=tuple(programs))


def part_of(program: Program, names: Sequence[str], moving_kernels: bool = False) -> NDArray[np.int8]:
    """Index into PARTS of each row; -1 for rows that take no time."""
    found = np.full(len(program), -1, np.int8)
    kernel = (program.type == NodeType.COMP) & ~program.cpu
    found[kernel] = 0
    found[(program.type == NodeType.MEM_LOAD) | (program.type == NodeType.MEM_STORE)] = 1
    found[np.isin(program.type, (NodeType.COMM_COLL, NodeType.COMM_SEND, NodeType.COMM_RECV))] = 2
    found[(program.type == NodeType.DELAY) | ((program.type == NodeType.COMP) & program.cpu)] = 3
    if moving_kernels:
        moves = np.array([kernel_class(name) in MOVING for name in names], dtype=bool)
        found[kernel & moves[program.name]] = 1
    return found


class _Worlds:
    """The two graphs, paired rank by rank and node by node."""

    def __init__(self, measured: TaskGraph, predicted: Prediction, moving: bool) -> None:
        self._graphs = (measured, predicted.graph)
        self._simulated = predicted.simulated
        if measured.ranks != predicted.graph.ranks:
            raise TraceError(
                f"the prediction has {predicted.graph.ranks} ranks, the measurement {measured.ranks}",
                where=predicted.graph.source, expected="one prediction for every rank",
            )  # fmt: skip
        keys = measured.rank_program.astype(np.int64) * len(predicted.graph.programs) + predicted.graph.rank_program
        pairs, self._rank_pair = np.unique(keys, return_inverse=True)
        self._copies = np.bincount(self._rank_pair.ravel(), minlength=len(pairs))
        self._pairs = [
            _Pair.of(self._graphs, *divmod(int(key), len(predicted.graph.programs)), moving) for key in pairs
        ]  # fmt: skip

    def differ(self, part: str) -> bool:
        """Whether the worlds differ in a part."""
        if part == "communication" and self._simulated:
            return True
        return any(pair.differ(part) for pair in self._pairs)

    def mixture(self, predicted: _Subset) -> TaskGraph:
        """These parts of the predicted world, the others of the measured one."""
        base = self._graphs["scheduling" in predicted]
        programs = tuple(pair.mixture(predicted) for pair in self._pairs)
        return replace(
            base, programs=programs, rank_program=self._rank_pair.ravel().astype(np.int32), captured=self._graphs[0].captured
        )

    def kernels(self, moved: Mapping[_Subset, tuple[Ints, Ints]], communicates: bool) -> dict[str, Kernels]:
        """How well each part's durations are predicted; transfers as the runs had them."""
        found = {}
        for part in PARTS:
            if part == "communication":
                before, after = moved[frozenset()], moved[frozenset({part}) if communicates else frozenset()]
                found[part] = _compared(before[1], after[1], np.ones(len(before[1]), np.int64))
            elif part != "scheduling" or not any(pair.reordered for pair in self._pairs):
                columns = [pair.durations(part) for pair in self._pairs]
                times = np.repeat(self._copies, [len(before) for before, _ in columns])
                empty = np.zeros(0, np.int64)
                found[part] = _compared(
                    np.concatenate([empty, *(before for before, _ in columns)]),
                    np.concatenate([empty, *(after for _, after in columns)]), times,
                )  # fmt: skip
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """A program of the measured world and its counterpart. rows: of both, of each part, in the same order."""

    programs: tuple[Program, Program]
    rows: Mapping[str, tuple[Ints, Ints]]
    reordered: bool

    @classmethod
    def of(cls, graphs: tuple[TaskGraph, TaskGraph], first: int, second: int, moving: bool) -> _Pair:
        """Raises TraceError where they have other nodes."""
        programs = graphs[0].programs[first], graphs[1].programs[second]
        parts = [part_of(p, graph.names, moving) for p, graph in zip(programs, graphs, strict=True)]
        reordered = len(programs[0]) != len(programs[1]) or any(
            not np.array_equal(getattr(programs[0], name), getattr(programs[1], name)) for name in _ORDER
        )
        rows: dict[str, tuple[Ints, Ints]] = {}
        for number, part in enumerate(PARTS):
            mine = [np.flatnonzero(column == number) for column in parts]
            ids = [p.id[row] for p, row in zip(programs, mine, strict=True)]
            if part == "scheduling" and reordered:
                rows[part] = (mine[0], mine[1])  # comes whole with its world's structure
                continue
            if not np.array_equal(ids[0], ids[1]):
                mine = [row[np.argsort(p.id[row], kind="stable")] for p, row in zip(programs, mine, strict=True)]
                _same(programs[0].id[mine[0]], programs[1].id[mine[1]], part, graphs)
            rows[part] = (mine[0], mine[1])
        return cls(programs, rows, reordered)

    def durations(self, part: str) -> tuple[Ints, Ints]:
        """ps of a part's rows in both worlds."""
        first, second = (p.duration_ps[row] for p, row in zip(self.programs, self.rows[part], strict=True))
        return first, second

    def differ(self, part: str) -> bool:
        if part == "scheduling" and self.reordered:
            return True
        if not np.array_equal(*self.durations(part)):
            return True
        return part == "communication" and not np.array_equal(*self.bytes())

    def bytes(self) -> tuple[Ints, Ints]:
        """Of communications in both worlds."""
        first, second = (p.bytes[row] for p, row in zip(self.programs, self.rows["communication"], strict=True))
        return first, second

    def mixture(self, predicted: _Subset) -> Program:
        """Structure, host work and delays of one world, the other durations each from its own."""
        at = int("scheduling" in predicted)
        base, other = self.programs[at], self.programs[1 - at]
        duration, size = base.duration_ps.copy(), base.bytes.copy()
        for part in PARTS[:3]:
            if (part in predicted) != bool(at):
                here, there = self.rows[part][at], self.rows[part][1 - at]
                duration[here] = other.duration_ps[there]
                if part == "communication":
                    size[here] = other.bytes[there]
        return replace(base, duration_ps=duration, bytes=size)


def _same(first: Ints, second: Ints, part: str, graphs: tuple[TaskGraph, TaskGraph]) -> None:
    if np.array_equal(first, second):
        return
    for here, there, graph in ((first, second, graphs[1]), (second, first, graphs[0])):
        missing = np.setdiff1d(here, there)
        if len(missing):
            raise TraceError(
                f"{len(missing)} {part} nodes of the other trace are not here, node {int(missing[0])} first",
                where=graph.source, expected="the same kernels, copies and communications, by id",
            )  # fmt: skip
    raise TraceError(f"ids of {part} nodes are not unique", where=graphs[0].source)


def _times(result: Result) -> tuple[list[str], Ints]:
    """Names and ps of all times that are split: the run, each step, each rank, each step of each rank."""
    names, values = ["run"], [result.makespan]
    spans = result.spans()
    lengths, present = step_lengths(result)
    for number, name in enumerate(spans.steps):
        if present[:, number].any():
            names.append(f"step {name}")
            values.append(int(lengths[:, number].max()))
    for rank in range(result.ranks):
        names.append(f"rank {rank}")
        values.append(int(result.finish[rank]))
    for rank, number in np.argwhere(present).tolist():
        names.append(f"rank {rank}, step {spans.steps[number]}")
        values.append(int(lengths[rank, number]))
    return names, np.array(values, np.int64)


def _transfers(result: Result) -> tuple[Ints, Ints]:
    """Row and ps of every communication under way."""
    spans = result.spans()
    rows = np.flatnonzero(communicates(spans))
    return rows, (spans.end - under_way(result).since)[rows]


def _shared(values: Mapping[_Subset, Ints], differs: Sequence[str]) -> list[dict[str, int]]:
    """Shares of each part in each time."""
    twelfths = {part: np.zeros_like(values[frozenset()]) for part in PARTS}
    for part in differs:
        others = [one for one in PARTS if one != part]
        for size in range(4):
            for some in combinations(others, size):
                before = frozenset(some) & frozenset(differs)
                twelfths[part] += _WEIGHTS[size] * (values[before | {part}] - values[before])
    return [_rounded([int(twelfths[part][at]) for part in PARTS]) for at in range(len(values[frozenset()]))]


def _rounded(twelfths: Sequence[int]) -> dict[str, int]:
    """Whole numbers whose sum is that of the twelfths, which is whole.

    >>> _rounded([18, 18, 0, 0])
    {'compute': 2, 'memory': 1, 'communication': 0, 'scheduling': 0}
    """
    whole = [value // 12 for value in twelfths]
    left = sum(twelfths) // 12 - sum(whole)
    for at in sorted(range(len(whole)), key=lambda at: (-(twelfths[at] % 12), at))[:left]:
        whole[at] += 1
    return dict(zip(PARTS, whole, strict=True))


def _sum(what: str, splits: Sequence[Split]) -> Split:
    return Split(
        what, sum(one.measured for one in splits), sum(one.predicted for one in splits),
        {part: sum(one.parts[part] for one in splits) for part in PARTS},
    )  # fmt: skip


def _compared(before: Ints, after: Ints, times: Ints) -> Kernels:
    """Durations against each other; ``times``: how often each counts. Rows without a time in either world are left out."""
    known = (before >= 0) & (after >= 0)
    before, after, times = before[known], after[known], times[known]
    error, some = np.abs(after - before), before > 0
    count = int(times[some].sum())
    mape = float((times[some] * (error[some] / before[some])).sum()) / count if count else 0.0
    return Kernels(
        count, mape, int((times * before).sum()), int((times * error).sum()), int((times * (after - before)).sum())
    )  # fmt: skip


def _composition(kernels: Mapping[str, Kernels], total: Split, ranks: int) -> Composition:
    return Composition(
        kernels=sum(one.wrong for one in kernels.values()) // max(ranks, 1),
        parts=sum(abs(one.net) for one in kernels.values()) // max(ranks, 1),
        reached=sum(map(abs, total.parts.values())), step=abs(total.error),
    )  # fmt: skip
