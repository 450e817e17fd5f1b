"""All findings that reports are made of, computed once."""

from __future__ import annotations

from dataclasses import dataclass

from distsim.analysis.breakdown import Breakdown, breakdown
from distsim.analysis.communication import Traffic, traffic
from distsim.analysis.critical import CriticalPath, critical_path
from distsim.analysis.links import DomainUse, LinkUse, busiest, domains
from distsim.analysis.underway import UnderWay, under_way
from distsim.result import Result


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """Findings of one run."""

    moving: UnderWay
    breakdown: Breakdown
    traffic: tuple[Traffic, ...]
    links: tuple[LinkUse, ...]
    domains: tuple[DomainUse, ...]
    critical: CriticalPath
    slowest: int | None  #: the rank that ends last, of equals the lowest; None where there are no ranks
    fastest: int | None


def summarise(result: Result, links: int = 10) -> Summary:
    """Everything; ``links``: how many of the busiest."""
    moving = under_way(result)
    split = breakdown(result, moving)
    ends = result.finish
    return Summary(
        moving, split, traffic(result, split), busiest(result, links), domains(result), critical_path(result, moving),
        int(ends.argmax()) if len(ends) else None, int(ends.argmin()) if len(ends) else None,
    )  # fmt: skip
