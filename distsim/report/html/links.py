"""How busy links are, on the drawn topology (as ``distsim topo --draw`` draws it): colour is utilisation.

Of a large topology the drawing shows blocks and bundles of cables; a bundle is as busy as its busiest link.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distsim.analysis.links import busiest
from distsim.analysis.summary import Summary
from distsim.report.html.columns import packed, packed_json
from distsim.report.html.markup import paragraph, table
from distsim.report.html.section import Section
from distsim.result import Result
from distsim.topology.draw import picture
from distsim.topology.picture import WIDTH, Picture
from distsim.units import format_size, format_time

_BUSIEST = 40  #: links in the table


def section(result: Result, summary: Summary) -> Section | None:
    """The drawing and its tables; None for networks without links, and where communication took its recorded times."""
    if not result.topology.links:
        return None
    used = int(np.count_nonzero(result.links.bytes))
    if not used and not result.links.busy.any():
        if result.spec.get("communication") == "recorded":
            return None
        said = f"No link of {result.topology.spec} carried anything."
        return Section("links", "Links", paragraph(said, "note"))
    drawn = picture(result.topology)
    html = [
        paragraph(f"{drawn.title}. {used:,} of {result.topology.links:,} directed links carried anything. "
                  "Utilisation is the time that a link sends, of the step.", "note"),
    ]  # fmt: skip
    if any(domain.max > 1 for domain in summary.domains):
        said = "Over 100 %: this network level has no contention, links are asked for more than they have."
        html.append(paragraph(said, "note"))
    html.append('<div class="topology" id="links-view"></div>')
    head = ("domain", "links", "used", "mean", "busiest", "bytes")
    rows = [
        (d.domain, f"{d.links:,}", f"{d.used:,}", _percent(d.mean), _percent(d.max), format_size(d.bytes))
        for d in summary.domains
    ]
    keys = [(None, d.links, d.used, d.mean, d.max, d.bytes) for d in summary.domains]
    html.append(table(head, rows, keys=keys, caption="By domain"))
    top = busiest(result, _BUSIEST)
    if top:
        html.append(table(
            ("busiest links", "domain", "busy", "for", "bytes"),
            [
                (one.name, one.domain, _percent(one.utilisation), format_time(one.busy_ps), format_size(one.bytes))
                for one in top
            ], text=2, keys=[(None, None, one.utilisation, one.busy_ps, one.bytes) for one in top],
            links=[{"curve": int(drawn.link_curve[one.link])} for one in top], caption="The busiest links",
        ))  # fmt: skip
    return Section("links", "Links", "\n".join(html), columns(result, drawn), ("links.js",))


def columns(result: Result, drawn: Picture) -> dict[str, Any]:
    """The drawing, and per curve what its links carried."""
    topology, links = result.topology, result.links
    whole = max(1, result.makespan)
    curves = np.concatenate([np.zeros((0, 6)), *drawn.cables])
    shown = np.flatnonzero(drawn.link_curve >= 0)
    curve = drawn.link_curve[shown]
    busy, carried, count = (np.zeros(len(curves), np.int64) for _ in range(3))
    np.maximum.at(busy, curve, links.busy[shown])
    np.add.at(carried, curve, links.bytes[shown])
    np.add.at(count, curve, 1)
    mean = np.bincount(curve, links.busy[shown] / whole, len(curves)) / np.maximum(count, 1)
    # the busiest link of each curve, of equals the lowest
    order = np.lexsort((-shown, links.busy[shown], curve))
    top = np.full(len(curves), -1, np.int64)
    top[curve[order]] = shown[order]
    names = [topology.link_name(link) if link >= 0 else "" for link in top.tolist()]
    return {
        "width": WIDTH, "radius": drawn.radius, "hosts": drawn.hosts, 
        "domains": list(topology.domains), "widths": list(drawn.widths),
        "curves": packed(curves.round(1).astype(np.float32).reshape(-1)),
        "domain": packed(np.repeat(np.arange(len(drawn.cables)), [len(cable) for cable in drawn.cables]).astype(np.uint8)),
        "busy": packed((busy / whole).astype(np.float32)), "mean": packed(mean.astype(np.float32)), "bytes": packed(carried),
        "count": packed(count), "names": packed_json(names), "nodes": packed_json(list(drawn.names)),
        "points": packed(drawn.points.round(1).astype(np.float32).reshape(-1)),
        "labels": [[label.text, round(label.x, 1), round(label.y, 1)] for label in drawn.labels],
        "boxes": _boxes(result, drawn),
    }  # fmt: skip


def _boxes(result: Result, drawn: Picture) -> list[dict[str, Any]]:
    """Blocks of nodes, with the use of the links inside them, by domain."""
    topology, links, whole = result.topology, result.links, max(1, result.makespan)
    found = []
    for number, box in enumerate(drawn.boxes):
        mine = np.flatnonzero(drawn.link_box == number)
        inside = []
        for domain in np.unique(topology.link_domain[mine]).tolist():
            share = links.busy[mine[topology.link_domain[mine] == domain]] / whole
            inside.append([topology.domains[domain], float(share.mean()), float(share.max())])
        place = [round(value, 1) for value in (box.x, box.y, box.width, box.height)]
        found.append({"place": place, "dashed": box.dashed, "name": box.name, "inside": inside})
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
