"""The text of a SimAI (AICB) workload: its header, and one line per layer with three passes of compute and communication.

Line 1 is ``POLICY key: value ...``, line 2 the number of layers, then one line a layer in 12 columns::

    name  dependency  fwd_ns FWD_COMM fwd_bytes  ig_ns IG_COMM ig_bytes  wg_ns WG_COMM wg_bytes  process_ns

ig and wg are the gradients of the input and of the weights. Headers differ by generation: the first says no more than
``model_parallel_NPU_group`` and checkpoints (or nothing: ``MICRO``), later ones add ep, pp, vpp, ga and all_gpus, the last
pp_comm. What is not said is 1, or is asked for.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import NamedTuple

from distsim.errors import TraceError
from distsim.trace.graph import CollectiveType

#: policies, and what is said of them in messages; HYBRID_DLRM also goes by DLRM
POLICIES = (
    "HYBRID_TRANSFORMER_FWD_IN_BCKWD", "HYBRID_TRANSFORMER", "MICRO", "DATA", "MODEL", "HYBRID_DLRM", "HYBRID_DLRM_ENHANCED",
    "DISTRIBUTED_INFERENCE",
)  # fmt: skip
_ALIASES = {"DLRM": "HYBRID_DLRM"}
#: text of a collective -> what it does, in order
OPERATIONS = {
    "ALLREDUCE": (CollectiveType.ALL_REDUCE,),
    "ALLGATHER": (CollectiveType.ALL_GATHER,),
    "REDUCESCATTER": (CollectiveType.REDUCE_SCATTER,),
    "ALLTOALL": (CollectiveType.ALL_TO_ALL,),
    "ALLREDUCEALLTOALL": (CollectiveType.ALL_REDUCE, CollectiveType.ALL_TO_ALL),
    "BROADCAST": (CollectiveType.BROADCAST,),
}
SUFFIXES = {"": "", "_EP": "ep", "_DP_EP": "dp_ep"}
_COMMS = {op + suffix: (kinds, group) for op, kinds in OPERATIONS.items() for suffix, group in SUFFIXES.items()}
#: key in a header, in lower case -> field of Header
_KEYS = {
    "model_parallel_npu_group": "tp", "ep": "ep", "expert_parallel_npu_group": "ep", "pp": "pp", "vpp": "vpp", "ga": "ga",
    "all_gpus": "all_gpus", "pp_comm": "pp_comm", "dlrm_last_bottom_layer": "last_bottom",
}  # fmt: skip
_LISTS = {"checkpoints": "checkpoints", "checkpoint_initiates": "initiates"}
_SPELT = (
    "model_parallel_NPU_group:", "ep:", "pp:", "vpp:", "ga:", "all_gpus:", "checkpoints:", "checkpoint_initiates:", "pp_comm:",
    "DLRM_LAST_BOTTOM_LAYER:",
)  # fmt: skip
COLUMNS = (
    "name", "dependency", "fwd_compute", "fwd_comm", "fwd_bytes", "ig_compute", "ig_comm", "ig_bytes", "wg_compute", "wg_comm",
    "wg_bytes", "process",
)  # fmt: skip
_POLICY = re.compile(r"[A-Z][A-Z0-9_]*")
_MOST = 1 << 53  #: ns: 104 days; bytes: 9 PB


class Pass(NamedTuple):
    """One pass through a layer: computation, then a collective."""

    ns: int
    kinds: tuple[CollectiveType, ...]  #: collectives that follow one another; none where the column says NONE or 0 bytes
    group: str  #: "" (what the pass implies), ep or dp_ep
    bytes: int  #: whole size of the collective, as NCCL counts it


class Layer(NamedTuple):
    """A line."""

    name: str
    forward: Pass
    input_grad: Pass
    weight_grad: Pass
    process_ns: int  #: after every collective of the layer

    @property
    def passes(self) -> tuple[Pass, Pass, Pass]:
        """Forward, input gradient, weight gradient."""
        return self.forward, self.input_grad, self.weight_grad


@dataclass(slots=True)
class Header:
    """The first line; None where it does not say."""

    policy: str
    tp: int | None = None
    ep: int | None = None
    pp: int | None = None
    vpp: int | None = None
    ga: int | None = None
    all_gpus: int | None = None
    pp_comm: int | None = None  #: bytes that a rank hands to the next pipeline stage, a micro-batch
    last_bottom: int | None = None
    checkpoints: list[int] = field(default_factory=list)
    initiates: list[int] = field(default_factory=list)  #: layers whose backward pass begins with a recomputation


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload that has been parsed."""

    source: str
    header: Header
    layers: tuple[Layer, ...]
    dependencies: int  #: lines that name a dependency, which SimAI does not use


def recognises(data: bytes) -> bool:
    """Whether these bytes are such a workload, by their first two lines."""
    lines = data[:65536].split(b"\n", 2)
    try:
        words = lines[0].decode().split()
    except UnicodeDecodeError:
        return False
    if not words or not _POLICY.fullmatch(words[0]):
        return False
    counted = len(lines) > 1 and lines[1].strip().isdigit()
    return counted or words[0] in POLICIES or words[0] in _ALIASES or any(w.lower().rstrip(":") in _KEYS for w in words[1:])


def parse(data: bytes, source: str) -> Workload:
    """A workload of its text. TraceError naming line and column."""
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise TraceError(f"is not text ({error})", where=source) from None
    header = _header(lines[0].split(), f"{source}: line 1")
    counted = lines[1].strip() if len(lines) > 1 else ""
    if not re.fullmatch(r"\d{1,9}", counted):
        raise TraceError(f"{counted!r} is not the number of layers", where=f"{source}: line 2", expected="a number")
    told = int(counted)
    rows = [(number, line.split()) for number, line in enumerate(lines[2:], 3) if line.strip()]
    if len(rows) != told:
        raise TraceError(
            f"line 2 promises {told} layers, but {len(rows)} follow", where=source,
            fix="Correct line 2, or copy the file again: it may have been cut short.",
        )  # fmt: skip
    if not rows:
        raise TraceError("has no layers", where=source)
    layers = tuple(_layer(words, f"{source}: line {number}") for number, words in rows)
    _check_layers_named(header, len(layers), source)
    return Workload(source, header, layers, sum(words[1] != "-1" for _, words in rows))


def _header(words: list[str], where: str) -> Header:
    policy = _ALIASES.get(words[0], words[0])
    if policy not in POLICIES:
        near = difflib.get_close_matches(policy, POLICIES, n=3, cutoff=0.5)
        raise TraceError(f"unknown policy {policy!r}", where=where, near=near, expected=f"one of {', '.join(POLICIES)}")
    header = Header(policy)
    rest = iter(words[1:])
    for word in rest:
        key = word.lower().removesuffix(":")
        if key in _LISTS:
            listed = [_number(next(rest, ""), key, where) for _ in range(_number(next(rest, ""), key, where))]
            setattr(header, _LISTS[key], listed)
        elif key in _KEYS:
            value = _number(next(rest, ""), word, where)
            if value < 1 and _KEYS[key] not in ("last_bottom", "pp_comm"):
                raise TraceError(f"{word} {value} is none", where=where, expected="at least 1")
            setattr(header, _KEYS[key], value)
        else:
            near = difflib.get_close_matches(word, _SPELT, n=2, cutoff=0.5)
            raise TraceError(f"unknown key {word!r} in the header", where=where, near=near, expected=", ".join(_SPELT))
    return header


def _number(text: str, what: str, where: str) -> int:
    """A whole number that is not negative. TraceError."""
    if not re.fullmatch(r"\d{1,18}", text) or int(text) > _MOST:
        raise TraceError(f"{what} is {text!r}", where=where, expected=f"a whole number from 0 to {_MOST}")
    return int(text)


def _layer(words: list[str], where: str) -> Layer:
    if len(words) != len(COLUMNS):
        raise TraceError(f"has {len(words)} columns", where=where, expected=f"{len(COLUMNS)}: {' '.join(COLUMNS)}")

    def number(column: int) -> int:
        return _number(words[column], COLUMNS[column], where)

    def one_pass(first: int) -> Pass:
        kinds, group = _comm(words[first + 1], COLUMNS[first + 1], where)
        size = number(first + 2)
        return Pass(number(first), kinds if size else (), group, size)

    if not re.fullmatch(r"-?\d{1,18}", words[1]):
        raise TraceError(f"dependency is {words[1]!r}", where=where, expected="-1, or the number of a layer")
    return Layer(words[0], one_pass(2), one_pass(5), one_pass(8), number(11))


def _comm(text: str, column: str, where: str) -> tuple[tuple[CollectiveType, ...], str]:
    if text == "NONE":
        return (), ""
    found = _COMMS.get(text)
    if found is None:
        near = difflib.get_close_matches(text, [*_COMMS, "NONE"], n=3, cutoff=0.5)
        raise TraceError(
            f"{column} is {text!r}", where=where, near=near,
            expected=f"NONE, or one of {', '.join(OPERATIONS)}, alone or with _EP or _DP_EP",
        )  # fmt: skip
    return found


def _check_layers_named(header: Header, layers: int, source: str) -> None:
    """Layers that the header names must be there."""
    named = [("checkpoints", header.checkpoints), ("checkpoint_initiates", header.initiates)]
    if header.last_bottom is not None:
        named.append(("DLRM_LAST_BOTTOM_LAYER", [header.last_bottom]))
    for key, numbers in named:
        wrong = [number for number in numbers if number >= layers]
        if wrong:
            raise TraceError(
                f"{key} names layer {wrong[0]}, but there are {layers} layers", where=f"{source}: line 1",
                expected=f"0 to {layers - 1}",
            )  # fmt: skip


def micro_batches(layers: tuple[Layer, ...], count: int) -> tuple[int, int] | None:
    """(first layer, layers of one) of ``count`` equal runs of layers that follow one another; None where there are none.

    AICB writes the layers of all micro-batches one after the other, between what belongs to the whole step. The longest such
    run is taken; of equally long ones the first.
    """
    import numpy as np

    number: dict[Layer, int] = {}
    code = np.array([number.setdefault(layer, len(number)) for layer in layers])
    for length in range(len(layers) // count, 0, -1):
        equal = np.concatenate(([0], np.cumsum(code[:-length] == code[length:])))
        span = (count - 1) * length
        first = np.flatnonzero(equal[span:] - equal[: len(equal) - span] == span)
        if len(first):
            return int(first[0]), length
    return None

