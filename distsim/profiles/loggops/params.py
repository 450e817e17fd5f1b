"""The parameters of LogGOPS and how they are written: ``loggops:L=2500,o=1500,g=1000,G=6,O=0,S=65535``, ``loggops:preset=ai``.

Sources: Hoefler, Schneider, Lumsdaine, LogGOPSim (LSAP 2010), whose defaults these are; presets as below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from distsim.errors import ConfigError, UnknownNameError
from distsim.params import Latency, Parameters, parse, validated
from distsim.units import PS_PER_NS, parse_size, parse_time

NAME = "loggops"

#: configurations of ATLAHS (spcl/atlahs): ai from demo/ai_nccl/common.sh and scripts/configs/lgs_ai_config.yaml,
#: hpc from scripts/configs/lgs_hpc_config.yaml
PRESETS: Mapping[str, Mapping[str, str]] = {
    "loggopsim": {"L": "2500", "o": "1500", "g": "1000", "G": "6", "O": "0", "S": "65535"},
    "ai": {"L": "3700", "o": "200", "g": "5", "G": "0.04", "O": "0", "S": "0"},
    "hpc": {"L": "3000", "o": "8000", "g": "0", "G": "0.18", "O": "0", "S": "256000"},
}


def _per_byte(text: str) -> str:
    try:
        value = Fraction(text.removesuffix("ns"))
    except (ValueError, ZeroDivisionError):
        raise ValueError("is not a time per byte; expected ns, such as 0.04") from None
    if not 0 <= value <= 10**9 or value.denominator > 10**9:
        raise ValueError("is not a time per byte of at most 1e9 ns, in steps of no less than 1e-9 ns")
    return text


def _size(text: str) -> str:
    try:
        parse_size(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return text


_PerByte = Annotated[str, BeforeValidator(str), AfterValidator(_per_byte)]
_Size = Annotated[str, BeforeValidator(str), AfterValidator(_size)]


class Params(Parameters):
    """LogGOPS, as written: times are text with a unit, or ns."""

    preset: str = Field("loggopsim", description="where what is not said comes from: loggopsim, ai, hpc")
    L: Latency | None = Field(None, description="latency between any two ranks")
    o: Latency | None = Field(None, description="CPU time of every send and every receive")
    g: Latency | None = Field(None, description="time between two messages of a NIC")
    G: _PerByte | None = Field(None, description="ns per byte of a NIC")
    O: _PerByte | None = Field(None, description="ns per byte of a CPU")  # noqa: E741
    S: _Size | None = Field(None, description="bytes: larger messages wait for their receive (rendezvous)")


@dataclass(frozen=True, slots=True)
class LogGOPS:
    """The parameters in ps and bytes. ``spec``: all of them, as text."""

    latency: int  #: L
    overhead: int  #: o
    gap: int  #: g
    gap_per_byte: Fraction  #: G, ps
    overhead_per_byte: Fraction  #: O, ps
    eager: int  #: S: bytes of the largest message that does not wait for its receive
    spec: str


def is_loggops(network: str) -> bool:
    """Whether a network specification asks for this model."""
    return network.partition(":")[0].strip() == NAME


def parameters(spec: str, where: str = "--network") -> LogGOPS:
    """What ``loggops:key=value,...`` says. ConfigError on an unknown key, preset or value."""
    _, options = parse(spec)
    said = validated(Params, f"{where} {NAME}", options)
    if said.preset not in PRESETS:
        raise UnknownNameError("preset", said.preset, PRESETS, where=f"{where} {NAME}")
    text: dict[str, Any] = {key: getattr(said, key) or usual for key, usual in PRESETS[said.preset].items()}
    each = {key: Fraction(text[key].removesuffix("ns")) * PS_PER_NS for key in ("G", "O")}
    full = f"{NAME}:" + ",".join(f"{key}={value}" for key, value in text.items())
    return LogGOPS(
        parse_time(text["L"]), parse_time(text["o"]), parse_time(text["g"]), each["G"], each["O"], parse_size(text["S"]), full
    )  # fmt: skip
