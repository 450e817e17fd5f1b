"""Where the bytes went: the busiest links, and every link domain (nvlink, rail, spine ...)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distsim.result import Result


@dataclass(frozen=True, slots=True)
class LinkUse:
    """One directed link."""

    link: int
    name: str  #: ``gpu3->leaf0``
    domain: str
    bytes: int
    busy_ps: int
    utilisation: float  #: busy time / makespan, 0 .. 1


@dataclass(frozen=True, slots=True)
class DomainUse:
    """All directed links of one domain."""

    domain: str
    links: int
    used: int  #: links that carried anything
    bytes: int  #: a byte counts on every link it crosses
    mean: float  #: mean utilisation
    max: float  #: utilisation of the busiest


def busiest(result: Result, count: int = 10) -> tuple[LinkUse, ...]:
    """The links that were busy longest, longest first, of equals the lower number; none that carried nothing."""
    topology, links = result.topology, result.links
    order = np.lexsort((np.arange(len(links.busy)), -links.bytes, -links.busy))[:count]
    return tuple(
        LinkUse(
            link, topology.link_name(link), topology.domains[topology.link_domain[link]], int(links.bytes[link]),
            int(links.busy[link]), _share(int(links.busy[link]), result.makespan),
        )
        for link in order.tolist()
        if links.bytes[link] or links.busy[link]
    )  # fmt: skip


def domains(result: Result) -> tuple[DomainUse, ...]:
    """Every domain of the topology, in its order."""
    topology, links = result.topology, result.links
    found = []
    for number, name in enumerate(topology.domains):
        rows = topology.link_domain == number
        busy = links.busy[rows]
        if len(busy):
            found.append(
                DomainUse(
                    name, len(busy), int(np.count_nonzero(links.bytes[rows])), int(links.bytes[rows].sum()),
                    _share(int(busy.sum()), result.makespan * len(busy)), _share(int(busy.max()), result.makespan),
                )
            )  # fmt: skip
    return tuple(found)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
