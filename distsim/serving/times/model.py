"""Durations of iterations from a model, a GPU and a parallelism: the sum of its kernels and collectives.

Kernels are those of distsim.serving.forward.operations, asked of the chain of compute providers. Three things differ from how
kernels were measured one by one, and are put right here:

- Weights come from main memory. A benchmark calls one GEMM again and again, and small weights stay in L2; in a model every
  layer has its own. A GEMM takes no less than the traffic of its operands at the fitted share of the memory bandwidth.
- fp8 GEMMs were measured with 12 to 14 us of host time per call (docs/compute.md), which a graph, or a host that runs ahead,
  hides: the launches of a bf16 GEMM on that GPU and of the kernel that quantises x stand for it.
- Outside a graph the host launches every kernel: an iteration takes no less than that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from distsim.cost.chain import Chain, default_chain
from distsim.cost.kernel import Kernel
from distsim.cost.kernels.stream import LAUNCH
from distsim.errors import ConfigError
from distsim.params import Count, Parameters
from distsim.registry import register
from distsim.serving.deployment import Deployment
from distsim.serving.forward.layers import attention
from distsim.serving.forward.layers.writer import Rank, Writer
from distsim.serving.forward.links import Links
from distsim.serving.forward.operations import (
    BUCKET,
    Kind,
    after,
    before,
    captured,
    kind_of,
    mlp_half,
    padded,
)
from distsim.serving.forward.work import NOTHING, Work, work_of
from distsim.serving.iteration import Shape
from distsim.topology.graph import Topology
from distsim.units import PS_PER_S
from distsim.workload.training.operations import Operation


class Measured(NamedTuple):
    """Usual relative error of whole answers: the mean over measured serving points of time per output token and time to first
    token."""

    models: str
    tpot: float
    ttft: float


#: against measured servers, aggregated rows of ``distsim validate silicon`` (docs/serving_times.md): 622 dense, 1,834 mixtures
DENSE = Measured("dense models", 0.119, 0.289)
MIXTURES = Measured("mixtures of experts", 0.216, 0.62)


@register("iteration", "model")
class ModelTimes:
    """Iteration times of a deployment. A pure function of the shape; answers are remembered.

    The mean cached length of generating sequences is rounded up to a multiple of ``bucket`` tokens, rows of linear layers and
    lengths of prompts as distsim.serving.forward.work says.
    """

    class Params(Parameters):
        """bucket: tokens."""

        bucket: Count = BUCKET

    def __init__(
        self, deployment: Deployment, topology: Topology | None = None, chain: Chain | None = None, *, bucket: int = BUCKET
    ) -> None:
        """topology: whose hosts 0, 1, 2 ... hold the ranks; default: the machines that the GPU is usually sold in. chain: of
        compute providers; default: the usual one, with the attention kernels of serving."""
        self.deployment = deployment
        self.stages = deployment.pp
        self.bucket = bucket
        self._rank = Rank.of(deployment)
        self._software = deployment.software
        self.chain = default_chain(self._rank.gpu, kernels="serving") if chain is None else chain
        self._links = Links(deployment, topology)
        self._captured = captured(deployment)
        self._kinds: list[Counter[Kind]] = [
            Counter(kind_of(self._rank, layer) for layer in deployment.layers_of(stage)) for stage in range(self.stages)
        ]
        self._launches = _Launches(self._rank)
        self._times: dict[Shape, tuple[int, ...]] = {}
        self._works: dict[tuple[Work, ...], tuple[int, ...]] = {}
        self._steady: dict[tuple[int, int], int] = {}
        self._group_steady: dict[tuple[tuple[int, int] | None, ...], int] = {}
        self._halves: dict[tuple[object, ...], tuple[int, int]] = {}

    @property
    def measured(self) -> Measured:
        """How far whole answers for such a model were from measured ones."""
        return DENSE if self._rank.model.moe is None else MIXTURES

    def times(self, shape: Shape) -> tuple[int, ...]:
        """See IterationTimes.times; data parallel ranks all have this shape."""
        if shape.width > 1:  # sequences that grow unevenly have hardly two shapes alike
            return self._of((self._work(shape),) * self.deployment.dp)
        found = self._times.get(shape)
        if found is None:
            work = self._work(shape)
            found = self._times[shape] = self._of((work,) * self.deployment.dp)
        return found

    def steady(self, sequences: int, kv: int, longest: int) -> tuple[int, int]:
        """See IterationTimes.steady: until the mean length comes to the next bucket."""
        mean = -(-kv // sequences)
        place = mean // self.bucket
        ps = self._steady.get((sequences, place))
        if ps is None:
            ps = self._steady[sequences, place] = sum(self.times(Shape((), sequences, kv, longest, sequences)))
        return ps, (place + 1) * self.bucket - mean

    def group_times(self, shapes: Sequence[Shape | None]) -> tuple[int, ...]:
        """ps of each stage where the data parallel ranks have different shapes (None: nothing to do): attention of the slowest,
        experts on the tokens of all. Equal shapes take what ``times`` says. Raises ConfigError on another number of ranks."""
        if len(shapes) != self.deployment.dp:
            raise ConfigError(f"{len(shapes)} shapes for {self.deployment.dp} data parallel ranks")
        return self._of(tuple(NOTHING if shape is None else self._work(shape) for shape in shapes))

    def group_steady(self, lanes: Sequence[tuple[int, int, int] | None]) -> tuple[int, int]:
        """As ``steady``, of data parallel ranks that only generate: (sequences, kv, longest) of each, None: nothing to do."""
        places = tuple(None if lane is None else (lane[0], -(-lane[1] // lane[0]) // self.bucket) for lane in lanes)
        ps = self._group_steady.get(places)
        if ps is None:
            shapes = [None if lane is None else Shape((), lane[0], lane[1], lane[2], lane[0]) for lane in lanes]
            ps = self._group_steady[places] = sum(self.group_times(shapes))
        means = [-(-lane[1] // lane[0]) for lane in lanes if lane is not None]
        return ps, min((mean // self.bucket + 1) * self.bucket - mean for mean in means)

    def _work(self, shape: Shape) -> Work:
        return padded(work_of(shape, self.bucket, self._captured))

    def _of(self, works: tuple[Work, ...]) -> tuple[int, ...]:
        found = self._works.get(works)
        if found is None:
            found = self._works[works] = tuple([self._stage(works, stage) for stage in range(self.stages)])
        return found

    def _stage(self, works: tuple[Work, ...], stage: int) -> int:
        """GPU time, or the host's where that is longer, and what the GPU waits for between iterations."""
        rows = everyone = seated = 0
        graph = True
        for work in works:
            everyone += work.rows
            rows = max(rows, work.rows)
            seated = max(seated, work.sequences + len(work.prompts))
            graph = graph and work.graph
        distinct = works if len(works) == 1 else tuple(dict.fromkeys(works))
        first = self._end(("before", rows, stage), before, rows)
        last = max([self._after(work, stage) for work in distinct])
        gpu, launches = first[0] + last[0], first[1] + last[1]
        for (sparse, window), count in self._kinds[stage].items():
            upper = max([self._attention(work, window) for work in distinct])
            lower = self._mlp(rows, everyone, sparse)
            gpu += count * (upper[0] + lower[0])
            launches += count * (upper[1] + lower[1])
        software = self._software
        host = software.host + software.host_sequence * seated
        if not graph:
            gpu = max(gpu, round(launches * software.launch * PS_PER_S))
        return gpu + round(host * PS_PER_S)

    def _after(self, work: Work, stage: int) -> tuple[int, int]:
        last = stage == self.stages - 1
        return self._end(("after", work.samples if last else work.rows, stage), after, work)

    def _end(self, key: tuple[str, int, int], write: Callable[[Rank, Any, int], list[Operation]], what: Any) -> tuple[int, int]:
        """What a stage does before or after its layers."""
        found = self._halves.get(key)
        if found is None:
            found = self._halves[key] = self._sum(write(self._rank, what, key[2]))
        return found

    def _attention(self, work: Work, window: int) -> tuple[int, int]:
        """The half of a layer, by the parts that it is the sum of: shapes hardly repeat, their parts do."""
        if not work.rows:
            return 0, 0
        ps, launches = self._part(("linear", work.rows), _linear, work.rows)
        if work.prompts and self._rank.model.mla is not None:
            more = self._part(("expand", work.prompt_rows), attention.expand, work.prompt_rows)
            ps, launches = ps + more[0], launches + more[1]
        for chunk in work.prompts:
            more = self._part(("prompts", *chunk, window), attention.prompts, *chunk, window)
            ps, launches = ps + more[0], launches + more[1]
        if work.sequences:
            key = ("generate", work.sequences, work.kv, work.width, window)
            more = self._part(key, attention.generate, work, window)
            ps, launches = ps + more[0], launches + more[1]
        return ps, launches

    def _part(self, key: tuple[object, ...], write: Callable[..., None], *what: object) -> tuple[int, int]:
        found = self._halves.get(key)
        if found is None:
            w = Writer(self._rank)
            write(w, *what)
            found = self._halves[key] = self._sum(w.operations)
        return found

    def _mlp(self, rows: int, everyone: int, sparse: bool) -> tuple[int, int]:
        key = ("mlp", rows, everyone, sparse)
        found = self._halves.get(key)
        if found is None:
            found = self._halves[key] = self._sum(mlp_half(self._rank, rows, everyone, sparse))
        return found

    def _sum(self, operations: Iterable[Operation]) -> tuple[int, int]:
        """(ps, launches)."""
        ps = launches = 0
        for one in operations:
            ps += self.operation(one)
            launches += one.launches
        return ps, launches

    def operation(self, one: Operation) -> int:
        """ps of one operation of distsim.serving.forward.operations on an idle device or idle links."""
        if one.kernel is None:
            return self._links.time(one.operation, one.bytes, one.group)
        return round(self._kernel(one.kernel) * PS_PER_S)

    def _kernel(self, kernel: Kernel) -> float:
        """Seconds of one kernel inside a model."""
        answer = self.chain.answer(kernel, self._rank.gpu)
        if kernel.kind not in ("gemm", "grouped_gemm") or not answer.source.startswith("tile_wave"):
            return answer.seconds
        launch, hidden, bandwidth = self._launches.of(kernel.dtype)
        return max(answer.seconds - hidden, launch + kernel.bytes / bandwidth)


def _linear(w: Writer, rows: int) -> None:
    """What attention does with every row."""
    attention.project(w, rows)
    attention.gather(w, rows)


class _Launches:
    """What the fits of GEMMs on a GPU say of a launch, by data type."""

    def __init__(self, rank: Rank) -> None:
        self._gpu = rank.gpu
        self._known: dict[str, tuple[float, float, float]] = {}

    def of(self, dtype: str) -> tuple[float, float, float]:
        """(s of a launch, s that were the host's in its measurement, bytes/s of streaming weights)."""
        if dtype not in self._known:
            from distsim.cost.kernels.tile_wave import TileWave

            wave = TileWave()
            plain, own = wave.parameters(self._gpu, "bf16"), wave.parameters(self._gpu, dtype)
            if plain is None or own is None:
                self._known[dtype] = (0.0, 0.0, float("inf"))
            else:
                launch = plain[0].overhead_us * 1e-6
                # NOTE: a narrow GEMM is two kernels, the first of which quantises x
                both = launch + (LAUNCH if own[0].quantise_bandwidth else 0.0)
                hidden = max(0.0, own[0].overhead_us * 1e-6 - both)
                self._known[dtype] = (launch, hidden, self._gpu.memory_bandwidth * own[0].memory_efficiency)
        return self._known[dtype]
