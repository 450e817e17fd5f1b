"""Fused attention: prefill, decoding, and the backward pass of training, from tiles on SMs with constants per GPU.

Forward kernels come in two kinds: of serving, as they were measured (``serving``: with the passes that embed positions and
write the cache), and of training (``flash2``, ``flash3``, ``cudnn``, or ``training`` for the usual one of the generation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distsim.cost.kernel import WIDTH, Answer, Kernel
from distsim.cost.kernels.attention_model import SCALAR, Machine, Ops, Shape, backward, columns, decode, prefill
from distsim.cost.kernels.attention_parameters import Decode, Prefill, fitted, training
from distsim.hardware.gpu import Gpu
from distsim.params import Parameters
from distsim.registry import register

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SOURCE = "attention"
#: kernels of a backward pass beside the main one: sums over output gradients before, a conversion of query gradients after
BACKWARD_KERNELS = 3
#: least error with a window, or with keys and values of different size: no fit saw them, and on measured kernels of eight GPUs
#: (aiconfigurator-core 0.12.0) the models are off by 4-35 % there
UNSEEN = 0.25
KINDS = ("attention", "attention_backward", "decode_attention")


@dataclass(frozen=True, slots=True)
class _Pass:
    """Constants of one kind of kernel on one GPU, its arithmetic rate over the fitted one, and its usual error."""

    constants: Prefill | Decode
    rate: float
    error: float


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one GPU and data type; source: what answers say."""

    machine: Machine
    source: str
    passes: Mapping[str, _Pass]


@register("kernels", "attention")
class Attention:
    """Serves kernels of the three attention kinds in bf16, fp16 and fp8, on GPUs of a generation that was measured."""

    class Params(Parameters):
        """kernels: ``serving``, ``training`` (the usual one), ``flash2``, ``flash3`` or ``cudnn``."""

        kernels: str = "training"

    def __init__(self, kernels: str = "training") -> None:
        self._kernels = kernels
        self._known: dict[tuple[str, str, float, float], _Known | None] = {}

    def answer(self, kernel: Kernel, gpu: Gpu) -> Answer | None:
        """See KernelProvider.answer. Raises ConfigError on kernels that do not exist."""
        if kernel.kind not in KINDS:
            return None
        known = self._of(gpu, kernel.dtype)
        if known is None:
            return None
        shape = Shape(*kernel.shape)
        seconds = _seconds(kernel.kind, shape, known, SCALAR)
        error = known.passes[kernel.kind].error
        if shape.window or shape.qk_dim != shape.v_dim:
            error = max(error, UNSEEN)
        return Answer(float(seconds), known.source, error)

    def seconds(self, kind: str, shape: Shape, dtype: str, gpu: Gpu) -> NDArray[np.float64] | None:
        """Durations of whole columns of kernels of one kind; None where :meth:`answer` would say None."""
        known = self._of(gpu, dtype) if kind in KINDS else None
        if known is None:
            return None
        durations: NDArray[np.float64] = _seconds(kind, shape, known, columns())
        return durations

    def _of(self, gpu: Gpu, dtype: str) -> _Known | None:
        # NOTE: a GPU from a file may share its name with a shipped one
        key = gpu.name, dtype, gpu.peak.get(dtype, 0.0), gpu.memory_bandwidth
        if key not in self._known:
            self._known[key] = self._learn(gpu, dtype)
        return self._known[key]

    def _learn(self, gpu: Gpu, dtype: str) -> _Known | None:
        trained = training(gpu, "" if self._kernels in ("serving", "training") else self._kernels)
        found = fitted(gpu, dtype)
        if found is None:
            return None
        error = max(trained.error, found.prefill_error)
        forward = _Pass(trained.applied(found.prefill, 1), trained.forward, error)
        if self._kernels == "serving":
            forward = _Pass(found.prefill, 1.0, found.prefill_error)
        passes = {
            "attention": forward,
            "attention_backward": _Pass(trained.applied(found.prefill, BACKWARD_KERNELS), trained.backward, error),
            "decode_attention": _Pass(found.decode, 1.0, found.decode_error),
        }  # fmt: skip
        machine = Machine(gpu.peak[dtype], gpu.memory_bandwidth, gpu.sms, gpu.l2, WIDTH[dtype])
        return _Known(machine, SOURCE if found.own else f"{SOURCE} (as {found.system})", passes)


def _seconds(kind: str, shape: Shape, known: _Known, ops: Ops) -> Any:
    mine = known.passes[kind]
    if isinstance(mine.constants, Decode):
        return decode(shape, known.machine, mine.constants, ops)
    if kind == "attention":
        return prefill(shape, known.machine, mine.constants, ops, rate=mine.rate)
    return backward(shape, known.machine, mine.constants, ops, rate=mine.rate)
