"""What rank events do: the speed of every device that one of them touches, and who is lost for good."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from distsim.engine.speed import Speed
from distsim.events.model import Events, RankEvent
from distsim.events.select import ranks
from distsim.kernel.clock import END_OF_TIME
from distsim.units import parse_time


@dataclass(frozen=True, slots=True)
class Loss:
    """A rank that is lost and not replaced."""

    at: int  #: ps
    rank: int


def speeds(events: Events, count: int) -> tuple[dict[int, Speed], list[Loss]]:
    """(speed of each touched rank, losses for good). Slow-downs that overlap multiply. ``count``: ranks of the run.

    Raises ConfigError on a rank that is not there.
    """
    pieces: dict[int, list[tuple[int, int, Fraction | None]]] = {}
    losses = []
    for index, event in enumerate(events.events):
        if not isinstance(event, RankEvent):
            continue
        at = parse_time(event.at)
        for rank in ranks(event.rank, count, events.place(index)):
            if event.slow is not None:
                until = END_OF_TIME if event.until is None else parse_time(event.until)
                # NOTE: the decimal as written: 1.3 is 13/10, so that hand calculations come out even
                pieces.setdefault(rank, []).append((at, until, Fraction(repr(event.slow))))
            elif event.replace_after is not None:
                pieces.setdefault(rank, []).append((at, at + parse_time(event.replace_after), None))
            else:
                losses.append(Loss(at, rank))
    return {rank: _speed(found) for rank, found in pieces.items()}, sorted(losses, key=lambda loss: (loss.at, loss.rank))


def _speed(found: list[tuple[int, int, Fraction | None]]) -> Speed:
    """One function of time from overlapping stretches (from, until, pace)."""
    moments = sorted({0} | {time for at, until, _ in found for time in (at, until) if time < END_OF_TIME})
    made: list[tuple[int, Fraction | None]] = []
    for moment in moments:
        pace: Fraction | None = Fraction(1)
        for at, until, one in found:
            if at <= moment < until:
                pace = None if one is None or pace is None else pace * one
        made.append((moment, pace))
    return Speed(made)
