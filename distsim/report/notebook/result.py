"""A run in a notebook: the answer, what the step is made of, the communication that holds it up most, and the warnings."""

from __future__ import annotations

from distsim.analysis.breakdown import PARTS
from distsim.analysis.summary import summarise
from distsim.registry import register
from distsim.report.answer import SAID, answer, percentages
from distsim.report.notebook.fragment import bar, fragment, notes, rows
from distsim.result import Result
from distsim.units import format_size, format_time

#: operations listed; spans_table() and the report hold all
_ROWS = 6


@register("notebook", "result")
def html(result: Result) -> str:
    """``Result._repr_html_``."""
    summary = summarise(result)
    average = summary.breakdown.average()
    whole = percentages([average[part] for part in PARTS])
    shares = [(SAID[part], average[part], f"{percent} %") for part, percent in zip(PARTS, whole, strict=True)]
    listed = [
        (
            " ".join(filter(None, (one.group, one.operation))), f"{one.count:,}", format_size(one.bytes),
            format_time(one.time_ps), format_time(one.exposed_ps), format_time(one.waiting_ps),
        )
        for one in summary.traffic[:_ROWS]
    ]  # fmt: skip
    return fragment(
        answer(result, summary), bar(shares),
        rows(("communication", "count", "bytes", "time", "exposed", "waiting"), listed),
        notes(result.warnings),
        notes((*result.provenance.get("inferred", ()), f"network: {result.topology.spec}"), mark=""),
    )  # fmt: skip
