"""Iteration times from kernels that were measured one by one in vLLM's own layers, size by size (LLMServingSim's profiles).

A profile is a folder of tables (``.csv`` or ``.csv.gz``), in µs; with tensor parallelism those of ``tp<N>/`` in it:

- ``dense``: layer, tokens. ``per_sequence``: layer, sequences: head and sampler, by sequences that get a token.
- ``attention``: prefill_chunk, kv_prefill, n_decode, kv_decode: all sequences in one kernel, those that generate all alike.
- ``skew``: pc, kp, n, kv_mean, kv_big, t_mean_us, t_max_us, t_skew_us: batches of two lengths against batches all of the mean
  and all of the longest. The latter two refine the attention table.
- ``moe`` or ``expert``: tokens, activated_experts: the whole sparse block of a layer.

An iteration is the sum over layers. In particular:

- Layers of the dense table count once per layer of the model; ``layernorm`` as often as a layer has norms; embedding and
  final norm once. In sparse layers the expert table replaces gate, activation and down projection.
- Up to the largest CUDA graph (twice max_num_seqs, at most 512 tokens) batches are padded to the next graph that was captured:
  1, 2, 4, then every 8 tokens, from 256 on every 16 (vLLM ``CompilationConfig``).
- Prompts of one batch: each costs what it costs alone, by its own length and cache; what generation adds is measured beside
  one prompt of the length of them all together.
- Sequences of different lengths: t(mean) + alpha (t(longest) - t(mean)). One alpha for the whole profile, by least squares
  over all rows of ``skew``: a batch of two lengths meets the GPU's waves of blocks in the worst way at some sizes and not at
  all at others, which a batch of many lengths does not.
- Experts that are activated: those that uniform routing hits, E (1 - (1 - k/E)^tokens).
- Tensor parallelism adds two all-reduces per layer, one of the embedding, and the logits' all-gather, by NCCL's closed form.

Time of the host between iterations is none: vLLM decides and launches ahead (scheduler ``vllm_v1:ahead=true``).
What lies beyond the tables goes on in a straight line and is counted (``extrapolated``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from distsim.errors import ConfigError
from distsim.models.catalog import model as model_named
from distsim.models.spec import Model
from distsim.nccl.model import plan as nccl_plan
from distsim.nccl.system import System, system_of
from distsim.params import Count, Parameters
from distsim.registry import register
from distsim.serving.iteration import Shape
from distsim.serving.times.profile_table import Attention, Curve, bracket, find_table, header_of, read_table
from distsim.units import PS_PER_US

#: bytes of an activation (the profiles are of bf16 and fp16 models)
_WIDTH = 2
#: CompilationConfig.max_cudagraph_capture_size of vLLM: at most so many tokens, and twice max_num_seqs
_LARGEST_GRAPH = 512
#: dense layers that an iteration runs once: what their names hold
_ONCE = ("embed", "final", "lm_head")
#: those of a layer's MLP, which experts replace
_MLP = ("gate_up_proj", "gate_proj", "up_proj", "down_proj", "act_fn")
#: columns of an expert table that say how many experts have work
_ACTIVATED = ("activated_experts", "activated", "experts")
#: norms of a layer that are one table together
_NORM = ("layernorm", "rmsnorm", "norm")


@register("iteration", "profile")
class ProfileTimes:
    """See the module. One stage; a pure function of the shape; answers are remembered.

    extrapolated: what was asked for beyond which table -> how many different shapes.
    """

    class Params(Parameters):
        """Options of ``profile:...``."""

        folder: str = Field(examples=["profiles"], description="folder of the tables")
        model: str = Field(examples=["llama3-8b"], description="name or file, see distsim.models.catalog")
        tp: Count = Field(1, description="tensor parallel ranks")
        max_num_seqs: Count = Field(256, description="requests running at once, which decides the largest CUDA graph")
        graphs: bool = Field(True, description="batches are padded to CUDA graphs")
        link: str = Field("h100_pcie", description="GPU of distsim.nccl.gpus whose links join the ranks, with tp > 1")

    stages = 1

    def __init__(
        self, folder: str, model: str, tp: int = 1, max_num_seqs: int = 256, graphs: bool = True, link: str = "h100_pcie"
    ) -> None:
        """Raises ConfigError where a table is missing or does not read, UnknownNameError for a model or GPU."""
        self.model = spec = model_named(model)
        if tp > 1 and spec.heads % tp:
            raise ConfigError(f"tp {tp} does not divide {spec.heads} attention heads", where=spec.name)
        folders = _folders(Path(folder), tp)
        self._attention = Attention(_table(folders, "attention"), find_table(folders[0], "skew"))
        self._experts = _experts(folders, spec)
        self._dense = _weighted(_curves(folders, "dense", "tokens"), spec, bool(self._experts))
        self._ends = list(_curves(folders, "per_sequence", "sequences").values())
        self.alpha = _alpha(folders)
        self._system: System | None = system_of(link, tp) if tp > 1 else None
        self._tp = tp
        self._graph = min(2 * max_num_seqs, _LARGEST_GRAPH) if graphs else 0
        self.extrapolated: Counter[str] = Counter()
        self._rest: dict[tuple[int, int], float] = {}
        self._known: dict[Shape, int] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was asked for beyond the tables, in words."""
        return tuple(f"{count:,} shapes beyond the measured {what}" for what, count in sorted(self.extrapolated.items()))

    def times(self, shape: Shape) -> tuple[int, ...]:
        """See IterationTimes."""
        found = self._known.get(shape)
        if found is None:
            us = self._rest_us(shape.tokens, shape.samples) + self._attention_us(shape)
            found = self._known[shape] = round(us * PS_PER_US)
        return (found,)

    def steady(self, sequences: int, kv: int, longest: int) -> tuple[int, int]:
        """See IterationTimes: every length of the cache has its own time."""
        return self.times(Shape((), sequences, kv, longest, sequences))[0], 1

    def _rest_us(self, tokens: int, samples: int) -> float:
        """All but attention."""
        found = self._rest.get((tokens, samples))
        if found is not None:
            return found
        rows = padded(tokens, self._graph)
        us = 0.0
        for count, curve in self._dense:
            us += count * curve.at(rows)
        if rows > min(curve.top for _, curve in self._dense):
            self.extrapolated["dense by tokens"] += 1
        if self._experts:
            us += self.model.sparse_layers * self._experts_us(rows)
        sampled = max(samples, 1)  # the head runs on one row at least
        us += sum(curve.at(sampled) for curve in self._ends)
        if self._ends and sampled > min(curve.top for curve in self._ends):
            self.extrapolated["per_sequence by sequences"] += 1
        found = self._rest[tokens, samples] = us + self._collectives_us(rows, sampled)
        return found

    def _attention_us(self, shape: Shape) -> float:
        """All layers' attention."""
        table, n = self._attention, shape.sequences
        new = sum(chunk for chunk, _ in shape.prefills)
        alone = sum(table.prompt(chunk, kv) for chunk, kv in shape.prefills)
        cached = sum(chunk * kv for chunk, kv in shape.prefills) / new if new else 0.0
        if table.beyond(new, max((kv for _, kv in shape.prefills), default=0), n):
            self.extrapolated["attention by sequences, chunk or cache of a prompt"] += 1
        if not n:
            return alone * self.model.layers
        if new:
            curve, base = table.mixed(new, cached, n), table.prompt(new, cached)
        else:
            curve, base = table.generating(n), 0.0
        if shape.longest > curve.top:
            self.extrapolated["attention by tokens in cache"] += 1
        mean = curve.at(shape.kv / n)
        if shape.longest * n > shape.kv:
            mean += self.alpha * max(0.0, curve.at(shape.longest) - mean)
        return (alone + max(0.0, mean - base)) * self.model.layers

    def _experts_us(self, tokens: int) -> float:
        """The sparse block of one layer."""
        moe = self.model.moe
        assert moe is not None
        activated = moe.experts * (1 - (1 - moe.topk / moe.experts) ** tokens)
        sizes = sorted(self._experts)
        parts = [(self._experts[size], share) for size, share in bracket(sizes, activated)]
        if activated > sizes[-1] or any(tokens > curve.top for curve, _ in parts):
            self.extrapolated["experts by tokens"] += 1
        return sum(share * curve.at(tokens) for curve, share in parts)

    def _collectives_us(self, tokens: int, sampled: int) -> float:
        """All-reduces after attention and MLP of every layer and after the embedding; the logits' all-gather."""
        if self._system is None:
            return 0.0
        reduced = nccl_plan("all_reduce", tokens * self.model.hidden * _WIDTH, self._system).time_ps
        gathered = nccl_plan("all_gather", sampled * self.model.vocab * _WIDTH, self._system).time_ps
        return ((2 * self.model.layers + 1) * reduced + gathered) / PS_PER_US


def padded(tokens: int, largest: int) -> int:
    """Tokens of the CUDA graph that a batch runs in; ``tokens`` beyond the largest.

    >>> padded(3, 512), padded(33, 512), padded(257, 512), padded(513, 512), padded(33, 0)
    (4, 40, 272, 513, 33)
    """
    if tokens > largest or tokens <= 2:
        return tokens
    step = 4 if tokens <= 4 else 8 if tokens <= 256 else 16
    return min(-(-tokens // step) * step, largest)


def _folders(folder: Path, tp: int) -> list[Path]:
    """Where the tables of a tensor parallelism are looked for, first the ones made for it."""
    if not folder.is_dir():
        raise ConfigError("is not a folder", where=str(folder), expected="a profile: dense, per_sequence and attention tables")
    own = folder / f"tp{tp}"
    if own.is_dir():
        return [own, folder, folder / "tp1"]
    if tp > 1:
        near = sorted(path.name for path in folder.glob("tp*") if path.is_dir())
        raise ConfigError(f"has no tables of tp {tp}", where=str(folder), expected=f"a folder tp{tp}", near=near)
    return [folder]


def _table(folders: list[Path], name: str) -> Path:
    """A table that has to be there: the first folder's."""
    found = find_table(folders[0], name)
    if found is None:
        raise ConfigError(f"holds no {name}.csv or {name}.csv.gz", where=str(folders[0]), expected="a profile")
    return found


def _curves(folders: list[Path], name: str, by: str) -> dict[str, Curve]:
    """Layer -> us by size. Layers that tensor parallelism leaves alone may be in the table of one GPU only."""
    points: dict[str, dict[float, float]] = {}
    own = _table(folders, name)
    for path in (own, *(find_table(folder, name) for folder in folders[1:])):
        if path is None:
            continue
        here: dict[str, dict[float, float]] = {}
        for (layer,), (size, us) in read_table(path, ("layer",), (by, "time_us")):
            if path == own or "norm" in layer or layer == "sampler":
                here.setdefault(layer, {})[size] = us
        points = {**here, **points}
    return {layer: Curve(line.items()) for layer, line in points.items()}


def _weighted(curves: Mapping[str, Curve], model: Model, experts: bool) -> list[tuple[int, Curve]]:
    """How often an iteration runs each layer of the dense table."""
    found = []
    for name, curve in curves.items():
        count = model.layers
        if any(part in name for part in _ONCE):
            count = 1
        elif name in _NORM:
            count = model.layers * model.norms
        elif experts and name in _MLP:
            count = model.layers - model.sparse_layers
        if count:
            found.append((count, curve))
    if model.moe is not None and not experts and not any(name in _MLP or "expert" in name or "moe" in name for name in curves):
        raise ConfigError(f"{model.name} has experts, the profile has no times of them", expected="a table moe or expert")
    return found


def _experts(folders: list[Path], model: Model) -> dict[int, Curve]:
    """Activated experts -> us of a sparse block by tokens; nothing where there is no such table."""
    if model.moe is None:
        return {}
    for folder in folders:
        for path in sorted({*folder.glob("moe*.csv*"), *folder.glob("expert*.csv*")}):
            by = next((name for name in _ACTIVATED if name in header_of(path)), _ACTIVATED[0])
            points: dict[int, dict[float, float]] = {}
            spread = ("ep",) if "ep" in header_of(path) else ()
            for _, (tokens, activated, us, *ep) in read_table(path, (), ("tokens", by, "time_us", *spread)):
                if ep in ([], [1.0]):  # no expert parallelism
                    points.setdefault(int(activated), {})[tokens] = us
            if not points:
                raise ConfigError("holds no times without expert parallelism", where=str(path), expected="rows of ep 1")
            return {activated: Curve(line.items()) for activated, line in points.items()}
    return {}


def _alpha(folders: list[Path]) -> float:
    """Share of the way from the mean's time to the longest's; 0 where nothing was measured."""
    path = find_table(folders[0], "skew")
    if path is not None:
        rows = [values for _, values in read_table(path, (), ("t_mean_us", "t_max_us", "t_skew_us"))]
        way = sum((longest - mean) ** 2 for mean, longest, _ in rows)
        return max(0.0, sum((longest - mean) * (skew - mean) for mean, longest, skew in rows) / way) if way else 0.0
    path = find_table(folders[0], "skew_fit")
    if path is not None:
        fitted = [values for _, values in read_table(path, (), ("alpha", "n_samples"))]
        samples = sum(count for _, count in fitted)
        return max(0.0, sum(alpha * count for alpha, count in fitted) / samples) if samples else 0.0
    return 0.0
