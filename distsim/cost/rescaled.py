"""Recorded durations as another GPU would have taken them, or as they would be so many times faster.

What a kernel spends on launching and draining stays; the rest of its time is multiplied by how a kernel of its class fares on
the two GPUs, by the providers of compute times where they can tell:

class of the kernel (by its name)         its time goes with
gemm, convolution                         a large matrix product in the data type that its name tells
attention                                 fused attention of a long sequence, forward or backward
copies between host and device            the host's link, where the host's memory is pinned; pageable ones stay as they are
copies between devices                    the scale-up links
everything else, fills, copies within     memory bandwidth

Host time, delays and communication stay as they are. Shapes are not recorded: small matrix products, which fill no large GPU,
gain less than this says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from distsim.cost.chain import Chain, default_chain
from distsim.cost.kernel import attention, gemm
from distsim.cost.kernels.stream import LAUNCH
from distsim.cost.precision import dtype_of
from distsim.cost.recorded import Recorded
from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu, folded, gpu, gpus
from distsim.registry import register
from distsim.trace.graph import NodeType, Program, TaskGraph
from distsim.trace.kineto.kernels import kernel_class

#: what stays of a kernel's time between GPUs; source: as the provider ``stream``
FIXED_PS = round(LAUNCH * 1e12)
#: rows, columns and depth of the matrix product that stands for those whose shapes are not known: large enough for every GPU
_SIDE = 4096
#: one way, bytes/s, x16 less the encoding; PCI-SIG: 8, 16 and 32 GT/s of generations 3, 4 and 5
_GEN3, _GEN4, _GEN5 = 15.75e9, 31.5e9, 63.0e9
#: link between host and device by GPU: NVLink-C2C, 900 GB/s both ways together (NVIDIA, Grace Hopper and GB200 data sheets)
_HOST_LINK = {name: 450e9 for name in ("gh200", "gb200", "gb300")}
#: by generation, from NVIDIA's and AMD's data sheets; the A10 to L40S have generation 4
_HOST_LINKS = {
    "volta": _GEN3, "ampere": _GEN4, "ada": _GEN4, "hopper": _GEN5, "blackwell": _GEN5, "cdna3": _GEN5,
}  # fmt: skip
#: words of a GPU's name that tell a board or its memory, not the chip
_BOARD = re.compile(r"sxm\d*|pcie|\d+g|server")
#: kernels among the matrix products and convolutions that only move data
_MOVES = re.compile(r"gemv|nchwto|nhwcto|im2col|col2im", re.IGNORECASE)


class Durations(Protocol):
    """A provider of role ``cost``."""

    def durations(self, program: Program, where: str) -> NDArray[np.int64]: ...


class Scale(NamedTuple):
    """What becomes of a kernel. ratio: its new time over its old, of what exceeds the fixed part; by: what it goes with;
    source: who says so; error: usual relative error of that, 0 where not known."""

    ratio: float
    by: str
    source: str
    error: float = 0.0


class Scaling(Protocol):
    """How the durations of kernels change, by name. ``fixed``: ps of each that stay. ``said``: of what into what."""

    fixed: int
    said: str

    def scale(self, name: str, kind: int) -> Scale:
        """kind: NodeType. Raises ConfigError where the GPUs cannot run it."""
        ...


class Factor:
    """Every computation so many times as fast; copies stay."""

    fixed = 0

    def __init__(self, factor: float) -> None:
        """Raises ConfigError where it is no positive number."""
        if not 0 < factor < float("inf"):
            raise ConfigError(f"a factor of {factor:g}", where="--scale-compute", expected="a positive number, such as 1.5x")
        self.factor, self.said = factor, f"{factor:g}x"

    def scale(self, name: str, kind: int) -> Scale:
        """See Scaling."""
        if kind != NodeType.COMP:
            return Scale(1.0, "copies", "as recorded")
        return Scale(1 / self.factor, "computation", "as given")


class Between:
    """From one GPU to another."""

    fixed = FIXED_PS

    def __init__(self, old: Gpu, new: Gpu) -> None:
        self.old, self.new = old, new
        self.said = f"{old.name} -> {new.name}"
        self._chains: dict[str, Chain] = {one.name: default_chain(one) for one in (old, new)}
        self._known: dict[tuple[str, str | None, bool], Scale] = {}

    def scale(self, name: str, kind: int) -> Scale:
        """See Scaling."""
        if kind != NodeType.COMP:
            return self._copy(name.lower())
        what = kernel_class(name)
        if what == "attention":
            backward = re.search(r"bwd|backward|bprop", name, re.IGNORECASE) is not None
            return self._of("attention", dtype_of(name), backward)
        if what in ("gemm", "convolution") and not _MOVES.search(name):
            return self._of("matrix products", dtype_of(name), False)
        return self._bandwidth("memory bandwidth, class not known" if what in ("other", "graph") else "memory bandwidth")

    def _of(self, what: str, dtype: str | None, backward: bool) -> Scale:
        """By the providers' times of a large kernel."""
        key = (what, dtype, backward)
        if key not in self._known:
            self._known[key] = self._asked(*key)
        return self._known[key]

    def _asked(self, what: str, told: str | None, backward: bool) -> Scale:
        answers = []
        for one in (self.old, self.new):
            dtype = self._dtype(one, told)
            width = "fp16" if dtype not in ("fp16", "bf16", "fp8") and what == "attention" else dtype
            kernel = (
                gemm(_SIDE, _SIDE, _SIDE, dtype) if what != "attention"
                else attention(1, _SIDE, _SIDE, 32, 32, 128, 128, width, backward=backward)
            )  # fmt: skip
            answers.append(self._chains[one.name].answer(kernel, one))
        old, new = answers
        by = f"{what} in {told}" if told else f"{what}, data type not told: 16 bit"
        source = " and ".join(dict.fromkeys((old.source, new.source)))
        return Scale(new.seconds / old.seconds, by, source, max(old.error, new.error))

    def _dtype(self, one: Gpu, told: str | None) -> str:
        """What a GPU computes it in. tf32 is fp32 where there are no units for it; rates of fp64 are not known: as fp32."""
        wanted = {None: "bf16" if "bf16" in one.peak else "fp16", "fp64": "fp32"}.get(told, told) or "fp16"
        if wanted == "tf32" and "tf32" not in one.peak:
            wanted = "fp32"
        if wanted not in one.peak:
            raise ConfigError(
                f"{one.name} has no {wanted} units, which kernels of the trace use", where=f"--scale-compute {self.said}",
                expected=f"a GPU with {wanted}",
            )  # fmt: skip
        return wanted

    def _bandwidth(self, by: str) -> Scale:
        return Scale(self.old.memory_bandwidth / self.new.memory_bandwidth, by, "GPU catalogue")

    def _copy(self, name: str) -> Scale:
        """Copies and fills, by what their name says of where from and where to."""
        if "ptop" in name or "peer" in name:
            if self.old.nvlink and self.new.nvlink:
                return Scale(self.old.nvlink / self.new.nvlink, "copies between devices", "GPU catalogue")
            return Scale(1.0, "copies between devices, no links known", "as recorded")
        if "htod" in name or "dtoh" in name:
            if "pageable" in name:
                return Scale(1.0, "copies of pageable host memory", "as recorded")
            old, new = (_HOST_LINK.get(one.name) or _HOST_LINKS.get(one.generation, 0.0) for one in (self.old, self.new))
            if old and new:
                return Scale(old / new, "copies between host and device", "PCIe generation")
            return Scale(1.0, "copies between host and device, no link known", "as recorded")
        return self._bandwidth("copies and fills in memory")


@register("cost", "rescaled")
class Rescaled:
    """Durations of another provider (recorded ones, usually), kernels and copies of them rescaled."""

    def __init__(self, scaling: Scaling, names: Sequence[str], inner: Durations | None = None) -> None:
        """names: TaskGraph.names, which programs index."""
        self.scaling, self._names = scaling, names
        self._inner: Durations = inner or Recorded()

    def durations(self, program: Program, where: str) -> NDArray[np.int64]:
        """ps per row, 0 for rows that are not timed. Raises TraceError as the inner provider; ConfigError where the GPUs cannot
        run a kernel."""
        base = self._inner.durations(program, where)
        rows = kernel_rows(program)
        fixed = np.minimum(base[rows], self.scaling.fixed)
        found = base.copy()
        made = np.rint((base[rows] - fixed) * self._ratios(program, rows))
        if made.max(initial=0) >= 2.0**61:  # ends are sums of durations, in 64 bits
            raise ConfigError("makes kernels last too long", where=f"--scale-compute {self.scaling.said}")
        found[rows] = fixed + made.astype(np.int64)
        return found

    def _ratios(self, program: Program, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        key = program.name[rows].astype(np.int64) * len(NodeType) + program.type[rows]
        unique, inverse = np.unique(key, return_inverse=True)
        ratios = [self.scaling.scale(self._names[k // len(NodeType)], k % len(NodeType)).ratio for k in unique.tolist()]
        found: NDArray[np.float64] = np.array(ratios, dtype=np.float64)[inverse.ravel()]
        return found

    def told(self, graph: TaskGraph) -> tuple[Told, ...]:
        """What was done to the kernels of all ranks, by what their times go with; most time first."""
        found: dict[tuple[str, str], list[float]] = {}
        for number, program in enumerate(graph.programs):
            copies = int(np.count_nonzero(graph.rank_program == number))
            base, rows = self._inner.durations(program, graph.source), kernel_rows(program)
            now = self.durations(program, graph.source)
            key = program.name[rows].astype(np.int64) * len(NodeType) + program.type[rows]
            unique, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
            before, after = (np.bincount(inverse.ravel(), column[rows].astype(float), len(unique)) for column in (base, now))
            for at, k in enumerate(unique.tolist()):
                one = self.scaling.scale(self._names[k // len(NodeType)], k % len(NodeType))
                entry = found.setdefault((one.by, one.source), [0.0, 0.0, 0.0, one.ratio, 0.0])
                for place, value in enumerate((count[at], before[at], after[at])):
                    entry[place] += copies * float(value)
                entry[4] = max(entry[4], one.error)
        whole = sum(entry[1] for entry in found.values())
        rows_told = [
            Told(by, source, int(count), before / whole if whole else 0.0, ratio, after / before if before else 1.0, error)
            for (by, source), (count, before, after, ratio, error) in found.items()
        ]
        return tuple(sorted(rows_told, key=lambda one: (-one.share, one.by)))

    def notes(self, graph: TaskGraph) -> tuple[str, ...]:
        """What was taken for granted, in sentences for the first screen."""
        told = [one for one in self.told(graph) if one.share >= 0.005]
        listed = "; ".join(
            f"{round(100 * one.share)} % of the kernels' time by {one.by}: {one.ratio:.3g} times as long ({one.source}"
            + (f", usual error {round(100 * one.error)} %" if one.error else "") + ")" for one in told
        )  # fmt: skip
        stays = f"; {self.scaling.fixed / 1e6:g} us of each kernel stay" if self.scaling.fixed else ""
        said = f"compute rescaled, {self.scaling.said}: {listed or 'no kernels'}{stays}"
        named = graph.metadata.get("kineto.gpu") or not isinstance(self.scaling, Between)
        return (said,) if named else (said, "the trace does not say which GPU it was recorded on: --scale-compute is believed")


class Told(NamedTuple):
    """Kernels whose times go with one thing. share: of all kernels' recorded time; ratio: of what exceeds the fixed part;
    whole: of their time in all."""

    by: str
    source: str
    kernels: int
    share: float
    ratio: float
    whole: float
    error: float


def kernel_rows(program: Program) -> NDArray[np.int64]:
    """Rows that run on the GPU and are no communication: kernels, copies, fills."""
    memory = (program.type == NodeType.MEM_LOAD) | (program.type == NodeType.MEM_STORE)
    return np.flatnonzero(((program.type == NodeType.COMP) & ~program.cpu) | memory)


def scaling(text: str, captured: str = "") -> Scaling:
    """From ``a100->h100`` or ``1.5x``. captured: GPUs that the trace was recorded on, as the profiler names
    them, joined by commas; empty: unknown.

    Raises: ConfigError, UnknownNameError: malformed, no such GPU, or recorded on another one than said.
    """
    where = f"--scale-compute {text}"
    old, arrow, new = (part.strip() for part in text.partition("->"))
    if not arrow:
        number = re.fullmatch(r"([0-9.]+(?:e[+-]?\d+)?)\s*x?", text.strip(), re.IGNORECASE)
        try:
            return Factor(float(number[1])) if number else Factor(float("nan"))
        except ValueError:
            number = None
        except ConfigError:
            if number:
                raise
        raise ConfigError(f"{text!r} is no rescaling", where="--scale-compute", expected="GPU->GPU, or a factor such as 1.5x")
    source, target = gpu(old, where=where), gpu(new, where=where)
    for one in (source, target):
        if one.generation == "tpu":
            raise ConfigError(f"{one.name} runs no kernels with the names of a GPU's", where=where)
    for name in filter(None, captured.split(", ")):
        source = _checked(source, old, name, where)
    return Between(source, target)


def rescaled(text: str, graph: TaskGraph, inner: Durations | None = None) -> Rescaled:
    """The provider for a trace; its GPU is what ``graph.metadata["kineto.gpu"]`` names. Raises as :func:`scaling`."""
    return Rescaled(scaling(text, graph.metadata.get("kineto.gpu", "")), graph.names, inner)


def _checked(named: Gpu, spelt: str, captured: str, where: str) -> Gpu:
    """The GPU that was captured: the one named, or, where that name is of the chip alone, the very board."""
    words = folded(captured).split("_")

    def of_chip(one: Gpu) -> bool:
        return set(_chip(one)) <= set(words)

    if not of_chip(named):
        near = [one.name for one in gpus().values() if of_chip(one)][:3]
        raise ConfigError(
            f"the trace was recorded on {captured}, not on {named.name}", where=where, near=near,
            fix="Name the GPU that it was recorded on first.",
        )  # fmt: skip
    exact = next((one for one in gpus().values() if folded(captured) in map(folded, (one.name, *one.aliases))), named)
    return exact if folded(spelt) == "_".join(_chip(named)) else named


def _chip(one: Gpu) -> list[str]:
    """Words of a GPU's name that tell its chip.

    >>> _chip(gpu("a100_sxm_40g")), _chip(gpu("rtx_pro_6000"))
    (['a100'], ['rtx', 'pro', '6000'])
    """
    return [word for word in one.name.split("_") if not _BOARD.fullmatch(word)]
