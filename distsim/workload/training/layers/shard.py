"""The sizes that one rank meets: a model under a plan, as a stack runs it."""

from __future__ import annotations

from dataclasses import dataclass

from distsim.cost.kernel import WIDTH
from distsim.models.spec import Model
from distsim.workload.training.plan import Plan
from distsim.workload.training.stack import Stack


@dataclass(frozen=True, slots=True, eq=False)
class Shard:
    """What decides the operations of a layer on a rank.

    tokens: of one micro-batch that a tensor-parallel group holds (context parallelism divides them). ep_domains: NVLink domains
    that an expert-parallel group is spread over.
    """

    model: Model
    plan: Plan
    stack: Stack
    ep_domains: int = 1

    @property
    def tokens(self) -> int:
        return self.plan.micro_batch * self.plan.seq // self.plan.cp

    @property
    def dtype(self) -> str:
        """Of the big GEMMs."""
        return self.plan.dtypes[0]

    @property
    def plain(self) -> str:
        """Of activations and messages."""
        return self.plan.dtypes[1]

    @property
    def width(self) -> int:
        """Bytes of an activation."""
        return int(WIDTH[self.plain])

    @property
    def rows(self) -> int:
        """Tokens whose norms and residuals this rank computes: sequence parallelism splits them."""
        return self.tokens // self.plan.tp if self.sequence_parallel else self.tokens

    @property
    def sequence_parallel(self) -> bool:
        return self.plan.sequence_parallel and self.plan.tp > 1

    @property
    def tp_overlap(self) -> bool:
        given = self.plan.tp_overlap
        wanted = self.stack.tp_overlap if given is None else given
        return wanted and self.sequence_parallel

    @property
    def ep_overlap(self) -> bool:
        given = self.plan.ep_overlap
        if given is None:
            given = self.ep_domains > 1 if self.stack.ep_overlap == "across" else self.stack.ep_overlap
        return given

    @property
    def cuda_graphs(self) -> bool:
        given = self.plan.cuda_graphs
        return self.stack.cuda_graphs if given is None else given

    @property
    def activations(self) -> int:
        """Bytes of the hidden states of one micro-batch, whole."""
        return self.tokens * self.model.hidden * self.width
