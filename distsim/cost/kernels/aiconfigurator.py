"""The kernel measurements of the package aiconfigurator-core as tables (optional extra ``aiconfigurator``).

Only its Parquet files are read, ``systems/data/<system>/<family>/<backend>/<version>/<op>_perf.parquet``; none of its code
is imported. Read are GEMMs, prefill, encoder and decode attention, and the attention of MLA; fused mixture-of-experts
operators and whole modules are more than one kernel, and are left alone. Times there are in ms.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distsim.cost.kernel import Answer, Kernel, KernelProvider
from distsim.cost.kernels.table import Table
from distsim.cost.kernels.table_file import DTYPES, Measured
from distsim.errors import ConfigError, UnknownNameError
from distsim.hardware.gpu import Gpu
from distsim.hardware.gpu import gpu as gpu_named
from distsim.params import Parameters
from distsim.registry import register

PACKAGE = "aiconfigurator_core"
#: serving systems, the first that measured an operation is used
BACKENDS = ("trtllm", "sglang", "vllm")
#: head dimensions of DeepSeek-V2 and V3, for which the MLA files were measured: prefill, and the latent of decoding
_MLA_QK, _MLA_V, _LATENT_QK, _LATENT_V = 192, 128, 576, 512

Row = tuple[Any, ...]


def _gemm(row: Row) -> tuple[str, str, tuple[int, ...]]:
    dtype, m, n, k = row
    return "gemm", dtype, (m, n, k)


def _context(row: Row) -> tuple[str, str, tuple[int, ...]]:
    batch, q, heads, kv_heads, dim, window, dtype, cache, past = row
    shape = (batch, q, q + past, heads, kv_heads or heads, dim, dim, 1, window)
    return "attention", dtype if dtype == cache else "", shape


def _generation(row: Row) -> tuple[str, str, tuple[int, ...]]:
    batch, q, heads, kv_heads, dim, window, cache, past = row
    return "decode_attention", cache, (batch, q, q + past, heads, kv_heads or heads, dim, dim, 0, window)


def _encoder(row: Row) -> tuple[str, str, tuple[int, ...]]:
    batch, q, heads, dim, dtype = row
    return "attention", dtype, (batch, q, q, heads, heads, dim, dim, 0, 0)


def _mla_context(row: Row) -> tuple[str, str, tuple[int, ...]]:
    batch, q, heads, dtype, cache, past = row
    return "attention", dtype if dtype == cache else "", (batch, q, q + past, heads, heads, _MLA_QK, _MLA_V, 1, 0)


def _mla_generation(row: Row) -> tuple[str, str, tuple[int, ...]]:
    batch, q, heads, cache, past = row
    return "decode_attention", cache, (batch, q, q + past, heads, 1, _LATENT_QK, _LATENT_V, 0, 0)


Reader = Callable[[Row], tuple[str, str, tuple[int, ...]]]
_MLA = ("batch_size", "isl", "num_heads")
_ATTENTION = (*_MLA, "num_key_value_heads", "head_dim", "window_size")
#: kind of kernel -> files that hold some: family, operation, columns, reader
FILES: dict[str, tuple[tuple[str, str, tuple[str, ...], Reader], ...]] = {
    "gemm": (("gemm", "gemm", ("gemm_dtype", "m", "n", "k"), _gemm),),
    "attention": (
        ("attention", "context_attention", (*_ATTENTION, "attn_dtype", "kv_cache_dtype", "step"), _context),
        ("encoder_attention", "encoder_attention", (*_MLA, "head_dim", "attn_dtype"), _encoder),
        ("mla", "context_mla", (*_MLA, "mla_dtype", "kv_cache_dtype", "step"), _mla_context),
    ),
    "decode_attention": (
        ("attention", "generation_attention", (*_ATTENTION, "kv_cache_dtype", "step"), _generation),
        ("mla", "generation_mla", (*_MLA, "kv_cache_dtype", "step"), _mla_generation),
    ),
}
#: columns that older files lack, and what their absence means
_ABSENT = {"window_size": 0, "step": 0}
#: names of data types here -> those of kernels; others (block-scaled, weight-only) are other kernels
_DTYPES = {**DTYPES, "fp8": "fp8", "nvfp4": "fp4"}


@register("kernels", "aiconfigurator")
class Aiconfigurator:
    """Tables of every GPU that the package measured; each file is read when the first kernel of its kind is asked for.

    refused: reason -> kernels that no table could serve. skipped: data types of rows that are not kernels of this package ->
    rows.
    """

    class Params(Parameters):
        """backend: trtllm, sglang or vllm (the first that measured, where empty). version: of it (the newest, where empty).
        folder: ``systems/data`` of an unpacked package."""

        backend: str = ""
        version: str = ""
        folder: str = ""
        extrapolate: bool = False

    def __init__(
        self, *, backend: str = "", version: str = "", folder: str = "", extrapolate: bool = False,
        over: KernelProvider | None = None,
    ) -> None:  # fmt: skip
        """Raises ConfigError where the package is not installed, or the folder is not its."""
        self._folder = data_folder(folder)
        self._systems = _systems(self._folder)
        self._backends = (backend,) if backend else BACKENDS
        self._version = version
        self._extrapolate = extrapolate
        self._over = over
        self._tables: dict[tuple[str, str], Table | None] = {}
        self.refused: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        families = {family for files in FILES.values() for family, *_ in files}
        known = {path.name for family in families for path in self._folder.glob(f"*/{family}/*") if path.is_dir()}
        if backend and backend not in known:
            raise ConfigError(f"no backend {backend!r}", where=str(self._folder), expected=", ".join(sorted(known)))
        if version and not any(self._folder.glob(f"*/*/{backend or '*'}/{version}")):
            raise ConfigError(f"no version {version!r}", where=str(self._folder))

    def answer(self, kernel: Kernel, gpu: Gpu) -> Answer | None:
        """See KernelProvider.answer. Raises ConfigError on a file that cannot be read."""
        key = gpu.name, kernel.kind
        if key not in self._tables:
            rows = list(self.rows(*key))
            table = Table.of(rows, extrapolate=self._extrapolate, over=self._over) if rows else None
            if table is not None:
                table.refused = self.refused
            self._tables[key] = table
        found = self._tables[key]
        if found is None:
            self.refused[f"aiconfigurator measured no {kernel.kind} on {gpu.name}"] += 1
            return None
        return found.answer(kernel, gpu)

    def rows(self, gpu: str, kind: str) -> Iterator[Measured]:
        """Everything measured of a kind on a GPU. Raises ConfigError on a file that cannot be read."""
        for system in self._systems.get(gpu, ()):
            for family, operation, columns, reader in FILES.get(kind, ()):
                path = self._file(self._folder / system / family, f"{operation}_perf.parquet")
                if path is not None:
                    yield from self._measured(path, gpu, columns, reader)

    def _file(self, family: Path, name: str) -> Path | None:
        """The file of the first backend, its newest version that has one (later versions may lack what did not change)."""
        for backend in self._backends:
            found = [path for path in (family / backend).glob(f"*/{name}") if self._version in ("", path.parent.name)]
            if found:
                return max(found, key=lambda path: _order(path.parent.name))
        return None

    def _measured(self, path: Path, gpu: str, columns: tuple[str, ...], reader: Reader) -> Iterator[Measured]:
        for *cells, latency in _read(path, (*columns, "latency")):
            kind, text, shape = reader(tuple(cells))
            dtype = _DTYPES.get(text)
            if dtype is None:
                self.skipped[text or "mixed data types"] += 1
            elif latency > 0:
                yield Measured(gpu, kind, dtype, shape, latency * 1e-3)


def data_folder(folder: str = "") -> Path:
    """``systems/data`` of the installed package, or the folder given. Raises ConfigError."""
    if folder:
        path = Path(folder)
        if not any(path.glob("*/*/*/*/*_perf.parquet")):
            raise ConfigError(
                "holds no measurements", where=folder, expected="<system>/<family>/<backend>/<version>/<op>_perf.parquet"
            )
        return path
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "the package aiconfigurator-core is not installed", fix="Install it: pip install 'distsim[aiconfigurator]'."
        )
    return Path(next(iter(spec.submodule_search_locations))) / "systems" / "data"


def _systems(folder: Path) -> dict[str, list[str]]:
    """GPU -> folders of its measurements; folders of GPUs that are not known here are left out."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        try:
            found.setdefault(gpu_named(path.name).name, []).append(path.name)
        except UnknownNameError:
            continue
    return found


def _order(version: str) -> tuple[tuple[int, int], ...]:
    """Sorts versions; a release candidate comes before its release.

    >>> sorted(["1.3.0rc20", "1.3.0", "1.3.0rc5", "0.24.0"], key=_order)
    ['0.24.0', '1.3.0rc5', '1.3.0rc20', '1.3.0']
    """
    parts = re.findall(r"(rc|post|[a-z]+)?(\d+)", version)
    return (*((-1 if word == "rc" else 1, int(number)) for word, number in parts), (0, 0))


def _read(path: Path, columns: Iterable[str]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigError(f"cannot be read as Parquet: {error}", where=str(path)) from None
    read = []
    for name in columns:
        if name in table.column_names:
            read.append(table[name].to_pylist())
        elif name in _ABSENT:
            read.append([_ABSENT[name]] * table.num_rows)
        else:
            raise ConfigError(f"has no column {name}", where=str(path), expected=", ".join(table.column_names))
    return zip(*read, strict=True)
