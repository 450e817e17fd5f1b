"""A plan becomes an execution graph: one program per pipeline stage, run by all ranks of the stage.

Streams are those of the frameworks: ``compute``; ``dp`` and ``edp`` for gradients and weights of dense and expert layers
(``shard`` and ``replica`` where only some ranks share a copy); sends one stream per peer. A communicator works off its
collectives in the order in which they are issued, as NCCL does: where gradients are to be scattered first, the gathering of
weights behind them waits. A step is in its steady state: weights that the optimizer of the step before updated are gathered
at its beginning where that overlaps, at its end where it does not.

At ``grain="block"`` a block (or a unit of it, where gradients or weights come and go) is one timed node, its inner
communications included; at ``grain="kernel"`` every operation is a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distsim import registry
from distsim.errors import ConfigError
from distsim.trace.graph import Program, TaskGraph
from distsim.workload.training.blocks import merged
from distsim.workload.training.costs import Costs, Unit
from distsim.workload.training.nodes import COMP, OFFSET, RECEIVE, SEND, Groups, Names, Nodes
from distsim.workload.training.operations import COMPUTE, Operation
from distsim.workload.training.schedules.slot import BW, F, Slot, W
from distsim.workload.training.sharding import Exchange, Sharding

GRAINS = ("block", "kernel")
HOST = "waiting for the CPU"  #: node in which the device waits for the host to issue kernels
_MOST_TASKS = 20_000_000  #: of a graph: some GB


def build(costs: Costs, grain: str = "block") -> TaskGraph:
    """The execution graph of one step. Raises ConfigError for a plan that does not fit the model."""
    plan = costs.plan
    plan.check(costs.model)
    if grain not in GRAINS:
        raise ConfigError(f"no grain {grain!r}", expected=" or ".join(GRAINS))
    _check_size(costs, grain)
    names, streams, groups = Names(), Names(), Groups(costs)
    programs = tuple(_Stage(costs, stage, grain, names, streams, groups).program() for stage in range(plan.pp))
    inner = plan.world // plan.pp
    return TaskGraph(
        programs=programs, rank_program=np.repeat(np.arange(plan.pp, dtype=np.int32), inner), groups=tuple(groups.made),
        names=tuple(names.all), streams=tuple(streams.all), source=f"{costs.model.name} {describe(plan)}",
    )  # fmt: skip


def _check_size(costs: Costs, grain: str) -> None:
    """Raise ConfigError where the graph would have more tasks than a machine holds."""
    plan = costs.plan
    units = [unit for chunk in costs.units for unit in chunk]
    if grain == "kernel":
        each = sum(len(unit.forward) + len(unit.backward) for unit in units)
    else:
        each = 2 * (len(units) if plan.zero >= 2 else plan.chunks)
    if each * plan.micro_batches > _MOST_TASKS:
        raise ConfigError(
            f"{plan.micro_batches:,} micro-batches make {each * plan.micro_batches:,} tasks", where="plan",
            expected=f"at most {_MOST_TASKS:,}", fix="Make the global batch smaller: tokens/s hardly change beyond 10 x pp.",
        )  # fmt: skip


def describe(plan: Any) -> str:
    """``tp8 pp16 dp128``: what differs from one."""
    said = [f"{name}{getattr(plan, name)}" for name in ("tp", "cp", "pp", "dp", "ep", "vpp") if getattr(plan, name) > 1]
    return " ".join(said) or "one GPU"


class _Stage(Nodes):
    """Writes the program of one stage."""

    def __init__(self, costs: Costs, stage: int, grain: str, names: Names, streams: Names, groups: Groups) -> None:
        super().__init__(costs, stage, names, streams, groups)
        self.costs, self.plan, self.stack = costs, costs.plan, costs.stack
        self.grain = grain
        self._schedule = registry.lookup("pipeline", self.plan.pipeline)()
        self._gathered: dict[tuple[int, int], list[int]] = {}  #: (chunk, unit) -> gatherings of its weights
        self._done: list[int] = []  #: sharded weights: ends of the units so far
        self._reduced: list[int] = []  #: reductions of gradients that the optimizer waits for
        self._sharding = Sharding(costs)
        self._wholes: dict[tuple[str, int, int], tuple[int, ...]] = {}  #: (phase, chunk, saved) -> columns of its block
        self._paths: dict[int, tuple[int, ...]] = {}  #: by micro-batch
        self._alike: dict[tuple[int, ...], tuple[int, ...]] = {}  #: paths, each once
        self._tags = self._tag(1, 0, False)
        #: (phase, chunk, path) -> (offset and tag of what comes, columns of the block, offset and tag of what goes)
        self._plains: dict[tuple[str, int, int], tuple[int, int, tuple[int, ...], int, int]] = {}
        sharding = self._sharding
        self._plain = grain == "block" and not (
            self._schedule.splits_backward or sharding.fsdp or (sharding.reduces_beside and self.plan.zero == 2)
        )

    def program(self) -> Program:
        """Slots in order, then the end of the step."""
        plan = self.plan
        order = self._schedule.order(self.stage, plan.pp, plan.vpp, plan.micro_batches)
        backwards: dict[int, int] = {}
        for slot in order:
            if slot.phase != F:
                backwards[slot.chunk] = backwards.get(slot.chunk, 0) + 1
        if self._sharding.gathers_first:
            self._gather_weights(sorted({slot.chunk for slot in order}))
        seen: set[int] = set()
        pending: Slot | None = None  #: forward slot whose message leaves when the backward slot of its pair is done
        for slot, following in zip(order, [*order[1:], None], strict=True):
            first = slot.phase == F and slot.chunk not in seen
            if slot.phase == F:
                seen.add(slot.chunk)
            else:
                backwards[slot.chunk] -= 1
            if self._plain and not first and (slot.phase == F or backwards[slot.chunk]):
                self._plainly(slot)
                continue
            if pending is None:
                self._arrive(slot)
            paired = slot.phase == F and following is not None and following.phase == BW
            if paired:
                assert following is not None
                self._arrive(following)
            saved = 0 if pending is None else self._beside(pending, slot)
            self._work(slot, first=first, last=slot.phase != F and backwards[slot.chunk] == 0, saved=saved)
            if paired:
                pending = slot
                continue
            if pending is not None:
                self._leave(pending)
                pending = None
            self._leave(slot)
        self._finish(sorted({slot.chunk for slot in order}))
        return self._made()

    # --- slots -------------------------------------------------------------------------------------------------------------

    def _path(self, micro_batch: int) -> tuple[int, ...]:
        found = self._paths.get(micro_batch)
        if found is None:
            plan = self.plan
            found = self._schedule.path(micro_batch, plan.pp, plan.vpp, plan.micro_batches)
            found = self._paths[micro_batch] = self._alike.setdefault(found, found)
        return found

    def _plainly(self, slot: Slot) -> None:
        """As _arrive, _work and _leave where nothing happens within the slot: most slots of a long step."""
        phase, micro_batch, chunk = slot
        path = self._path(micro_batch)
        known = self._plains.get((phase, chunk, id(path)))
        if known is None:
            forward = phase == F
            before, after = (chunk - 1, chunk + 1) if forward else (chunk + 1, chunk - 1)
            comes, goes = (0 <= other < len(path) and path[other] != self.stage for other in (before, after))
            known = self._plains[phase, chunk, id(path)] = (
                self._offset(path[before]) if comes else 0, self._tag(0, chunk, forward), self._block(slot),
                self._offset(path[after]) if goes else 0, self._tag(0, after, forward),
            )  # fmt: skip
        comes_from, comes_as, row, goes_to, goes_as = known
        tag, size, rows, held, dep = micro_batch * self._tags, self._message_bytes, self._rows, self._held, self._dep
        if comes_from:
            held.append(len(rows))
            rows.append((RECEIVE, self._names["receive"], -1, -1, size, -1, comes_from, tag + comes_as, -1, OFFSET))
            self._dep_ptr.append(len(dep))
        last = self._last = self._append(row, self._waits())
        if goes_to:
            if not self._sharding.overlap_p2p:
                held.append(len(rows))
            rows.append((SEND, self._names["send"], -1, -1, size, -1, goes_to, tag + goes_as, -1, OFFSET))
            dep.append(last)
            self._dep_ptr.append(len(dep))

    def _arrive(self, slot: Slot) -> None:
        """What the slot needs from another stage."""
        phase, micro_batch, chunk = slot
        path, before = self._path(micro_batch), chunk + (-1 if phase == F else 1)
        if phase != W and 0 <= before < len(path) and path[before] != self.stage:
            self._held.append(self._receive(path[before], self._tag(micro_batch, chunk, phase == F)))

    def _work(self, slot: Slot, *, first: bool, last: bool, saved: int = 0) -> None:
        """The slot itself. ``saved``: ps that it is shorter beside the other slot of its pair."""
        plan, forward = self.plan, slot.phase == F
        units = self.costs.units[slot.chunk]
        if not units:  # a stage without layers hands on what it gets
            self._whole(slot)
        elif self._sharding.fsdp:
            self._sharded(slot, units, first=first, last=last)
        elif not forward and self._sharding.reduces_beside and (last or plan.zero == 2):
            self._reducing(slot, units)
        elif forward and first and self._gathered:
            self._gathering(slot, units)
        else:
            self._whole(slot, saved)

    def _leave(self, slot: Slot) -> None:
        """What another stage needs from the slot."""
        phase, micro_batch, chunk = slot
        path, after = self._path(micro_batch), chunk + (1 if phase == F else -1)
        if phase != W and 0 <= after < len(path) and path[after] != self.stage:
            sent = self._send(path[after], self._tag(micro_batch, after, phase == F))
            if not self._sharding.overlap_p2p:
                self._held.append(sent)

    def _beside(self, forward: Slot, backward: Slot) -> int:
        """ps that a pair of DualPipe saves: each pass's all-to-alls of experts run behind the other's computation."""
        both = (self.costs.block(forward.chunk, "forward"), self.costs.block(backward.chunk, "backward"))
        return sum(min(one.exposed.get("ep", 0), sum(other.computing.values())) for one, other in (both, both[::-1]))

    def _tag(self, micro_batch: int, chunk: int, forward: bool) -> int:
        return (micro_batch * self.plan.chunks * 2 + chunk) * 2 + forward

    def _whole(self, slot: Slot, saved: int = 0) -> None:
        """A block that nobody looks into."""
        units = self.costs.units[slot.chunk]
        if self.grain == "kernel" and units:
            for unit in units if slot.phase == F else units[::-1]:
                self._operations(unit.forward if slot.phase == F else unit.backward, slot.phase)
            self._wait_for_host(slot, self.costs.block(slot.chunk, "forward" if slot.phase == F else "backward").launch)
            return
        self._last = self._append(self._block(slot, saved), self._waits())

    def _block(self, slot: Slot, saved: int = 0) -> tuple[int, ...]:
        """Columns of a slot's block."""
        phase, _, chunk = slot
        row = self._wholes.get((phase, chunk, saved))
        if row is None:
            direction = "forward" if phase == F else "backward"
            block = self.costs.block(chunk, direction)
            name = f"{direction} {chunk}" + (" weights" if phase == W else "")
            took = self._part(slot, block.span, block.weight) - saved
            row = self._wholes[phase, chunk, saved] = self._row(COMP, name, duration_ps=took, stream=self._streams[COMPUTE])
        return row

    def _part(self, slot: Slot, span: int, weight: int) -> int:
        """ps of a slot: split backward passes leave the gradients of weights to their W slots."""
        if not self._split(slot.phase):
            return span
        return weight if slot.phase == W else span - weight

    def _split(self, phase: str) -> bool:
        """Whether the gradients of weights are apart from the rest of this backward pass."""
        return self._schedule.splits_backward and phase not in (F, BW)

    def _unit(self, slot: Slot, units: Sequence[Unit], which: Sequence[int], *, begins: bool) -> None:
        """Some units of a block, in the order of the pass. begins: they are its first."""
        direction = "forward" if slot.phase == F else "backward"
        block = merged([(self.costs.time(units[i], direction), 1) for i in which])
        waits = self.costs.waits_ps if begins else 0
        if self.grain == "kernel":
            for i in which:
                self._operations(getattr(units[i], direction), slot.phase)
            self._wait_for_host(slot, block.launch + waits)
            return
        name = f"{direction} {slot.chunk}" + (" weights" if slot.phase == W else "")
        self._compute(name, self._part(slot, block.span + waits, block.weight))

    def _wait_for_host(self, slot: Slot, launch: int) -> None:
        """Where kernels are nodes: the time by which the host is too slow for all of them."""
        if launch and not (slot.phase == W and self._split(slot.phase)):
            self._compute(HOST, launch)

    def _operations(self, operations: Sequence[Operation], phase: str) -> None:
        """One node per operation; the next unit waits for all of them."""
        split = self._split(phase)
        made: list[int] = []
        trailing: list[int] = []
        for operation in operations:
            if split and (operation.part == "wgrad") != (phase == W):
                made.append(self._last)
                continue
            deps = [made[i] for i in operation.after if made[i] >= 0]
            if operation.kernel is not None:
                self._held.extend(deps)
                made.append(self._compute(operation.name, self.costs.kernel_ps(operation)))
                continue
            deps = [*deps, *([self._last] if self._last >= 0 and not deps else []), *self._held]
            if operation.operation == "send":
                made.append(self._pass_on(operation, deps))
                trailing.append(made[-1])
                continue
            made.append(self._collective(operation.name, operation.operation, operation.bytes, operation.group, deps))
            trailing.append(made[-1])
        self._held.extend(trailing)

    # --- gradients and weights ---------------------------------------------------------------------------------------------

    def _reducing(self, slot: Slot, units: Sequence[Unit]) -> None:
        """A backward pass whose gradients are reduced bucket by bucket beside it."""
        for which in self._sharding.buckets(units, range(len(units) - 1, -1, -1)):
            self._unit(slot, units, which, begins=which[0] == len(units) - 1)
            if slot.phase == W or not self._split(slot.phase):
                self._reduce(sum(units[i].dense for i in which), sum(units[i].expert for i in which), [self._last])

    def _reduce(self, dense: int, expert: int, after: list[int]) -> None:
        """Gradients of so many weights."""
        for one in self._sharding.reductions(dense, expert):
            waits = [self._reduced[-1]] if one.then else after
            self._reduced.append(self._exchange(f"reduce gradients {one.group}", one, waits))

    def _gather(self, dense: int, expert: int, after: list[int]) -> list[int]:
        """So many weights."""
        return [self._exchange(f"gather weights {one.group}", one, after) for one in self._sharding.gatherings(dense, expert)]

    def _exchange(self, name: str, one: Exchange, after: Sequence[int]) -> int:
        return self._collective(name, one.operation, one.bytes, one.group, after)

    def _gather_weights(self, chunks: Sequence[int]) -> None:
        """At the start of a step: weights in the order in which the forward pass needs them."""
        for chunk in chunks:
            units = self.costs.units[chunk]
            for which in self._sharding.buckets(units, range(len(units))):
                made = self._gather(sum(units[i].dense for i in which), sum(units[i].expert for i in which), [])
                self._gathered[chunk, which[0]] = made

    def _gathering(self, slot: Slot, units: Sequence[Unit]) -> None:
        """The first forward pass of a step: bucket by bucket as the weights come."""
        for which in self._sharding.buckets(units, range(len(units))):
            self._held.extend(self._gathered.pop((slot.chunk, which[0]), []))
            self._unit(slot, units, which, begins=which[0] == 0)

    def _sharded(self, slot: Slot, units: Sequence[Unit], *, first: bool, last: bool) -> None:
        """ZeRO-3 and FSDP: every unit's weights are gathered before it, and dropped; gradients are scattered after it.

        As many units are gathered ahead as the plan says. Embedding and head are gathered once for both passes, as FSDP's root.
        Pipelines with FSDP2 gather with the first micro-batch and scatter behind the last (torch.distributed.pipelining).
        """
        forward = slot.phase == F
        order = range(len(units)) if forward else range(len(units) - 1, -1, -1)
        once, again = self._sharding.once, self._sharding.again
        due = [i for i in order if (forward and (first or not once)) or (again and not forward and units[i].name == "layer")]
        late = not forward and self.stack.late_prefetch
        gathered: dict[int, list[int]] = {}
        for i in order:
            ahead = self.plan.prefetch if self._sharding.overlap_gather else 0
            while due and (due[0] == i or (len(gathered) - (i in gathered) < ahead and not late)):
                # begins when the unit before those gathered ahead is done: no more weights than that are held
                limit = ahead if due[0] == i else ahead - 1 - len(gathered) + (i in gathered)
                after = [self._done[-1 - limit]] if len(self._done) > limit else []
                gathered[due[0]] = self._gather(units[due[0]].dense, units[due[0]].expert, after)
                del due[0]
            copies = 0
            if i in gathered:
                self._held.extend(gathered.pop(i))
                copies = self.costs.gathered_ps(units[i].dense + units[i].expert)
            reduces = slot.phase == W or not (forward or self._split(slot.phase))
            reduces = reduces and (last or not (once or self.stack.defer_reduce))
            if reduces:
                copies += self.costs.scattered_ps(units[i].dense + units[i].expert)
            self._unit(slot, units, [i], begins=i == order[0])
            if copies:
                self._compute("copies of weights and gradients", copies)
            self._done.append(self._last)
            if reduces:
                scattered = len(self._reduced)
                self._reduce(units[i].dense, units[i].expert, [self._last])
                if not self._sharding.overlap_reduce:
                    self._held.extend(self._reduced[scattered:])

    # --- the end of the step -----------------------------------------------------------------------------------------------

    def _finish(self, chunks: Sequence[int]) -> None:
        """Gradients that are still to be reduced, the tied embedding, clipping, the optimizer, weights gathered."""
        plan, costs = self.plan, self.costs
        held = [costs.weights[chunk] for chunk in chunks]
        dense, expert = sum(w.dense for w in held), sum(w.expert for w in held)
        if self._sharding.reduces_last:
            limit = int(self._sharding.bucket)
            for start in range(0, max(dense, 1), limit):
                self._reduce(min(limit, dense - start), 0, [self._last])
            for start in range(0, expert, limit):
                self._reduce(0, min(limit, expert - start), [self._last])
        self._held.extend(self._reduced)
        last = plan.chunks - 1
        if plan.pp > 1 and costs.model.tied and (0 in chunks or last in chunks):
            size = -(-costs.model.vocab // plan.tp) * costs.model.hidden * costs.grad_bytes
            after = [*self._held, self._last]
            self._held.append(self._collective("reduce tied embedding", "all_reduce", size, "embedding", after))
        share = self._sharding.share(dense, expert)
        if self._schedule.copies > 1:
            after = [*self._held, self._last]
            size = share * costs.grad_bytes
            self._held.append(self._collective("reduce copies", "all_reduce", size, "mirror", after))
        if plan.clip:
            self._compute("norm of gradients", costs.clip_ps(share))
            if plan.world > 1:
                self._held.append(self._collective("reduce norm", "all_reduce", 4, "world", [self._last]))
        self._compute("optimizer", costs.optimizer_ps(share))
        if self._sharding.gathers_last:
            self._held.extend(self._gather(dense, expert, [self._last]))
        overhead = round(self.stack.step_overhead * 1e12)
        if overhead or self._held:
            self._compute("between steps", overhead)
