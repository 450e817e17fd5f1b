"""What timed events (links that fail, ranks that slow down) did to a run."""

from __future__ import annotations

from distsim.report.events import told_of_events
from distsim.report.html.markup import escape, paragraph
from distsim.report.html.section import Section
from distsim.result import Result


def section(result: Result) -> Section | None:
    """What they cost, and each; None where there were none."""
    told = told_of_events(result)
    if not told:
        return None
    items = "".join(f"<li>{escape(line.strip())}</li>" for line in told[1:])
    return Section("events", "Events", paragraph(told[0]) + (f"<ul>{items}</ul>" if items else ""))
