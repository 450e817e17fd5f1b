"""Levers: what each knob is worth, from the recorded run, checked against finite differences of the simulation itself.

The sensitivity of a knob is d makespan / d ln(knob): the slope of the longest path through the recorded run (estimate.py)
between the knob divided and multiplied by 1 + STEP. The check simulates both sides anew and takes the slope of the makespans.
The first runs no tasks (it asks the network about communications that met), the second never looks at the recorded run, so that
their agreement says something.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distsim.analysis.underway import is_kind
from distsim.analysis.whatif.estimate import Recorded
from distsim.analysis.whatif.outcome import reordered
from distsim.cost.speeds import starts_of
from distsim.result import Result
from distsim.scenario import Knob
from distsim.units import format_time

Progress = Callable[[float | None, str], None]

STEP = 0.01
#: sensitivities that differ by more than this are flagged
TOLERANCE = 0.02
#: part of the makespan per doubling (roughly) below which a knob does nothing to speak of: rounding to ps is of this order
NOTHING = 1e-6
#: ranks of the longest path that are tried as levers of their own: those that compute longest on it
_RANKS = 3
#: what a rank has of its own -> kind of its spans
_OF_RANKS = {"compute": "compute", "host": "host", "start": "delay"}


@dataclass(frozen=True, slots=True)
class Slope:
    """d makespan / d ln(knob) in ps: towards less of the knob, towards more, and between the two."""

    less: float
    more: float

    @property
    def middle(self) -> float:
        return (self.less + self.more) / 2

    @property
    def kinked(self) -> bool:
        """The two sides differ: the makespan bends here, as another path becomes the longest."""
        return abs(self.less - self.more) > TOLERANCE * max(abs(self.less), abs(self.more))


@dataclass(frozen=True, slots=True)
class Lever:
    """A knob and what it is worth. ``checked``: the slope of re-simulations, where they were made."""

    knob: Knob
    slope: Slope
    checked: Slope | None = None
    reason: str = ""  #: why the two disagree

    @property
    def saved(self) -> float:
        """ps saved per 10 % more of the knob (a latency: per 10 % less), to first order."""
        return self._towards(self.slope, better=True)

    @property
    def lost(self) -> float:
        """ps lost per 10 % less of the knob (a latency: per 10 % more), to first order; as much as saved, but for a kink."""
        return self._towards(self.slope, better=False)

    @property
    def simulated(self) -> float | None:
        """What is ``saved`` by the re-simulations, where they were made."""
        return None if self.checked is None else self._towards(self.checked, better=True)

    def _towards(self, slope: Slope, better: bool) -> float:
        delay = self.knob.name.endswith((".latency", ".start"))
        return 0.1 * ((slope.less if better else slope.more) if delay else -(slope.more if better else slope.less)) + 0.0

    @property
    def error(self) -> float | None:
        """Sensitivity over finite difference, less 1; None where there is none, or both are nothing."""
        if self.checked is None or not self.checked.middle:
            return None
        return self.slope.middle / self.checked.middle - 1


def lever_knobs(recorded: Recorded) -> list[Knob]:
    """Every continuous knob, and those of the ranks that compute longest on the recorded path, on GPU or host, or are held."""
    found = recorded.scenario.knobs()
    own = {one.name: one for one in found if one.name.startswith("rank.")}
    knobs = [one for one in found if one.continuous and one.name not in own]
    if recorded.result.representative is not None or not own:
        return knobs
    spans, path = recorded.result.spans(), recorded.path
    held = {} if recorded.scenario.trains else starts_of(recorded.scenario.trace)
    for what, kind in _OF_RANKS.items():
        mine = is_kind(spans, kind)[path.rows]
        if what == "start":  # what holds a rank begins with the run
            mine &= (spans.start[path.rows] == 0) & np.isin(spans.rank[path.rows], list(held))
        times = np.bincount(spans.rank[path.rows][mine], path.spent[mine], recorded.result.ranks)
        any_rank = own.get(f"rank.N.{what}")
        for rank in np.argsort(-times, kind="stable")[:_RANKS].tolist():
            name = f"rank.{rank}.{what}"
            knob = own.get(name) or (any_rank and dataclasses.replace(any_rank, name=name, continuous=True))
            if times[rank] > 0 and knob:
                now = format_time(held[rank]) if knob is not own.get(name) and what == "start" else knob.value
                knobs.append(dataclasses.replace(knob, value=now))
    return knobs


def sensitivity(recorded: Recorded, name: str, step: float = STEP) -> Slope | None:
    """The slope of the longest path through the recorded run; None where the run tells nothing of the knob."""
    sides = []
    for factor in (1 / (1 + step), 1 + step):
        estimate = recorded.estimate(recorded.scenario.changed({name: f"{factor!r}x"}))
        if estimate.path is None:
            return None
        sides.append(estimate.path.makespan)
    return _slope(sides[0], recorded.path.makespan, sides[1], step)


def finite_difference(recorded: Recorded, name: str, step: float = STEP) -> tuple[Slope, tuple[Result, Result]]:
    """The slope of simulations on both sides, and their results."""
    less, more = (
        recorded.scenario.changed({name: f"{factor!r}x"}).run() for factor in (1 / (1 + step), 1 + step)
    )  # fmt: skip
    return _slope(float(less.makespan), float(recorded.result.makespan), float(more.makespan), step), (less, more)


def _slope(less: float, here: float, more: float, step: float) -> Slope:
    width = math.log1p(step)
    return Slope((here - less) / width, (more - here) / width)


def agree(slope: Slope, checked: Slope, makespan: float) -> bool:
    """Within TOLERANCE of the finite difference, or both nothing."""
    nothing = NOTHING * makespan
    return abs(slope.middle - checked.middle) <= max(TOLERANCE * abs(checked.middle), nothing)


def levers(recorded: Recorded, check: bool = True, progress: Progress | None = None) -> tuple[Lever, ...]:
    """All knobs, the one that saves most first. Raises as a run would."""
    say = progress or (lambda fraction, what: None)
    found = []
    knobs = lever_knobs(recorded)
    for number, knob in enumerate(knobs):
        say(number / len(knobs), f"trying {knob.name}")
        slope = sensitivity(recorded, knob.name)
        if slope is None:
            continue
        lever = Lever(knob, slope)
        if check:
            checked, sides = finite_difference(recorded, knob.name)
            fine = agree(slope, checked, recorded.path.makespan)
            lever = Lever(knob, slope, checked, "" if fine else _why(recorded, slope, checked, sides))
        found.append(lever)
    return tuple(sorted(found, key=lambda one: (-one.saved, one.knob.name)))


def _why(recorded: Recorded, slope: Slope, checked: Slope, sides: tuple[Result, Result]) -> str:
    """Why the recorded run tells another slope than simulations."""
    if any(reordered(recorded.result, one) for one in sides):
        return "streams take their tasks in another order"
    if slope.kinked or checked.kinked:
        return "kink: another path becomes the longest"
    if recorded.contended() > 0:
        return "contention: communication on the path shares its links"
    return "communications meet at other instants"
