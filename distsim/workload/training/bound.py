"""A lower bound on the step: what no order of slots, no overlap and no network can beat. Sweeps and searches prune by it.

Of every stage, and of what stages cost each other:

- its computation, behind the forward pass that has to reach it, and before the backward pass that has to go on to the first;
- what cannot hide: sends and gatherings where the plan does not overlap them, the last bucket of gradients, clipping, the
  optimizer, weights gathered behind it;
- its streams of communication: a communicator works off one collective after the other;
- both together: while gradients or weights move, the stage computes slower (``Stack.interference``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

from distsim import registry
from distsim.workload.training.costs import Costs, Unit
from distsim.workload.training.schedules.slot import BW, F, PipelineSchedule
from distsim.workload.training.sharding import Exchange, Sharding

_PS = 1_000_000_000_000
#: ps by communicator
_Streams = dict[str, int]


@dataclass(frozen=True, slots=True)
class _Passes:
    """Communication of a virtual stage, by stream. first: gathered before the first forward pass. gathers, reduces: of all
    its micro-batches, beside computation. exposed: what computation waits for. last: after its last backward pass."""

    first: int
    gathers: _Streams
    reduces: _Streams
    exposed: int
    last: int


def step_bound(costs: Costs, grain: str = "block") -> int:
    """ps. True for every schedule; plans are checked already. See the module's text."""
    return _Bound(costs, grain).ps()


@lru_cache(maxsize=4096)
def _pairs(schedule: str, stage: int, stages: int, micro_batches: int) -> int:
    """Forward passes that run beside a backward pass."""
    phases = [slot.phase for slot in registry.lookup("pipeline", schedule)().order(stage, stages, 1, micro_batches)]
    return sum(one == F and after == BW for one, after in pairwise(phases))


class _Bound:
    def __init__(self, costs: Costs, grain: str) -> None:
        self.costs, self.plan, self.stack = costs, costs.plan, costs.stack
        self._kernels = grain == "kernel"
        self._sharding = Sharding(costs)
        self._schedule: PipelineSchedule = registry.lookup("pipeline", self.plan.pipeline)()
        self._inner = self.plan.world // self.plan.pp
        self._share: int = self.plan.micro_batches // self._schedule.copies  #: micro-batches of a virtual stage
        m = self.plan.micro_batches
        self._path = self._schedule.path(0, self.plan.pp, self.plan.vpp, m)
        self._held: list[list[int]] = [[] for _ in range(self.plan.pp)]  #: virtual stages of each stage
        for copy in range(self._schedule.copies):  # the two directions of DualPipe
            for chunk, stage in enumerate(self._schedule.path(copy * (m - 1), self.plan.pp, self.plan.vpp, m)):
                self._held[stage].append(chunk)
        alike: dict[int, int] = {}  # equal chunks are one object, see Costs.chunks
        for number, one in enumerate(costs.chunks):
            alike.setdefault(id(one), number)
        spans = {key: (self._span(number, "forward"), self._span(number, "backward")) for key, number in alike.items()}
        self._forward = [spans[id(chunk)][0] for chunk in costs.chunks]
        self._backward = [spans[id(chunk)][1] for chunk in costs.chunks]

    def ps(self) -> int:
        """The bound."""
        plan, costs, held = self.plan, self.costs, self._held
        work = self._work()
        lead, trail = self._ways()
        shares = [self._shared(chunks) for chunks in held]
        ends, through = [], 0
        tail_of_first = 0
        for stage in range(plan.pp):
            start = lead[stage]
            end = start + work[stage]
            if stage == 0 or trail[stage]:
                through = max(through, end + trail[stage] + (tail_of_first if trail[stage] else 0))
            if stage in (0, 1, plan.pp - 1):  # NOTE: collectives of all stages would take longer than they tell
                end = max(end, self._communicating(stage, start, work[stage]))
                if stage == 0:
                    tail_of_first = self._tail(0, [self._passes(chunk, 0) for chunk in held[0]])
            ends.append(end + costs.clip_ps(shares[stage]))
        ends[0] = max(ends[0], through + costs.clip_ps(shares[0]))  # the last backward pass of all ends on the first stage
        updates = {share: costs.optimizer_ps(share) for share in set(shares)}
        after = [updates[share] for share in shares]
        if self._sharding.gathers_last:
            for stage in {0, plan.pp - 1}:
                dense, expert = self._weights(held[stage])
                after[stage] += max(self._streams(self._sharding.gatherings(dense, expert), stage).values(), default=0)
        overhead = round(self.stack.step_overhead * _PS)
        if plan.clip and plan.world > 1:  # all ranks meet
            return max(ends) + costs.collectives.time("all_reduce", 4, "world") + max(after) + overhead
        return max(end + rest for end, rest in zip(ends, after, strict=True)) + overhead

    # --- computation -------------------------------------------------------------------------------------------------------

    def _span(self, chunk: int, direction: str) -> int:
        """Of a block; of its kernels alone where they are simulated one by one."""
        if not self._kernels:
            return self.costs.block(chunk, direction).span
        units = self.costs.units[chunk]
        return sum(self.costs.kernel_ps(one) for unit in units for one in getattr(unit, direction) if one.kernel is not None)

    def _work(self) -> list[int]:
        """Of every stage: all its slots, and sends that hold it up."""
        plan, share, copies = self.plan, self._share, self._schedule.copies
        waits = 0 if self._kernels else self.costs.waits_ps * self._by_units()
        found = []
        for stage, chunks in enumerate(self._held):
            total = sum(share * (self._forward[chunk] + self._backward[chunk]) - waits for chunk in chunks)
            if copies > 1:
                saved = self._saved(chunks)
                total -= saved and saved * _pairs(plan.pipeline, stage, plan.pp, plan.micro_batches)
            elif not self._sharding.overlap_p2p and plan.pp > 1:
                total += share * sum(
                    self._message(stage, self._path[other])
                    for chunk in chunks for other in (chunk - 1, chunk + 1) if 0 <= other < plan.chunks
                )  # fmt: skip
            found.append(total)
        return found

    def _by_units(self) -> int:
        """Slots of a virtual stage that the graph runs unit by unit, without the block's wait for the host."""
        sharding = self._sharding
        if sharding.fsdp:
            return 2 * self._share
        backward = self._share if self.plan.zero == 2 else 1
        return int(sharding.gathers_first) + (backward if sharding.reduces_beside else 0)

    def _saved(self, chunks: Sequence[int]) -> int:
        """The most that a pair of DualPipe saves (see graph.py)."""
        if self._kernels:
            return 0
        ahead = [self.costs.block(chunk, "forward") for chunk in chunks]
        back = [self.costs.block(chunk, "backward") for chunk in chunks]
        most = 0
        for f in ahead:
            for b in back:
                pairs = ((f, b), (b, f))
                most = max(most, sum(min(x.exposed.get("ep", 0), sum(y.computing.values())) for x, y in pairs))
        return most

    def _ways(self) -> tuple[list[int], list[int]]:
        """Per stage: ps before the first micro-batch can reach it; ps that the last one takes from it to the first stage."""
        pp, forward, backward = self.plan.pp, self._forward, self._backward
        lead, trail = [0] * pp, [0] * pp
        for stage in range(1, pp):
            hop = self._message(stage - 1, stage)
            lead[stage] = lead[stage - 1] + forward[stage - 1] + hop
            trail[stage] = trail[stage - 1] + backward[stage - 1] + self._message(stage, stage - 1)
        if self._schedule.copies > 1:
            return [min(lead[s], lead[pp - 1 - s]) for s in range(pp)], [0] * pp
        if self._schedule.splits_backward:  # gradients of weights may fill the end
            return lead, [0] * pp
        if not self._sharding.overlap_p2p:  # the last send holds up its stage: it is in its work
            trail = [trail[s] - (self._message(s, s - 1) if s else 0) for s in range(pp)]
        return lead, trail

    def _message(self, src: int, dst: int) -> int:
        if src == dst:
            return 0
        return self.costs.collectives.message(self.costs.message_bytes, src * self._inner, dst * self._inner)

    # --- weights and gradients ---------------------------------------------------------------------------------------------

    def _weights(self, chunks: Iterable[int]) -> tuple[int, int]:
        held = [self.costs.weights[chunk] for chunk in chunks]
        return sum(w.dense for w in held), sum(w.expert for w in held)

    def _shared(self, chunks: Iterable[int]) -> int:
        return self._sharding.share(*self._weights(chunks))

    def _streams(self, exchanges: Iterable[Exchange], stage: int, times: int = 1) -> _Streams:
        """ps that these keep each communicator busy."""
        found: _Streams = {}
        for one in exchanges:
            took = self.costs.collectives.time(one.operation, one.bytes, one.group, stage * self._inner)
            found[one.group] = found.get(one.group, 0) + times * took
        return found

    def _passes(self, chunk: int, stage: int) -> _Passes:
        plan, costs = self.plan, self.costs
        key = (
            costs.chunks[chunk], stage * self._inner, self._inner, self._share, plan.tp, plan.cp, plan.ep, plan.etp, plan.zero,
            plan.pp > 1, plan.shard_group, plan.bucket_bytes, plan.grad_dtype, plan.prefetch, plan.reshard,
            plan.overlap_grad_reduce, plan.overlap_param_gather,
        )  # fmt: skip
        found = costs.remembered.bounds.get(key)
        if found is None:
            found = costs.remembered.bounds[key] = self._passed(chunk, stage)
        return found

    def _passed(self, chunk: int, stage: int) -> _Passes:
        sharding, units = self._sharding, self.costs.units[chunk]
        if sharding.fsdp:
            return self._unit_by_unit(units, stage)
        gathered = last = 0
        gathers: _Streams = {}
        reduces: _Streams = {}
        if sharding.gathers_first:
            gathers = self._bucketed(units, range(len(units)), stage, sharding.gatherings)[0]
            gathered = max(gathers.values(), default=0)
        if sharding.reduces_beside:
            order = range(len(units) - 1, -1, -1)
            once, last = self._bucketed(units, order, stage, sharding.reductions)
            times = self._share if self.plan.zero == 2 else 1
            reduces = {group: times * took for group, took in once.items()}
        return _Passes(gathered, gathers, reduces, 0, last)

    def _bucketed(
        self, units: Sequence[Unit], order: Sequence[int], stage: int, what: Callable[[int, int], list[Exchange]]
    ) -> tuple[_Streams, int]:
        """(streams of one pass over the units, longest stream of its last bucket)."""
        total: _Streams = {}
        last: _Streams = {}
        for which in self._sharding.buckets(units, order):
            last = self._streams(what(sum(units[i].dense for i in which), sum(units[i].expert for i in which)), stage)
            _add(total, last)
        return total, max(last.values(), default=0)

    def _unit_by_unit(self, units: Sequence[Unit], stage: int) -> _Passes:
        """ZeRO-3 and FSDP."""
        sharding, share = self._sharding, self._share
        ahead = self.plan.prefetch if sharding.overlap_gather else 0
        scatters = 1 if sharding.once or self.stack.defer_reduce else share
        gathers: _Streams = {}
        reduces: _Streams = {}
        last = exposed = 0
        kinds: dict[tuple[object, ...], tuple[Unit, int]] = {}
        for unit in units:
            kinds[unit.kind] = (unit, kinds.get(unit.kind, (unit, 0))[1] + 1)
        for unit, count in kinds.values():
            times = count * ((1 if sharding.once else share) + (share if sharding.again and unit.name == "layer" else 0))
            one = self._streams(sharding.gatherings(unit.dense, unit.expert), stage)
            _add(gathers, one, times)
            exposed += times * self.costs.gathered_ps(unit.dense + unit.expert)
            if ahead == 0:  # the first layer's of a backward pass may come beside the head
                beside = share if sharding.again and unit.name == "layer" else 0
                exposed += (times - beside) * max(one.values(), default=0)
            one = self._streams(sharding.reductions(unit.dense, unit.expert), stage)
            _add(reduces, one, count * scatters)
            exposed += count * scatters * self.costs.scattered_ps(unit.dense + unit.expert)
            if not sharding.overlap_reduce:
                exposed += count * scatters * max(one.values(), default=0)
            if unit is units[0] and sharding.overlap_reduce:
                last = max(one.values(), default=0)
        return _Passes(0, gathers, reduces, exposed, last)

    def _tail(self, stage: int, passes: Sequence[_Passes]) -> int:
        """After the last slot of a stage: gradients, the tied embedding, the copies of DualPipe."""
        costs, plan, chunks = self.costs, self.plan, self._held[stage]
        tail = min(one.last for one in passes)
        if self._sharding.reduces_last:
            dense, expert = self._weights(chunks)
            limit = int(self._sharding.bucket)
            streams: _Streams = {}
            for whole, name in ((dense, 0), (expert, 1)):
                full, rest = divmod(whole, limit)
                for count, times in ((limit, full), (rest, 1)):
                    _add(streams, self._streams(self._sharding.reductions(*((0, count) if name else (count, 0))), stage), times)
            tail = max(streams.values(), default=0)
        if plan.pp > 1 and costs.model.tied and (0 in chunks or plan.chunks - 1 in chunks):
            size = -(-costs.model.vocab // plan.tp) * costs.model.hidden * costs.grad_bytes
            tail += costs.collectives.time("all_reduce", size, "embedding", stage * self._inner)
        if self._schedule.copies > 1:
            size = self._shared(chunks) * costs.grad_bytes
            tail += costs.collectives.time("all_reduce", size, "mirror", stage * self._inner)
        return tail

    def _communicating(self, stage: int, lead: int, work: int) -> int:
        """When a stage is done at the earliest, with its collectives."""
        chunks = self._held[stage]
        passes = [self._passes(chunk, stage) for chunk in chunks]
        tail = self._tail(stage, passes)
        work += sum(one.exposed for one in passes)
        gathers: _Streams = {}
        reduces: _Streams = {}
        for one in passes:
            _add(gathers, one.gathers)
            _add(reduces, one.reduces)
        if self._schedule.copies == 1:  # the first block waits for its weights
            lead = max(lead, passes[0].first - self._forward[chunks[0]])
        beside: _Streams = {}
        sharding = self._sharding
        if not sharding.fsdp or (sharding.overlap_reduce and sharding.overlap_gather and self.plan.prefetch):
            beside = dict(reduces)  # else computation stands still meanwhile, which ``exposed`` has
            if self.plan.pp == 1:
                _add(beside, gathers)
        # computation goes on at 1/f beside communication: what of that is not at the very end holds it up. Under a pipeline
        # all of it may fall into bubbles
        slower = 1 - 1 / Fraction(str(self.stack.interference)) if self.plan.pp == 1 else Fraction(0)
        busy = max(0, max(beside.values(), default=0) - tail)
        found = lead + work + int(busy * slower) + tail
        _add(gathers, reduces)
        found = max(found, *gathers.values(), 0)
        if self._schedule.copies == 1 and reduces:
            back = sum(self._forward) + sum(self._backward[max(chunks) + 1 :]) if not self._schedule.splits_backward else 0
            found = max(found, back + max(reduces.values()))
        return found


def _add(total: _Streams, some: _Streams, times: int = 1) -> None:
    for group, took in some.items():
        total[group] = total.get(group, 0) + times * took
