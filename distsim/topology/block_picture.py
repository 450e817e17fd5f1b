"""The drawing of a large topology: a box per block of like nodes with its members inside, tiers in rows, cables in bundles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from distsim.topology.blocks import Block, Blocks, aggregate
from distsim.topology.graph import Topology
from distsim.topology.metrics import count, domain_links, size_of
from distsim.topology.picture import BAND, FONT, MARGIN, WIDTH, Box, Label, Picture, text_width
from distsim.units import format_bandwidth

WIDEST = 250.0  #: a box
GAP = 14.0  #: between boxes of a row
BETWEEN = 96.0  #: rows
LINE = FONT + 4
ACROSS, DOWN = 16, 4  #: members drawn in a box, at most; how many there are is written there
RADIUS = 3.2
STEP = 3.2 * RADIUS  #: from glyph to glyph
PLURAL = {"leaf": "leaves", "switch": "switches"}
MOST_LABELS = 6  #: bundles of a domain that are labelled each


def block_picture(topology: Topology, legend: Sequence[str]) -> Picture:
    """The drawing of the blocks; ``legend`` has a text per domain."""
    seen = aggregate(topology)
    tiers = sorted({block.tier for block in seen.blocks}, reverse=True)
    texts = [_texts(topology, block) for block in seen.blocks]
    order = _order(seen)
    boxes: dict[int, Box] = {}
    y = MARGIN + BAND + 8.0
    if any(seen.blocks[low].tier == seen.blocks[high].tier == tiers[0] for low, high, _ in seen.cables):
        y += 40.0  # room for the bundles inside the highest tier
    for tier in tiers:
        row = order[tier]
        room = (WIDTH - 2 * MARGIN) / len(row)
        width = min(room - GAP, WIDEST)
        inner = max(_grid(seen.blocks[n], width)[1] for n in row) * STEP
        height = inner + LINE * max(len(texts[n]) for n in row) + 16
        for place, n in enumerate(row):
            x = MARGIN + (place + 0.5) * room - width / 2
            boxes[n] = Box(x, y, width, height, seen.blocks[n].stands_for > 1, ", ".join(text[0] for text in texts[n]))
        y += height + BETWEEN
    points: list[NDArray[np.float64]] = []
    names: list[str] = []
    labels: list[Label] = []
    hosts = 0
    # NOTE: hosts first, as every picture has them
    for n in sorted(boxes, key=lambda n: seen.blocks[n].tier):
        block, box = seen.blocks[n], boxes[n]
        glyphs = _glyphs(block, box, len(texts[n]))
        points.append(glyphs)
        hosts += 0 if block.tier else len(glyphs)
        names += [_named(topology, member) for member in block.members[: len(glyphs)]]
        for line, wordings in enumerate(texts[n]):
            if (text := _fitting(wordings, box.width - 6)) is not None:
                labels.append(Label(text, box.x + box.width / 2, box.y + 8 + LINE * (line + 0.5)))
    curves, more = _bundles(topology, seen, boxes)
    link_curve, link_box = _of_links(topology, seen)
    return Picture(
        title=f"{topology.name}: {size_of(topology)}",
        height=y - BETWEEN + MARGIN + BAND,
        hosts=hosts,
        names=tuple(names),
        points=np.concatenate(points),
        radius=RADIUS,
        cables=curves,
        widths=(2.0,) * len(curves),
        labels=(*labels, *more),
        legend=tuple(legend),
        boxes=tuple(boxes[n] for n in sorted(boxes)),
        link_curve=link_curve,
        link_box=link_box,
    )


def _of_links(topology: Topology, seen: Blocks) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per link: the bundle that shows it, counted through all domains, and the box that it lies in; -1 for none."""
    block_of = np.full(topology.nodes, -1, np.int64)
    for number, block in enumerate(seen.blocks):
        for member in block.members:
            block_of[list(member)] = number
    one, other = block_of[topology.link_src], block_of[topology.link_dst]
    number_of = {bundle: number for number, bundle in enumerate(sorted(seen.cables, key=lambda bundle: bundle[2]))}
    ends = zip(np.minimum(one, other).tolist(), np.maximum(one, other).tolist(), topology.link_domain.tolist(), strict=True)
    return np.array([number_of.get(bundle, -1) for bundle in ends], np.int64), np.where(one == other, one, -1)


def _texts(topology: Topology, block: Block) -> list[list[str]]:
    """What is written in a box: of every line the wordings, the fullest first."""
    members, inside = len(block.members), len(block.members[0])
    hosts = sum(node < topology.hosts for member in block.members for node in member)
    kind = block.kind.split(".")[-1]
    if block.tier:
        counted = [count(members, f"{kind} switch", f"{kind} switches"), count(members, kind, PLURAL.get(kind, ""))]
    elif inside == 1:
        counted = [count(hosts, "host")]
    else:
        each = f" of {hosts // members} hosts" if hosts % members == 0 else f", {hosts} hosts"
        counted = [count(members, "node") + each, count(members, "node")]
    if block.stands_for > 1:
        return [[f"{block.stands_for:,} more like these", f"{block.stands_for:,} more"], counted]
    first = topology.node_names[block.members[0][0]]
    last = topology.node_names[max(node for node in block.members[-1] if node < topology.hosts or block.tier)]
    named = [first] if first == last else [f"{first} to {last}", first]
    return [[*named, first.partition(".")[2]] if "." in block.kind else named, counted]


def _named(topology: Topology, member: tuple[int, ...]) -> str:
    first = topology.node_names[member[0]]
    hosts = [node for node in member if node < topology.hosts]
    return f"{first} to {topology.node_names[hosts[-1]]}" if len(hosts) > 1 else first


def _order(seen: Blocks) -> dict[int, list[int]]:
    """Blocks of every tier from left to right: as what is below them."""
    at: dict[int, float] = {}
    rows: dict[int, list[int]] = {}
    for tier in sorted({block.tier for block in seen.blocks}):
        row = [n for n, block in enumerate(seen.blocks) if block.tier == tier]
        below: dict[int, list[float]] = {n: [] for n in row}
        for low, high, _ in seen.cables:
            if high in below and low in at:
                below[high].append(at[low])
        row.sort(key=lambda n: (float(np.mean(below[n])) if below[n] else 0.0, n))
        for place, n in enumerate(row):
            at[n] = (place + 0.5) / len(row)
        rows[tier] = row
    return rows


def _grid(block: Block, width: float) -> tuple[int, int]:
    """Glyphs in a row, and rows of them."""
    across = max(1, min(len(block.members), ACROSS, int((width - 12) / STEP)))
    return across, min(DOWN, -(-len(block.members) // across))


def _glyphs(block: Block, box: Box, lines: int) -> NDArray[np.float64]:
    """Where the members are drawn."""
    across, rows = _grid(block, box.width)
    number = np.arange(min(len(block.members), across * rows))
    x = box.x + box.width / 2 + (number % across - (across - 1) / 2) * STEP
    y = box.y + 12 + LINE * lines + (number // across + 0.5) * STEP
    return np.stack([x, y], axis=1)


def _fitting(wordings: Sequence[str], width: float) -> str | None:
    """The fullest wording that fits; None where none does."""
    return next((text for text in wordings if text and text_width(text) <= width), None)


def _bundles(topology: Topology, seen: Blocks, boxes: dict[int, Box]) -> tuple[tuple[NDArray[np.float64], ...], list[Label]]:
    """Per domain the curves between boxes, and what is written on them: how many cables of what rate."""
    curves: list[list[list[float]]] = [[] for _ in topology.domains]
    labels: list[Label] = []
    rates = [" to ".join(dict.fromkeys(map(format_bandwidth, domain.bandwidth))) for domain in domain_links(topology)]
    for domain in range(len(topology.domains)):
        joined = [(low, high, number) for (low, high, at), number in seen.cables.items() if at == domain]
        leaves_at, enters_at = _plugs(boxes, joined, 0), _plugs(boxes, joined, 1)
        for low, high, number in joined:
            one, other = boxes[low], boxes[high]
            start, end = [leaves_at[low, high], one.y], [enters_at[low, high], other.y]
            if seen.blocks[low].tier != seen.blocks[high].tier:
                end[1] += other.height
                control = [(start[0] + end[0]) / 2, (start[1] + end[1]) / 2]
            else:
                control = [(start[0] + end[0]) / 2, start[1] - 30 - 0.12 * abs(end[0] - start[0])]
            curves[domain].append([*start, *control, *end])
            if len(joined) <= MOST_LABELS:
                middle = [(a + 2 * b + c) / 4 for a, b, c in zip(start, control, end, strict=True)]
                labels.append(Label(f"{number:,} x {rates[domain]}", *middle))
    return tuple(np.array(rows, float).reshape(-1, 6) for rows in curves), labels


def _plugs(boxes: dict[int, Box], joined: list[tuple[int, int, int]], side: int) -> dict[tuple[int, int], float]:
    """x where each bundle meets the box at its ``side`` (0 lower, 1 upper): spread in the order of the other ends."""
    found: dict[tuple[int, int], float] = {}
    for n in {bundle[side] for bundle in joined}:
        mine = sorted((b[:2] for b in joined if b[side] == n), key=lambda pair: boxes[pair[1 - side]].x)
        for place, pair in enumerate(mine):
            found[pair] = boxes[n].x + boxes[n].width * (0.5 + 0.8 * ((place + 0.5) / len(mine) - 0.5))
    return found
