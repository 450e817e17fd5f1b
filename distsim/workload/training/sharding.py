"""Who shares weights, gradients and optimizer of a plan, and the collectives that this costs. Graph and bound both ask here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from distsim.workload.training.costs import Costs, Unit


class Exchange(NamedTuple):
    """A collective over gradients or weights. bytes: per-rank input. then: it follows the one before it (a copy of HSDP)."""

    operation: str
    bytes: int
    group: str
    then: bool = False


class Sharding:
    """What a plan, and its stack where the plan leaves it open, says about replicas.

    shares: ranks that share out one copy of the dense weights; replicas: such copies. fsdp: weights are gathered unit by unit,
    for every micro-batch. overlap_*: behind computation.
    """

    def __init__(self, costs: Costs) -> None:
        plan, stack = costs.plan, costs.stack
        self._plan, self._stack, self._grad_bytes = plan, stack, costs.grad_bytes
        self.shares = plan.shard_group if plan.zero and plan.shard_group else plan.dp * plan.cp
        self.replicas = plan.dp * plan.cp // self.shares
        self.dense = "shard" if self.replicas > 1 else "dp"
        # FSDP that shards fp32 weights gathers them for every micro-batch, also where it does not reshard (SHARD_GRAD_OP)
        self.fsdp = plan.zero == 3 or (plan.zero == 2 and stack.master == "weights")
        self.overlap_reduce = _either(plan.overlap_grad_reduce, stack.overlap_grad_reduce)
        self.overlap_gather = _either(plan.overlap_param_gather, stack.overlap_param_gather)
        self.overlap_p2p = _either(plan.overlap_p2p, stack.overlap_p2p)
        #: ZeRO-1 and 2: the optimizer's weights are gathered as the next step begins
        self.gathers_first = self.overlap_gather and plan.zero in (1, 2) and not self.fsdp
        self.gathers_last = plan.zero in (1, 2) and self.shares > 1 and not self.overlap_gather and not self.fsdp
        #: gradients are reduced bucket by bucket beside backward passes, or all of them at the end
        self.reduces_beside = self.shares * self.replicas > 1 and self.overlap_reduce and not self.fsdp
        self.reduces_last = self.shares * self.replicas > 1 and not self.overlap_reduce and not self.fsdp
        #: FSDP under a pipeline gathers with the first micro-batch and scatters behind the last (torch.distributed.pipelining)
        self.once = self.fsdp and plan.pp > 1 and stack.sharding == "fsdp2"
        #: and gathers layers again for the backward pass
        self.again = plan.zero == 3 and plan.reshard and not self.once

    def buckets(self, units: Sequence[Unit], order: Sequence[int]) -> list[list[int]]:
        """Units of a pass grouped so that each group's gradients fill a bucket."""
        limit = self.bucket
        made: list[list[int]] = []
        held, size = list[int](), 0
        for i in order:
            held.append(i)
            size += units[i].dense + units[i].expert
            if size >= limit:
                made.append(held)
                held, size = [], 0
        if held:
            made.append(held)
        return made

    @property
    def bucket(self) -> float:
        """Gradients of a bucket."""
        return (self._plan.bucket_bytes or self._stack.bucket_bytes) / self._grad_bytes

    def reductions(self, dense: int, expert: int) -> list[Exchange]:
        """Gradients of so many weights become their mean over the ranks that share them, or this rank's part of it."""
        operation = "reduce_scatter" if self._plan.zero else "all_reduce"
        made = []
        for count, group, ranks in ((dense, self.dense, self.shares), (expert, "edp", self._plan.expert_dp)):
            if count and ranks > 1:
                made.append(Exchange(operation, self._moved(count * self._grad_bytes), group))
            if count and group == "shard":  # this rank's part becomes its mean over the copies
                size = self._moved(-(-count * self._grad_bytes // ranks))
                made.append(Exchange("all_reduce", size, "replica", then=ranks > 1))
        return made

    def gatherings(self, dense: int, expert: int) -> list[Exchange]:
        """Weights gathered from the ranks that each updated (or hold) a part."""
        return [
            Exchange("all_gather", self._moved(-(-count * 2 // ranks)), group)
            for count, group, ranks in ((dense, self.dense, self.shares), (expert, "edp", self._plan.expert_dp))
            if count and ranks > 1
        ]

    def share(self, dense: int, expert: int) -> int:
        """Weights that this rank's optimizer updates."""
        if self._plan.zero == 0:
            return dense + expert
        return -(-dense // self.shares) + -(-expert // self._plan.expert_dp)

    def _moved(self, size: int) -> int:
        """Bytes that count as moved where the software reaches less than NCCL's rate."""
        rate = self._stack.shard_rate
        return size if rate == 1.0 else round(size / rate)


def _either(given: bool | None, usual: bool) -> bool:
    return usual if given is None else given
