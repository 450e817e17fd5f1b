"""Attention of the suite ``compute``: prefill (context) and decoding (generation) kernels of serving systems."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.cost.kernel import WIDTH
from distsim.cost.kernels.attention import Attention
from distsim.cost.kernels.attention_model import Shape
from distsim.cost.kernels.attention_parameters import fitted
from distsim.cost.kernels.table_file import DTYPES
from distsim.errors import ConfigError, UnknownNameError
from distsim.hardware.gpu import Gpu
from distsim.hardware.gpu import gpu as gpu_named
from distsim.validation.compute_part import Judged, refuse
from distsim.validation.suite import Progress, Report

_COLUMNS = ("system", "kv_cache_dtype", "batch_size", "seq", "past", "heads", "kv_heads", "head_dim", "latency_us")
_SIZES = ("batch_size", "seq", "past", "heads", "kv_heads", "head_dim")
#: what is read beside them where the file has it
_OPTIONAL = ("window",)


class _AttentionPart:
    """Rows of one file: system, kv_cache_dtype, batch_size, seq, past, heads, kv_heads, head_dim, latency_us; causal where many
    tokens are new."""

    def __init__(self, kind: str, label: str) -> None:
        self.kind, self.label = kind, label
        self.metric = f"attention_{label}_mape"
        self.files = (f"attention_{label}_measured.parquet",)

    def judge(self, path: Path, report: Report, progress: Progress) -> Iterable[Judged]:
        """See Part.judge."""
        columns = _read(path)
        report.rows += len(columns["system"])
        good = _sound(columns, report)
        pairs = sorted(set(zip(columns["system"][good].tolist(), columns["kv_cache_dtype"][good].tolist(), strict=True)))
        for number, (system, cache) in enumerate(pairs):
            progress(number / len(pairs), f"attention {self.label}: {system} {cache}")
            mine = good & (columns["system"] == system) & (columns["kv_cache_dtype"] == cache)
            yield from self._pair(system, cache, {name: column[mine] for name, column in columns.items()}, report)

    def _pair(self, system: str, cache: str, columns: dict[str, NDArray[Any]], report: Report) -> Iterable[Judged]:
        """All providers on the rows of one system and data type."""
        rows = len(columns["system"])
        try:
            gpu = gpu_named(system)
        except UnknownNameError as error:
            refuse(report, error.what, rows)
            return
        dtype = DTYPES.get(cache, cache)
        shape = _shape(columns, self.kind)
        model = Attention("serving").seconds(self.kind, shape, dtype, gpu)
        if model is None:
            refuse(report, f"attention in {dtype} on {system}: no model", rows)
            return
        measured = columns["latency_us"].astype(np.float64) * 1e-6

        def what(place: int) -> str:
            sizes = " ".join(f"{name} {int(columns[name][place])}" for name in _SIZES)
            return f"{self.label} {system} {cache}: {sizes}"

        for provider, seconds, default in self._answers(model, shape, dtype, gpu):
            yield Judged(f"attention {self.label}, {system}, {dtype}, {provider}", rows, measured, seconds, what, default)

    def _answers(
        self, model: NDArray[np.float64], shape: Shape, dtype: str, gpu: Gpu
    ) -> Iterable[tuple[str, NDArray[np.float64], bool]]:
        constants = fitted(gpu, dtype)
        yield "attention" if constants is not None and constants.own else "attention family", model, True
        yield "roofline", _roofline(shape, dtype, gpu), False


class ContextPart(_AttentionPart):
    """Prefill."""

    def __init__(self) -> None:
        super().__init__("attention", "context")


class GenerationPart(_AttentionPart):
    """Decoding."""

    def __init__(self) -> None:
        super().__init__("decode_attention", "generation")


def _roofline(s: Shape, dtype: str, gpu: Gpu) -> NDArray[np.float64]:
    """The longer of arithmetic and traffic, at data-sheet rates."""
    pairs = s.q * s.kv - np.where(s.causal > 0, s.q * (s.q - 1) / 2, 0)
    flops = 2 * s.batch * s.heads * pairs * (s.qk_dim + s.v_dim)
    moved = WIDTH[dtype] * s.batch * (s.qk_dim + s.v_dim) * (s.heads * s.q + s.kv_heads * s.kv)
    found: NDArray[np.float64] = np.maximum(flops / gpu.rate(dtype), moved / gpu.memory_bandwidth)
    return found


def _shape(columns: dict[str, NDArray[Any]], kind: str) -> Shape:
    def of(name: str) -> NDArray[np.float64]:
        return columns[name].astype(np.float64)

    rows = len(columns["seq"])
    q, dim = of("seq"), of("head_dim")
    causal = np.full(rows, float(kind == "attention"))
    window = of("window") if "window" in columns else np.zeros(rows)
    return Shape(of("batch_size"), q, of("past") + q, of("heads"), of("kv_heads"), dim, dim, causal, window)


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """Columns of a file. Raises ConfigError."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigError(f"cannot be read as Parquet: {error}", where=str(path)) from None
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise ConfigError(f"has no column {', '.join(missing)}", where=str(path), expected=", ".join(_COLUMNS))
    found: dict[str, NDArray[Any]] = {}
    for name in (*_COLUMNS, *(name for name in _OPTIONAL if name in table.column_names)):
        column = table[name]
        if name in ("system", "kv_cache_dtype"):
            found[name] = np.array([str(cell) for cell in column.to_pylist()], dtype=np.str_)
            continue
        try:
            cells = column.to_numpy().astype(np.float64)
        except (TypeError, ValueError):
            raise ConfigError(f"column {name} holds no numbers ({column.type})", where=str(path)) from None
        found[name] = cells
    return found


def _sound(columns: dict[str, NDArray[Any]], report: Report) -> NDArray[np.bool_]:
    """Rows that describe a kernel; the others are counted by reason."""
    good = np.ones(len(columns["system"]), dtype=np.bool_)
    checks: tuple[tuple[str, Callable[[], NDArray[np.bool_]]], ...] = (
        ("latency_us is no positive number", lambda: columns["latency_us"] > 0),
        ("a size below 1", lambda: np.all([columns[name] >= (name != "past") for name in _SIZES], axis=0)),
        ("heads do not share kv_heads evenly", lambda: columns["heads"] % np.maximum(columns["kv_heads"], 1) == 0),
    )
    for reason, check in checks:
        bad = good & ~check()
        refuse(report, reason, int(bad.sum()))
        good &= ~bad
    return good
