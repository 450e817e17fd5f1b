"""Attention and feed-forward layers on different GPUs (attention/FFN disaggregation).

A batch is cut into micro-batches that take turns: while the attention GPUs compute one, the feed-forward GPUs compute another,
and their activations travel. In each layer a micro-batch goes from attention to feed-forward and back for the next layer. Each
side does one thing at a time, in the order (layer, micro-batch); an iteration ends when the last micro-batch has come back from
the last layer and its tokens have been sampled. With too few micro-batches both sides wait for the links.

Source: MegaScale-Infer (Zhu et al., 2025), ping-pong pipeline parallelism; Step-3 (2025), attention-FFN disaggregation.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from distsim.errors import ConfigError, OutOfMemoryError
from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.deployment import Deployment
from distsim.serving.forward.layers.writer import ACTIVATION, Rank
from distsim.serving.forward.links import Links
from distsim.serving.forward.operations import after, attention_half, before, kind_of, mlp_half
from distsim.serving.forward.work import NOTHING, Graphs, Work, work_of
from distsim.serving.iteration import Shape
from distsim.serving.kv.sizes import RESERVED, activation_bytes, token_bytes
from distsim.serving.times.model import ModelTimes
from distsim.topology.graph import Topology
from distsim.units import PS_PER_S


@register("iteration", "afd")
class AfdTimes:
    """Iteration times where the deployment's ``tp * dp`` ranks hold attention, and further ranks the rest of each layer."""

    #: made from a deployment and a topology, then its parameters
    of_deployment = True

    class Params(Parameters):
        """The feed-forward side."""

        ffn_gpu: str = Field("", description="GPU of the feed-forward side; default: the deployment's")
        ffn_ranks: int = Field(1, ge=1, description="GPUs of the feed-forward side: tensor parallel, MoE: expert parallel")
        micro_batches: int = Field(2, ge=1, description="parts of a batch that take turns")

    def __init__(
        self, deployment: Deployment, topology: Topology | None = None, *, ffn_gpu: str = "", ffn_ranks: int = 1,
        micro_batches: int = 2,
    ) -> None:  # fmt: skip
        """Raises ConfigError where the feed-forward ranks do not divide what they share, or there are pipeline stages."""
        if deployment.pp > 1:
            raise ConfigError(f"pp={deployment.pp} with attention and feed-forward apart", expected="pp=1")
        self.stages = 1
        self.ranks = deployment.ranks + ffn_ranks
        self.micro_batches = micro_batches
        self.deployment = deployment
        moe = deployment.spec.moe
        options = {"gpu": ffn_gpu or deployment.gpu, "dp": 1, "ep": 1, "moe_tp": 0, "tp": ffn_ranks}
        if moe is not None:
            options |= {"dp": ffn_ranks, "ep": ffn_ranks, "tp": 1}
        self._far = ModelTimes(Deployment.of(**{**deployment.model_dump(), **options}), None)
        self._near = ModelTimes(deployment, topology)
        # NOTE: the ranks of the other side come after those of this one, as those of a second pipeline stage would
        self._links = Links(deployment.model_copy(update={"pp": 2}), topology)
        self._rank = Rank.of(deployment)
        self._times: dict[tuple[Shape | None, ...], int] = {}
        self._steady: dict[tuple[tuple[int, int] | None, ...], int] = {}
        self._layers: dict[tuple[tuple[Work, ...], bool, int], tuple[int, int, int]] = {}

    def times(self, shape: Shape) -> tuple[int, ...]:
        """See IterationTimes.times; data parallel attention ranks all have this shape."""
        return self.group_times((shape,) * self.deployment.dp)

    def steady(self, sequences: int, kv: int, longest: int) -> tuple[int, int]:
        """See IterationTimes.steady."""
        return self.group_steady(((sequences, kv, longest),) * self.deployment.dp)

    def group_times(self, shapes: Sequence[Shape | None]) -> tuple[int, ...]:
        """See ModelTimes.group_times."""
        key = tuple(shapes)
        found = self._times.get(key)
        if found is None:
            found = self._times[key] = self._iteration(key)
        return (found,)

    def group_steady(self, lanes: Sequence[tuple[int, int, int] | None]) -> tuple[int, int]:
        """See ModelTimes.group_steady."""
        bucket = self._near.bucket
        means = [None if lane is None else -(-lane[1] // lane[0]) for lane in lanes]
        places = tuple(None if lane is None else (lane[0], -(-lane[1] // lane[0]) // bucket) for lane in lanes)
        ps = self._steady.get(places)
        if ps is None:
            shapes = [None if lane is None else Shape((), lane[0], lane[1], lane[2], lane[0]) for lane in lanes]
            (ps,) = self.group_times(shapes)
            self._steady[places] = ps
        return ps, min((mean // bucket + 1) * bucket - mean for mean in means if mean is not None)

    # --- one iteration --------------------------------------------------------------------------------------------------------

    def _iteration(self, shapes: Sequence[Shape | None]) -> int:
        cut = [[] if shape is None else [self._work(part) for part in _cut(shape, self.micro_batches)] for shape in shapes]
        parts = [tuple(lane[at] if at < len(lane) else NOTHING for lane in cut) for at in range(max(map(len, cut)))]
        near, far, links = 0, 0, [0, 0]  # ps at which each side, and each direction of the links, is free
        ready = [0] * len(parts)
        for layer in range(self.deployment.spec.layers):
            for at, works in enumerate(parts):
                attention, travel, ffn = self._layer(works, layer)
                near = max(near, ready[at]) + attention
                links[0] = max(links[0], near) + travel
                far = max(far, links[0]) + ffn
                ready[at] = links[1] = max(links[1], far) + travel
        whole = max((self._work(shape) for shape in shapes if shape is not None), key=lambda work: work.rows)
        ends = [*before(self._rank, whole.rows, 0), *after(self._rank, whole, 0)]
        software = self.deployment.software
        host = software.host + software.host_sequence * (whole.sequences + len(whole.prompts))
        return max(ready) + sum(self._near.operation(one) for one in ends) + round(host * PS_PER_S)

    def _layer(self, works: tuple[Work, ...], layer: int) -> tuple[int, int, int]:
        """ps of attention (the slowest rank's), of sending activations one way, of the rest of the layer."""
        sparse, window = kind_of(self._rank, layer)
        key = (works, sparse, window)
        found = self._layers.get(key)
        if found is None:
            attention = max(
                sum(self._near.operation(one) for one in attention_half(self._rank, work, window))
                for work in dict.fromkeys(works) if work.rows
            )  # fmt: skip
            everyone = sum(work.rows for work in works)
            each = -(-everyone // self._far.deployment.dp)
            # tokens come from the attention ranks straight to the ranks of their experts: no exchange among those
            half = mlp_half(Rank.of(self._far.deployment), each, everyone, sparse)
            ffn = sum(self._far.operation(one) for one in half if one.kernel is not None or not sparse)
            travel = self._links.time("send", self._sent(max(work.rows for work in works), sparse), "pp")
            found = self._layers[key] = (attention, travel, ffn)
        return found

    def _sent(self, rows: int, sparse: bool) -> int:
        """Bytes that one attention rank sends for a micro-batch: each token once to every rank that holds some of its experts,
        or its part of them to a tensor parallel side."""
        model = self.deployment.spec
        copies = 1.0
        if sparse and model.moe is not None:
            ranks = self._far.deployment.ep
            copies = ranks * (1.0 - (1.0 - 1.0 / ranks) ** model.moe.topk)
        return max(1, round(rows / self.deployment.tp * model.hidden * ACTIVATION * copies))

    def _work(self, shape: Shape) -> Work:
        return work_of(shape, self._near.bucket, Graphs(0, 0))

    # --- memory ---------------------------------------------------------------------------------------------------------------

    def kv_blocks(self) -> int:
        """KV blocks of one attention rank: only attention, embedding and head take memory beside the cache.

        Raises: OutOfMemoryError where they leave no room, or the other side's weights do not fit.
        """
        one, model = self.deployment, self.deployment.spec
        software = one.software
        share = one.utilisation or software.utilisation
        weights = model.layers * model.attention_parameters() / one.tp * one.linear.bytes
        weights += (1 if model.tied else 2) * 2.0 * model.vocab * model.hidden / one.tp
        used = weights + activation_bytes(one) + RESERVED
        left = share * (one.device.memory - used) if software.of_free else share * one.device.memory - used
        block = one.block_tokens * token_bytes(one)
        far = self._far.deployment
        rest = sum(
            (model.layer_parameters(layer) - model.attention_parameters()) for layer in range(model.layers)
        ) * far.expert_format.bytes / (far.tp * far.dp)  # fmt: skip
        over_far = rest - far.device.memory
        for side, over, gpu in (("attention", block - left, one.device), ("feed-forward", over_far, far.device)):
            if over > 0:
                raise OutOfMemoryError(
                    f"the {side} side does not fit in {gpu.memory / 2**30:.0f} GiB", where=f"{model.name} on {gpu.name}",
                    stage=0, term="weights", over=int(over), fix="Take more ranks, or a narrower weight format.",
                )  # fmt: skip
        return int(left // block)


def _cut(shape: Shape, count: int) -> list[Shape]:
    """A shape in at most ``count`` parts: sequences evenly, prompts to the part with the fewest tokens."""
    n = shape.sequences
    count = max(1, min(count, n + len(shape.prefills)))
    sizes = [n // count + (part < n % count) for part in range(count)]
    prompts: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    loads = list(sizes)
    for new, cached in sorted(shape.prefills, reverse=True):
        least = loads.index(min(loads))
        prompts[least].append((new, cached))
        loads[least] += new
    parts = []
    for size, mine in zip(sizes, prompts, strict=True):
        kv = -(-shape.kv * size // n) if n else 0
        parts.append(Shape(tuple(mine), size, kv, shape.longest, size * shape.width + len(mine), shape.width))
    return [part for part in parts if part.tokens]
