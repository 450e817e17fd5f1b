"""The bounds by running again, beside those to first order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from distsim.analysis.explain.findings import Explanation
from distsim.errors import DistsimError
from distsim.scenario import scenario_of

Progress = Callable[[float | None, str], None]

#: factor by which computation is faster where it is to take no time
_FAST = "1000000x"
#: bound -> knobs of :mod:`distsim.scenario` that make it
_KNOBS = {
    "infinite_network": {"network": "ideal"}, "infinite_compute": {"gpu.compute": _FAST},
    "fastest_communication": {"network": "analytic"},
}  # fmt: skip
#: of a training step: it has no ideal network, and its compute speed is that of arithmetic alone
_OF_TRAINING = ("fastest_communication",)


def resimulated(found: Explanation, progress: Progress | None = None) -> Explanation:
    """Run again for every bound that a run can show; the others stay first-order, and a note says why.

    ``found``: of a whole run, not of a step of it.
    """
    say = progress or (lambda fraction, what: None)
    if found.step:
        return dataclasses.replace(found, notes=(*found.notes, "a step is not run again by itself: bounds are first-order"))
    notes, made = list(found.notes), []
    for bound in found.bounds:
        knobs = _KNOBS.get(bound.name)
        took = None
        if knobs is not None:
            say(None, f"running again: {bound.about}")
            try:
                scenario = scenario_of(found.result.spec)
                if not scenario.trains or bound.name in _OF_TRAINING:
                    took = scenario.changed(knobs).run(progress).makespan
            except (DistsimError, OSError) as error:
                notes.append(f"{bound.name} was not run again: {str(error).splitlines()[0]}")
        made.append(dataclasses.replace(bound, resimulated_ps=took))
    return dataclasses.replace(found, bounds=tuple(made), notes=tuple(notes))
