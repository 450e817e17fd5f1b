"""The NCCL model: what NCCL chooses for an operation and a size, and how long that takes on idle links.

The choice is NCCL's own (:mod:`selection`). The time is the closed form of :mod:`shape`, times scalars: without a calibration
two per GPU generation, ``latency`` on what is paid inside a node (base and hops) and ``transfer`` on what moves bytes. The
network's latency is known from the fabric and not scaled.

Where NCCL switches to something cheaper only later than it could, a larger message would take less time than a smaller one.
The model then gives the smaller one the time of the larger: time never falls with size. Where it switches to something
dearer, time jumps up, as NCCL's does.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from distsim.errors import CollectiveError
from distsim.nccl.channels import channels, chunk_bytes, slices
from distsim.nccl.plan import Plan
from distsim.nccl.selection import choose
from distsim.nccl.shape import Shape, shape
from distsim.nccl.system import System
from distsim.units import PS_PER_S, PS_PER_US

#: no buffer is larger
LARGEST = 1 << 50
#: sizes per doubling at which the choice is looked up before the switch is narrowed down
_PER_DOUBLING = 4


class Factors(NamedTuple):
    """What multiplies the parts of a shape: base, hops inside nodes, hops between nodes, transfer, ramp."""

    base: float
    intra: float
    inter: float
    transfer: float
    ramp: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Factors of one system, fitted to measurements (``distsim calibrate nccl``).

    Attributes:
        gpu: name in ``gpus.GPUS``. several_nodes: measured across nodes. A calibration says nothing of the other case.
        factors: (algorithm, protocol, factors); what is not listed keeps the defaults of the generation.
    """

    gpu: str
    several_nodes: bool
    factors: tuple[tuple[str, str, Factors], ...]


class Segment(NamedTuple):
    """From ``start`` bytes on NCCL takes this, until the next segment's start."""

    start: int
    algorithm: str
    protocol: str


def default_factors(system: System, algorithm: str) -> Factors:
    """The two scalars of the generation. A tree has its ramp in NCCL's correction table."""
    one = system.generation
    return Factors(one.latency, one.latency, 1.0, one.transfer, 0.0 if algorithm == "tree" else one.transfer)


def factors_of(system: System, algorithm: str, protocol: str, calibration: Calibration | None = None) -> Factors:
    """Calibrated factors where there are any, else the defaults; bytes are as much slower as the system's NVLink is."""
    found = _factors(system, algorithm, protocol, calibration)
    if system.nodes > 1 or system.nvlink == 1.0:
        return found
    return found._replace(transfer=found.transfer / system.nvlink, ramp=found.ramp / system.nvlink)


def _factors(system: System, algorithm: str, protocol: str, calibration: Calibration | None) -> Factors:
    if calibration and calibration.gpu == system.gpu and calibration.several_nodes == (system.nodes > 1):
        for name, wire, factors in calibration.factors:
            if (name, wire) == (algorithm, protocol):
                return factors
    return default_factors(system, algorithm)


@lru_cache(maxsize=4096)
def segments(operation: str, system: System, algorithm: str = "", protocol: str = "") -> tuple[Segment, ...]:
    """NCCL's choice as a function of size: every switch, to the byte.

    Args:
        algorithm, protocol: only these ("" = any), see ``selection.choose``.

    Raises: CollectiveError where NCCL has no such operation, or nothing is left to choose from.
    """

    def taken(size: int) -> tuple[str, str]:
        one = choose(operation, size, system, algorithm, protocol)
        return one.algorithm, one.protocol

    found = [Segment(0, *taken(1))]
    low = 1
    for step in range(1, LARGEST.bit_length() * _PER_DOUBLING):
        high = int(2 ** (step / _PER_DOUBLING))
        while high > low and (there := taken(high)) != found[-1][1:]:
            # the first size in (low, high] with another choice; between two sizes of the scan there is one switch or none
            below, above = low, high
            while above - below > 1:
                middle = (below + above) // 2
                if taken(middle) == found[-1][1:]:
                    below = middle
                else:
                    above = middle
            found.append(Segment(above, *taken(above)))
            low = above
            if found[-1][1:] == there:
                break
        low = max(low, high)
    return tuple(found)


def chosen(operation: str, size: int, system: System) -> Segment:
    """The algorithm and protocol that NCCL takes for a size."""
    known = segments(operation, system)
    return known[bisect_right(known, size, key=lambda one: one.start) - 1]


def _own_us(
    operation: str, at: Segment, size: float, system: System, calibration: Calibration | None
) -> tuple[Shape, Factors, float]:
    one = shape(operation, at.algorithm, at.protocol, size, system)
    factors = factors_of(system, at.algorithm, at.protocol, calibration)
    return one, factors, sum(part * factor for part, factor in zip(one.parts(), factors, strict=True))


@lru_cache(maxsize=4096)
def _later_us(
    operation: str, system: System, calibration: Calibration | None, algorithm: str, protocol: str
) -> tuple[float, ...]:
    """Of every segment, the least time at the start of any that follows."""
    known = segments(operation, system, algorithm, protocol)
    least = [math.inf]
    for at in reversed(known[1:]):
        least.append(min(least[-1], _own_us(operation, at, at.start, system, calibration)[2]))
    return tuple(reversed(least))


def _evaluate(
    operation: str, size: float, system: System, calibration: Calibration | None, algorithm: str, protocol: str
) -> tuple[Segment, Shape, Factors, float, float]:
    """Choice, shape, factors, time in us, and the time before it was bounded by that of larger sizes."""
    known = segments(operation, system, algorithm, protocol)
    place = bisect_right(known, size, key=lambda one: one.start) - 1
    one, factors, own = _own_us(operation, known[place], size, system, calibration)
    later = _later_us(operation, system, calibration, algorithm, protocol)[place]
    return known[place], one, factors, min(own, later), own


def time_us(
    operation: str, size: float, system: System, calibration: Calibration | None = None, algorithm: str = "", protocol: str = ""
) -> float:
    """The closed form, in us: see the module, and :func:`plan` for the arguments."""
    return _evaluate(operation, size, system, calibration, algorithm, protocol)[3]


def plan(
    operation: str, size: int, system: System, calibration: Calibration | None = None, algorithm: str = "", protocol: str = ""
) -> Plan:
    """One collective as NCCL would run it.

    Args:
        operation: of ``selection.OPERATIONS``.
        size: NCCL's nBytes: the whole buffer (all_gather: gathered output; reduce_scatter, all_to_all: full input).
        calibration: factors of a system; not used on any other.
        algorithm, protocol: only these ("" = NCCL chooses).

    Raises: CollectiveError where NCCL has no such operation, nothing is left to choose from, or the size is no size.
    """
    if not 0 <= size <= LARGEST:
        raise CollectiveError(f"a buffer of {size} bytes", where="nccl", expected=f"0 to {LARGEST}")
    at, one, factors, time, own = _evaluate(operation, size, system, calibration, algorithm, protocol)
    # where a larger size bounds the time, all of its parts shrink alike
    scale = time / own * PS_PER_US if own else 0.0
    moving_s = (one.transfer * factors.transfer + one.ramp * factors.ramp) * scale / PS_PER_S
    return Plan(
        operation, at.algorithm, at.protocol, size, system.ranks, system.nodes,
        channels(at.algorithm, at.protocol, size, system),
        chunk_bytes(operation, at.algorithm, at.protocol, size, system),
        slices(operation, at.algorithm, at.protocol),
        round(one.base * factors.base * scale),
        round(one.intra_hop * factors.intra * scale),
        round(one.inter_hop * factors.inter * scale),
        one.moved / moving_s if moving_s else system.rings * system.ring_rate * 1e9,
        (one.node_moved / moving_s if moving_s else system.net_rate * 1e9) if system.nodes > 1 else 0.0,
        round(own * scale),
    )  # fmt: skip
