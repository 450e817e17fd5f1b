"""What each knob is worth: estimates from the recorded run, nothing is simulated (``distsim report --levers``)."""

from __future__ import annotations

from distsim.analysis.whatif.estimate import Recorded
from distsim.analysis.whatif.levers import STEP, levers
from distsim.errors import DistsimError
from distsim.report.html.markup import paragraph, table
from distsim.report.html.section import Section
from distsim.report.whatif import signed
from distsim.result import Result
from distsim.scenario import scenario_of


def section(result: Result) -> Section:
    """Knobs, the one that saves most first; why there are none, where the run cannot be taken up again."""
    try:
        found = levers(Recorded(scenario_of(result.spec), result), check=False)
    except (DistsimError, OSError) as error:
        said = f"Left out, as the run cannot be taken up again: {str(error).splitlines()[0]}"
        return Section("levers", "Levers", paragraph(said, "note"))
    whole = result.makespan or 1
    shares = [round(100 * one.saved / whole, 2) + 0.0 for one in found]  # no -0.00
    rows = [(one.knob.name, one.knob.value, signed(one.saved), f"{share:.2f} %")
            for one, share in zip(found, shares, strict=True)]  # fmt: skip
    keys = [(None, None, one.saved, one.saved) for one in found]
    said = (
        f"Time saved by 10 % more of a knob (of a latency: 10 % less): the slope of the longest recorded path over "
        f"±{100 * STEP:g} %. Estimates; distsim whatif RESULT --levers checks them by simulations."
    )
    head = ("knob", "now", "saved per 10 %", "of all")
    return Section("levers", "Levers", paragraph(said, "note") + table(head, rows, text=2, keys=keys, caption="Knobs"))
