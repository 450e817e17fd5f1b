"""What share of peak memory bandwidth do the compute providers imply? Bytes of a kernel over its time, against the data sheet.

Bytes are what a kernel has to move, each operand once (:mod:`distsim.cost.kernel`): a share above 100 % says that the provider
is faster than main memory can be. Low shares of large products are no fault: arithmetic bounds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distsim.cost.chain import default_chain
from distsim.cost.kernel import WIDTH, Answer, Kernel, KernelProvider, attention, gemm, memory
from distsim.errors import ConfigError, UnknownNameError
from distsim.hardware.gpu import Gpu, gpu
from distsim.models.catalog import model as model_of
from distsim.models.spec import Model
from distsim.registry import lookup
from distsim.studies.finding import Chart, Finding, Series, Table
from distsim.units import format_size, format_time

Progress = Callable[[float | None, str], None]
Row = dict[str, Any]

#: tokens that a generating sequence has behind it
CONTEXT = 4096
#: parameters of the optimizer's kernel, per token of its size: 1 to 65,536 tokens span 16 K to 1 G parameters
PARAMETERS = 1 << 14
#: Adam: gradient, master weight and two moments in fp32 are read, the last three and a weight of two bytes written
ADAM_BYTES = 4 * 4 + 3 * 4 + 2
SIZES = tuple(4**n for n in range(9))
GPUS = ("a100_sxm", "h100_sxm", "b200_sxm")
PROVIDERS = ("roofline", "pnorm", "tile_wave", "attention", "stream", "chain")
#: more than 100 %, beyond rounding
_ABOVE = 1.0 + 1e-9


@dataclass(frozen=True, slots=True)
class Class:
    """A class of kernels: about, in words; make: of (model, tensor-parallel degree, tokens, data type)."""

    about: str
    make: Callable[[Model, int, int, str], Kernel]


def _generation(model: Model, tp: int, tokens: int, dtype: str) -> Kernel:
    """One new token of each of so many sequences."""
    heads, keys, size = model.heads // tp, max(1, model.kv_heads // tp), model.head_dim
    cache = WIDTH[dtype] * tokens * CONTEXT * keys * 2 * size
    flops = 4.0 * tokens * heads * CONTEXT * size
    return Kernel("decode_attention", (tokens, 1, CONTEXT, heads, keys, size, size, 0, 0), dtype, flops, cache)


def _context(backward: bool) -> Callable[[Model, int, int, str], Kernel]:
    def make(model: Model, tp: int, tokens: int, dtype: str) -> Kernel:
        heads, keys, size = model.heads // tp, max(1, model.kv_heads // tp), model.head_dim
        return attention(1, tokens, tokens, heads, keys, size, size, dtype, backward=backward)

    return make


CLASSES: dict[str, Class] = {
    "gemm": Class(
        "the MLP's first product, of the tokens",
        lambda m, tp, n, t: gemm(n, (2 if m.gated else 1) * m.ffn_hidden // tp, m.hidden, t),
    ),
    "attention context": Class("one prompt of that many tokens, causal", _context(backward=False)),
    "attention backward": Class("the same, backward", _context(backward=True)),
    "attention generation": Class(f"a new token for each sequence, {CONTEXT} tokens behind it", _generation),
    "elementwise": Class(
        "SwiGLU of the tokens: two reads, one write",
        lambda m, tp, n, t: memory((3 if m.gated else 2) * WIDTH[t] * n * m.ffn_hidden / tp, t),
    ),
    "norm": Class("a norm of the tokens: read and write", lambda m, tp, n, t: memory(2 * WIDTH[t] * n * m.hidden, t)),
    "optimizer": Class(
        f"Adam, {PARAMETERS:,} parameters a token", lambda m, tp, n, t: memory(float(ADAM_BYTES * PARAMETERS * n), t)
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A study. model: whose kernels, split over ``tp`` ranks. sizes: tokens."""

    gpus: tuple[str, ...] = GPUS
    providers: tuple[str, ...] = PROVIDERS
    classes: tuple[str, ...] = tuple(CLASSES)
    sizes: tuple[int, ...] = SIZES
    model: str = "llama3-70b"
    tp: int = 8
    dtype: str = "bf16"


def conduct(asked: Asked, progress: Progress) -> Finding:
    """Ask every provider for every kernel. Raises ConfigError, UnknownNameError."""
    model = model_of(asked.model)
    if model.mla is not None:
        raise ConfigError(f"{model.name} compresses keys and values: its attention is none of these classes", where="--model")
    if asked.tp < 1 or model.heads % asked.tp or model.ffn_hidden % asked.tp:
        raise ConfigError(f"{asked.tp} does not divide {model.heads} heads of {model.name}", where="--tp")
    for name in asked.classes:
        if name not in CLASSES:
            raise UnknownNameError("class of kernels", name, CLASSES, where="--classes")
    for size in asked.sizes:
        if not 1 <= size <= 1 << 24:
            raise ConfigError(f"{size} tokens", where="--sizes", expected="1 to 16,777,216")
    machines = [gpu(name, where="--gpus") for name in asked.gpus]
    for one in machines:
        if asked.dtype not in one.peak:
            raise ConfigError(f"{one.name} has no {asked.dtype} units", where="--dtype", expected=f"of {', '.join(one.peak)}")
    rows: list[Row] = []
    asking = [(machine, name) for machine in machines for name in asked.providers]
    for number, (machine, name) in enumerate(asking):
        progress(number / len(asking), f"asking {name} about {machine.name}")
        answer = provider(name, machine)
        for kind in asked.classes:
            for size in asked.sizes:
                kernel = CLASSES[kind].make(model, asked.tp, size, asked.dtype)
                found = answer(kernel, machine)
                if found is not None:
                    rows.append(row(machine, name, kind, size, kernel, found))
    if not rows:
        raise ConfigError("no provider serves any of these kernels", where="--providers", expected=", ".join(PROVIDERS))
    return findings(asked, rows)


def provider(name: str, machine: Gpu) -> Callable[[Kernel, Gpu], Answer | None]:
    """What answers for a provider: ``chain`` is distsim's usual one, others are asked alone. Raises UnknownNameError."""
    if name == "chain":
        return default_chain(machine).answer
    if name not in PROVIDERS:
        raise UnknownNameError("compute provider", name, PROVIDERS, where="--providers")
    made: KernelProvider = lookup("kernels", name)()
    return made.answer


def row(machine: Gpu, name: str, kind: str, size: int, kernel: Kernel, found: Answer) -> Row:
    """One kernel, one provider."""
    reached = kernel.bytes / found.seconds / machine.memory_bandwidth
    peak = machine.peak[kernel.dtype]
    return {
        "gpu": machine.name, "class": kind, "provider": name, "source": found.source, "tokens": size,
        "bytes": int(kernel.bytes), "seconds": found.seconds, "bandwidth_share": reached,
        "compute_share": kernel.flops / found.seconds / peak,
        "memory_bound": kernel.bytes / machine.memory_bandwidth >= kernel.flops / peak,
        "above_peak": reached > _ABOVE,
    }  # fmt: skip


def findings(asked: Asked, rows: Sequence[Row]) -> Finding:
    """What the answers say. Pure."""
    names = [name for name in asked.providers if any(row["provider"] == name for row in rows)]
    over = [row for row in rows if row["above_peak"]]
    shown = "chain" if "chain" in names else names[0]
    best = {kind: _most(rows, shown, kind) for kind in asked.classes}
    said = ", ".join(f"{kind} {100 * one['bandwidth_share']:.0f} %" for kind, one in best.items() if one is not None)
    if over:
        worst = max(over, key=lambda row: row["bandwidth_share"])
        flag = (
            f"{len(over)} of {len(rows):,} answers imply more than 100 % (most: {worst['provider']}, {worst['class']} of "
            f"{worst['tokens']:,} tokens on {worst['gpu']}, {100 * worst['bandwidth_share']:.0f} %)"
        )
    else:
        flag = f"none of {len(rows):,} answers implies more than 100 %"
    return Finding(
        "bandwidth", f"of peak memory bandwidth at most ({shown}): {said}; {flag}", _tables(asked, rows, names),
        _charts(asked, rows, names), rows,
        {
            "answers": len(rows), "above_peak": len(over),
            "highest": [
                {"provider": name, "class": kind, **{key: most[key] for key in ("gpu", "tokens", "bytes", "bandwidth_share")}}
                for name in names for kind in asked.classes if (most := _most(rows, name, kind)) is not None
            ],
        },
        {
            "model": asked.model, "tp": asked.tp, "dtype": asked.dtype, "gpus": list(asked.gpus),
            "providers": list(asked.providers), "classes": list(asked.classes), "sizes": list(asked.sizes),
        },
        notes=(
            "share: bytes that a kernel has to move, each operand once, over its time, against the data sheet's bandwidth",
            "what fits the last cache can be faster than main memory when it is there already; no provider promises that",
        ),
        warnings=tuple(
            f"{one['provider']}: {one['class']} of {one['tokens']:,} tokens on {one['gpu']} takes "
            f"{format_time(one['seconds'] * 1e12)} for {format_size(one['bytes'])}: "
            f"{100 * one['bandwidth_share']:.0f} % of peak"
            for one in sorted(over, key=lambda one: -one["bandwidth_share"])[:8]
        ),
    )  # fmt: skip


def _most(rows: Sequence[Row], name: str, kind: str) -> Row | None:
    mine = (row for row in rows if row["provider"] == name and row["class"] == kind)
    return max(mine, key=lambda row: row["bandwidth_share"], default=None)


def _tables(asked: Asked, rows: Sequence[Row], names: Sequence[str]) -> tuple[Table, ...]:
    def cell(row: Mapping[str, Any] | None) -> str:
        return "-" if row is None else f"{100 * row['bandwidth_share']:.0f} %{' !' if row['above_peak'] else ''}"

    whole = Table(
        "highest share of peak memory bandwidth over sizes and GPUs", ("class", *names),
        [(kind, *(cell(_most(rows, name, kind)) for name in names)) for kind in asked.classes],
        notes=("! more than memory gives; -: the provider does not serve the class",
               *(f"{kind}: {CLASSES[kind].about}" for kind in asked.classes)),
        name="Highest shares",
    )  # fmt: skip
    tables = [whole]
    shown = "chain" if "chain" in names else names[0]
    at = {(row["gpu"], row["class"], row["provider"], row["tokens"]): row for row in rows}
    for machine in dict.fromkeys(row["gpu"] for row in rows):
        lines = [
            (kind, *(cell(at.get((machine, kind, shown, size))) for size in asked.sizes)) for kind in asked.classes
        ]
        sizes = tuple(f"{size:,}" for size in asked.sizes)
        tables.append(Table(f"{shown} on {machine}, by tokens", ("class", *sizes), lines, name=machine))
    return tuple(tables)


def _charts(asked: Asked, rows: Sequence[Row], names: Sequence[str]) -> tuple[Chart, ...]:
    machines = list(dict.fromkeys(row["gpu"] for row in rows))
    made = []
    for number, kind in enumerate(asked.classes):
        series = []
        for hue, name in enumerate(names):
            for machine in machines:
                mine = [row for row in rows if (row["gpu"], row["class"], row["provider"]) == (machine, kind, name)]
                mine.sort(key=lambda row: row["bytes"])
                if mine:
                    series.append(
                        Series(
                            f"{name}, {machine}", [row["bytes"] for row in mine], [row["bandwidth_share"] for row in mine],
                            [f"{row['tokens']:,} tokens: {format_size(row['bytes'])}" for row in mine],
                            dash=machine != machines[0], hue=hue % 8 + 1,
                        )
                    )  # fmt: skip
        if series:
            made.append(
                Chart(
                    f"class{number}", f"{kind}: {CLASSES[kind].about}", "bytes moved", "share of peak bandwidth", tuple(series),
                    log_x=True, x_kind="bytes", y_kind="share", levels=(("peak", 1.0),),
                )
            )  # fmt: skip
    return tuple(made)
