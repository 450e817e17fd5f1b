"""What a sweep found, in a notebook: the best point, the Pareto front (else all points), and why points were refused."""

from __future__ import annotations

from distsim.registry import register
from distsim.report.notebook.fragment import fragment, notes, rows
from distsim.sweep.findings import Findings
from distsim.sweep.shown import answer, said, titled

#: points listed; ``rows`` holds all
_ROWS = 12


@register("notebook", "sweep")
def html(found: Findings) -> str:
    """``Findings._repr_html_``."""
    places = found.front or list(range(len(found.rows)))
    names = ("point", *found.varied, *found.objectives)
    listed = [[said(name, found.rows[at].get(name)) for name in names] for at in places[:_ROWS]]
    what = "Pareto front" if found.front else "points"
    more = f"{what}: {len(places):,} points, {len(listed)} of them listed" if len(places) > len(listed) else ""
    refused = [f"{one.count:,} points refused: {one.reason}" for one in found.refused]
    failed = [f"{found.failed:,} points failed"] if found.failed else []
    return fragment(
        answer(found), rows([titled(name) for name in names], listed, text=0), notes([more] if more else [], mark=""),
        notes([*failed, *refused]),
    )  # fmt: skip
