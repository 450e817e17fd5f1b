"""What was odd in captures and how it was mended, counted; the same oddity of many ranks is told once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distsim.trace.defect import Defect
from distsim.units import format_time


@dataclass(frozen=True, slots=True)
class Oddity:
    """``count`` times ``one`` (or ``many``) ``rest``: "3 kernels without their launch: ...". ``ps``: time that it is about."""

    one: str
    many: str
    rest: str
    count: int
    ps: int = 0


def defects_of(found: Sequence[tuple[str, Sequence[Oddity]]]) -> list[Defect]:
    """Oddities of several files (label, what was odd) as defects, all of them repaired: one for each kind, with its total."""
    alike: dict[tuple[str, str], list[tuple[str, Oddity]]] = {}
    for label, oddities in found:
        for oddity in oddities:
            if oddity.count:
                alike.setdefault((oddity.one, oddity.rest), []).append((label, oddity))
    defects = []
    for (one, rest), places in alike.items():
        count, ps = sum(oddity.count for _, oddity in places), sum(oddity.ps for _, oddity in places)
        what = f"{count:,} {one if count == 1 else places[0][1].many} {rest}"
        what += f", {format_time(ps)} in all" if ps else ""
        what += f" (in {len(places)} of {len(found)} files)" if len(places) > 1 else ""
        defects.append(Defect("capture", what, places[0][0], severity="warning", repaired=True))
    return defects
