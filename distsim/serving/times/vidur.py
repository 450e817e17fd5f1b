"""Iteration times from Vidur's operator tables: the durations that Vidur used itself, added up in its order.

A table is an ``.npz`` of milliseconds per layer: 1-D ``op[tokens]``, ``attn_decode[sequences, kv bucket]`` and
``attn_prefill[kv bucket, chunk]``; the buckets are the grids ``attn_decode_kv`` and ``attn_prefill_kv`` (64 tokens).

- Matrices, norms and communication are looked up at the tokens of the batch rounded up to 8, saving to the KV cache at the
  exact number.
- Sequences that generate count as so many of the mean length; Vidur's length of a sequence includes the token that is fed in.
- Prefill chunks count as one: of the length ``sqrt(sum of squares)``, over the sum of what they have in cache, each rounded up.
- With grouped-query attention, more than one sequence (or chunk) costs 1.1 times the table.
- Tensor parallelism adds two all-reduces per layer: table + 0.02 ms (+ a skew per device, which is 0 by default).
- Every pipeline stage but the last adds a send. Embedding, head, sampling and CPU take no time.

Source: Agrawal et al., "Vidur: a large-scale simulation framework for LLM inference" (MLSys 2024), its defaults. Float64 in
this order gives its times bit for bit; then they are rounded to picoseconds. Nothing is extrapolated: what the table does not
hold is refused.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distsim.errors import ConfigError
from distsim.params import Parameters
from distsim.registry import register
from distsim.serving.iteration import Shape
from distsim.units import PS_PER_S

#: nccl_cpu_launch_overhead_ms of Vidur
_LAUNCH_MS = 0.02
#: attention_decode_batching_overhead_fraction and attention_prefill_batching_overhead_fraction of Vidur
_BATCHING = 0.1
#: Vidur looks linear layers up at multiples of so many tokens
_ROUND = 8
_OPS = (
    "attn_pre_proj", "attn_post_proj", "attn_rope", "attn_kv_cache_save", "input_layernorm", "mlp_up_proj", "mlp_down_proj",
    "mlp_act", "post_attention_layernorm", "add",
)  # fmt: skip

Floats = NDArray[np.float64]


class _Table:
    """The arrays of a file, checked."""

    def __init__(self, file: str, *, tp: int, pp: int) -> None:
        try:
            with np.load(file, allow_pickle=False) as found:
                self.arrays: dict[str, Floats] = {name: np.asarray(found[name], np.float64) for name in found.files}
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise ConfigError(f"is no table of durations: {error}", where=file, expected="an .npz of arrays") from None
        self.file = file
        wanted = [*_OPS, *["all_reduce"] * (tp > 1), *["send_recv"] * (pp > 1)]
        self.most = min((len(self.op(name)) for name in wanted), default=1) - 1
        self.decode, self.decode_step = self.attention("attn_decode", axis=1)
        self.prefill, self.prefill_step = self.attention("attn_prefill", axis=0)

    def op(self, name: str) -> Floats:
        """ms by tokens. Raises ConfigError where it is not there."""
        if name not in self.arrays or self.arrays[name].ndim != 1:
            raise ConfigError(
                f"has no durations of {name!r} by tokens", where=self.file, expected=f"one of {', '.join(sorted(self.arrays))}",
                fix="Tables are made for a tensor and pipeline parallelism: take the file of the deployment's.",
            )  # fmt: skip
        return self.arrays[name]

    def attention(self, name: str, axis: int) -> tuple[Floats, int]:
        """ms in two dimensions, and tokens of a bucket."""
        found, grid = self.arrays.get(name), self.arrays.get(f"{name}_kv")
        if found is None or grid is None or found.ndim != 2 or grid.shape != found.shape[axis : axis + 1] or len(grid) < 2:
            raise ConfigError(f"has no durations of {name!r} over a grid {name}_kv", where=self.file)
        step = int(grid[1] - grid[0])
        if step < 1 or not np.array_equal(grid, np.arange(len(grid)) * step):
            raise ConfigError(f"the grid {name}_kv is not 0, n, 2n ...", where=self.file)
        return found, step


class _Sums:
    """Lists by tokens, ms per layer. before: what attention adds up before attention itself; reduce, norm: after it; mlp; add:
    the residuals. send: ms to the next stage.

    NOTE: every sum runs from left to right as Vidur's does, or its last bit differs.
    """

    __slots__ = ("add", "before", "mlp", "norm", "reduce", "send")

    def __init__(self, table: _Table, *, tp: int, pp: int) -> None:
        op = table.op
        tokens = np.arange(table.most // _ROUND * _ROUND + 1)
        rounded = (tokens + _ROUND - 1) // _ROUND * _ROUND
        before = op("attn_pre_proj")[rounded] + op("attn_post_proj")[rounded] + op("attn_rope")[rounded]
        reduce = op("all_reduce")[rounded] + _LAUNCH_MS if tp > 1 else np.zeros(len(tokens))
        mlp = op("mlp_up_proj")[rounded] + op("mlp_down_proj")[rounded] + op("mlp_act")[rounded] + reduce
        self.before: list[float] = (before + op("attn_kv_cache_save")[tokens]).tolist()
        self.reduce: list[float] = reduce.tolist()
        self.norm: list[float] = op("input_layernorm")[rounded].tolist()
        self.mlp: list[float] = (mlp + op("post_attention_layernorm")[rounded]).tolist()
        self.add: list[float] = op("add")[rounded].tolist()
        self.send: list[float] = op("send_recv")[rounded].tolist() if pp > 1 else []


@register("iteration", "vidur")
class VidurTimes:
    """See the module. One table file holds one model on one device at one tensor and pipeline parallelism."""

    class Params(Parameters):
        """Options of ``vidur:...``."""

        file: str = Field(examples=["table.npz"], description="table of operator durations, .npz")
        layers: int = Field(ge=1, examples=[32], description="of the whole model")
        gqa: bool = Field(False, description="fewer KV heads than heads")
        pp: int = Field(1, ge=1, description="pipeline stages; they must divide the layers")
        tp: int = Field(1, ge=1, description="tensor-parallel devices")

    def __init__(self, file: str, layers: int, gqa: bool = False, pp: int = 1, tp: int = 1) -> None:
        """Raises ConfigError where the table lacks what the deployment needs, or the stages do not divide the layers."""
        if layers % pp:
            raise ConfigError(f"pp={pp} does not divide {layers} layers", where="vidur", expected="stages of equal length")
        self.stages = pp
        self._layers = layers // pp
        self._table = _Table(file, tp=tp, pp=pp)
        self._batching = 1 + _BATCHING if gqa else 1.0
        self._sums = _Sums(self._table, tp=tp, pp=pp)
        self._steady: dict[tuple[int, int], tuple[int, ...]] = {}

    def times(self, shape: Shape) -> tuple[int, ...]:
        """See IterationTimes. Raises ConfigError where the table does not hold the shape."""
        if not shape.prefills and shape.width == 1:
            return self._generating(shape.sequences, self._bucket(shape.sequences, shape.kv))
        table, step = self._table, self._table.prefill_step
        tokens, cached, squares = shape.sequences * shape.width, 0, 0
        for new, kv in shape.prefills:
            tokens += new
            cached += -(-kv // step)
            squares += new * new
        chunk = round(squares**0.5)
        prefill = _look(table.prefill, cached, chunk) if shape.prefills else 0.0
        if math.isnan(prefill):
            raise self._beyond(f"attn_prefill of a chunk of {chunk} over {cached * step} tokens in cache")
        if len(shape.prefills) > 1:
            prefill *= self._batching
        return self._stages(tokens, self._decode(shape.sequences, self._bucket(shape.sequences, shape.kv)), prefill)

    def steady(self, sequences: int, kv: int, longest: int) -> tuple[int, int]:
        """See IterationTimes: until the mean length passes a bucket of the table."""
        mean = kv // sequences + 1
        step = self._table.decode_step
        bucket = -(-mean // step)
        found = self._steady.get((sequences, bucket))
        if found is None:
            found = self._generating(sequences, bucket)
        return found[0], bucket * step - mean + 1

    def _bucket(self, sequences: int, kv: int) -> int:
        """Of the mean length, the token that is fed in included."""
        return -(-(kv // sequences + 1) // self._table.decode_step) if sequences else 0

    def _generating(self, sequences: int, bucket: int) -> tuple[int, ...]:
        """ps of the stages where nobody prefills."""
        found = self._steady.get((sequences, bucket))
        if found is None:
            found = self._stages(sequences, self._decode(sequences, bucket), 0.0)
            self._steady[sequences, bucket] = found
        return found

    def _decode(self, sequences: int, bucket: int) -> float:
        if not sequences:
            return 0.0
        found = _look(self._table.decode, sequences, bucket)
        if math.isnan(found):
            raise self._beyond(f"attn_decode of {sequences} sequences of {bucket * self._table.decode_step} tokens")
        return found * self._batching if sequences > 1 else found

    def _stages(self, tokens: int, decode: float, prefill: float) -> tuple[int, ...]:
        """ps of the stages."""
        sums = self._sums
        if tokens >= len(sums.before):
            raise self._beyond(f"a batch of {tokens} tokens, it ends at {len(sums.before) - 1}")
        attention = sums.before[tokens] + decode + prefill + sums.reduce[tokens] + sums.norm[tokens]
        ms = (attention + sums.mlp[tokens] + sums.add[tokens]) * self._layers
        if math.isnan(ms):
            raise self._beyond(f"a batch of {tokens} tokens")
        last = round(ms * 1e-3 * PS_PER_S)
        if self.stages == 1:
            return (last,)
        return (round((ms + sums.send[tokens]) * 1e-3 * PS_PER_S),) * (self.stages - 1) + (last,)

    def _beyond(self, what: str) -> ConfigError:
        return ConfigError(
            f"the table does not hold {what}", where=Path(self._table.file).name,
            fix="Lower the batch cap or the tokens per batch, or make a larger table; nothing is extrapolated.",
        )  # fmt: skip


def _look(array: Floats, row: int, column: int) -> float:
    """An entry, nan beyond the edges."""
    rows, columns = array.shape
    return float(array[row, column]) if row < rows and column < columns else math.nan
