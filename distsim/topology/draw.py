"""Drawings of topologies: SVG written here, PNG through matplotlib. Colours say the link domain, line width the bandwidth."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.topology.block_picture import block_picture
from distsim.topology.composition import compose
from distsim.topology.graph import Topology
from distsim.topology.layout import cube_of, levels_of, place
from distsim.topology.metrics import DomainLinks, domain_links, kind_of, size_of
from distsim.topology.picture import BAND, FONT, MARGIN, WIDTH, Label, Picture, text_width
from distsim.units import format_bandwidth, format_time

MOST_HEIGHT = 900
#: Okabe and Ito's colours, told apart by colour-blind readers, on white and on black
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D31", "#7F7F7F")
LARGE = 500  #: nodes; above, tiers of switches are drawn in blocks, else lines are thin and straight and nothing is labelled


def draw(topology: Topology, path: str | Path) -> None:
    """Write a drawing; the suffix says the form.

    Raises: ConfigError on another suffix than .svg and .png, on .png without matplotlib, and on a file that cannot be written.
    """
    target = Path(path)
    writers = {".svg": _write_svg, ".png": _write_png}
    if target.suffix.lower() not in writers:
        raise ConfigError(f"cannot draw a {target.suffix or 'file without suffix'}", where=str(path), expected=".svg or .png")
    # NOTE: under another name first, so that nobody finds half a drawing
    part = target.with_name(f".{target.stem}.part{target.suffix}")
    try:
        writers[target.suffix.lower()](picture(topology), part)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigError(f"cannot write: {error.strerror or error}", where=str(path)) from None


def picture(topology: Topology) -> Picture:
    """The drawing, still without a form."""
    domains = domain_links(topology)
    if topology.nodes > LARGE and _has_tiers(topology):
        return block_picture(topology, [_described(domain) for domain in domains])
    if topology.nodes > LARGE and (cube := cube_of(topology)):
        return _of_cubes(topology, cube)
    places = place(topology)
    low, high = places.min(axis=0), places.max(axis=0)
    room = np.array([WIDTH - 2 * MARGIN, MOST_HEIGHT - 2 * MARGIN - 2 * BAND], float)
    scale = min(float((room / np.maximum(high - low, 1e-9)).min()), 160.0)
    points = np.empty_like(places)
    points[:, 0] = (places[:, 0] - (low[0] + high[0]) / 2) * scale + WIDTH / 2
    points[:, 1] = (high[1] - places[:, 1]) * scale + MARGIN + BAND
    gaps = _gaps(points)
    large = topology.nodes > LARGE
    radius = float(np.clip(0.3 * np.median(gaps), 1.0, 8.0))
    cables = tuple(_curves(topology, points, number, radius, large) for number in range(len(topology.domains)))
    fastest = max((domain.bandwidth[1] for domain in domains), default=1.0)
    thickest = float(np.clip(30 / np.sqrt(max(1, topology.links // 2)), 0.4, 2.4))
    lowest = [points[:, 1].max(), *((curve[:, 1] + 2 * curve[:, 3] + curve[:, 5]).max() / 4 for curve in cables if len(curve))]
    return Picture(
        title=f"{topology.name}: {size_of(topology)}",
        height=float(max(lowest)) + MARGIN + BAND,
        hosts=topology.hosts,
        names=topology.node_names,
        points=points,
        radius=radius,
        cables=cables,
        widths=tuple(max(0.3, thickest * (domain.bandwidth[1] / fastest) ** 0.35) for domain in domains),
        labels=() if large else tuple(_labels(topology, points, gaps, radius)),
        legend=tuple(_described(domain) for domain in domains),
        link_curve=_link_curves(topology),
        link_box=np.full(topology.links, -1, np.int64),
    )


def _of_cubes(topology: Topology, cube: int) -> Picture:
    """The drawing of a torus of cubes: a host per cube, and the optical links between them."""
    sides = [dataclasses.replace(dimension, size=dimension.size // cube) for dimension in topology.dimensions]
    between = compose(topology.name, sides, [f"dim{number}" for number in range(len(sides))])
    cubes = picture(between)
    size, each = "x".join([str(cube)] * len(sides)), cube ** (len(sides) - 1)
    rates = [f"{each} x {format_bandwidth(side.bandwidth)}, {format_time(side.latency)}" for side in sides]
    legend = [f"ocs, dimension {n}: {rate}" for n, (side, rate) in enumerate(zip(sides, rates, strict=True)) if side.size > 1]
    return dataclasses.replace(
        cubes,
        title=f"{topology.name}: {size_of(topology)}; every point a cube of {size} hosts",
        names=tuple(f"cube{number}" for number in range(cubes.hosts)),
        legend=tuple(legend),
        labels=(),
        link_curve=_cube_curves(topology, cube, between, cubes.link_curve),
        link_box=np.full(topology.links, -1, np.int64),
    )


def _cube_curves(topology: Topology, cube: int, between: Topology, curve: NDArray[np.int64]) -> NDArray[np.int64]:
    """Per link the curve between the cubes that it joins; -1 for links inside a cube."""
    inside, stride, place, host = np.zeros(topology.nodes, np.int64), 1, 1, np.arange(topology.hosts)
    for dimension in topology.dimensions:
        inside[: topology.hosts] += host // stride % dimension.size // cube * place
        stride, place = stride * dimension.size, place * (dimension.size // cube)
    of_pair = dict(zip(zip(between.link_src.tolist(), between.link_dst.tolist(), strict=True), curve.tolist(), strict=True))
    ends = zip(inside[topology.link_src].tolist(), inside[topology.link_dst].tolist(), strict=True)
    return np.array([of_pair.get(pair, -1) for pair in ends], np.int64)


def _has_tiers(topology: Topology) -> bool:
    """Whether switches stand over hosts, rather than each beside its own in a mesh."""
    level = levels_of(topology)
    return int(level.max(initial=0)) > 1


def _described(domain: DomainLinks) -> str:
    rates = " to ".join(dict.fromkeys(map(format_bandwidth, domain.bandwidth)))
    delays = " to ".join(dict.fromkeys(map(format_time, domain.latency)))
    return f"{domain.name}: {domain.cables} x {rates}, {delays}"


def _gaps(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of every node to its nearest neighbour."""
    gaps = np.full(len(points), 100.0)
    for start in range(0, len(points) if len(points) > 1 else 0, 256):
        part = points[start : start + 256]
        apart = np.hypot(part[:, None, 0] - points[:, 0], part[:, None, 1] - points[:, 1])
        apart[np.arange(len(part)), start + np.arange(len(part))] = np.inf
        gaps[start : start + 256] = apart.min(axis=1)
    return gaps


def _labels(topology: Topology, points: NDArray[np.float64], gaps: NDArray[np.float64], radius: float) -> Iterator[Label]:
    """Names where they fit, else numbers alone, else nothing, alike for all nodes of a kind."""
    kinds = np.array([kind_of(name) for name in topology.node_names])
    away = _away(topology, points)
    for kind in dict.fromkeys(kinds.tolist()):
        members = np.flatnonzero(kinds == kind).tolist()
        names = [topology.node_names[node] for node in members]
        room = float(gaps[members].min())
        for texts in (names, [name[len(kind) :].lstrip(".") for name in names]):
            if all(texts) and max(map(text_width, texts)) <= room:
                break
        else:
            continue
        for node, text in zip(members, texts, strict=True):
            reach = radius if node < topology.hosts else 1.5 * radius
            x, y = points[node] + away[node] * (reach + np.array([4 + text_width(text) / 2, 3 + FONT / 2]))
            yield Label(text, float(x), float(y))


def _away(topology: Topology, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors to where a node's label goes: for hosts outwards on a circle, below in a row, else opposite to cables that
    all leave on one side; for switches above, or below if all cables leave upwards."""
    way = points[topology.link_dst] - points[topology.link_src]
    pull, length = np.zeros_like(points), np.full(len(points), 1e-9)
    np.add.at(pull, topology.link_src, way)
    np.add.at(length, topology.link_src, np.hypot(*way.T))
    host = np.arange(len(points)) < topology.hosts
    away = np.where(host[:, None] | (pull[:, 1:] < -0.6 * length[:, None]), (0.0, 1.0), (0.0, -1.0))
    from_centre = points - points[host].mean(axis=0)
    reach = np.hypot(*from_centre.T)
    if np.ptp(points[host, 1]) < 1:
        return away
    if np.ptp(reach[host]) < 0.01 * reach[host].max():
        away[host] = from_centre[host] / reach[host, None]
        return away
    force = np.hypot(*pull.T)
    aside = host & (force > 0.95 * length)
    away[aside] = -pull[aside] / force[aside, None]
    return away


def _curves(topology: Topology, points: NDArray[np.float64], domain: int, radius: float, large: bool) -> NDArray[np.float64]:
    """Start, control point and end of the cables of a domain; parallel ones are drawn once, and a cable bends around nodes
    that lie on its straight way."""
    _, ends, _ = _parallel(topology, domain)
    start, end = points[ends[:, 0]], points[ends[:, 1]]
    control = (start + end) / 2
    for row, (one, other) in enumerate(() if large else ends.tolist()):
        way = end[row] - start[row]
        length = max(float(np.hypot(*way)), 1e-9)
        along = (points - start[row]) @ way / length
        aside = np.abs((points - start[row]) @ np.array([-way[1], way[0]])) / length
        blocked = (along > radius) & (along < length - radius) & (aside < radius)
        blocked[[one, other]] = False
        if blocked.any():
            bend = min(0.25 * length, 12 + 0.09 * length)
            control[row] += 2 * bend * np.array([way[1], -way[0]]) / length
    return np.concatenate([start, control, end], axis=1)


def _parallel(topology: Topology, domain: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Of the cables of a domain: the first links, the distinct pairs of ends, and the pair of each."""
    chosen = np.flatnonzero(topology.link_domain[0::2] == domain) * 2
    pairs = np.stack([topology.link_src[chosen], topology.link_dst[chosen]], axis=1)
    ends, number = np.unique(pairs, axis=0, return_inverse=True)
    return chosen, ends, number.reshape(-1)


def _link_curves(topology: Topology) -> NDArray[np.int64]:
    """Per link the number of its curve, through all domains."""
    found, before = np.full(topology.links, -1, np.int64), 0
    for domain in range(len(topology.domains)):
        chosen, ends, number = _parallel(topology, domain)
        found[chosen] = found[chosen + 1] = before + number
        before += len(ends)
    return found


def _legend(made: Picture) -> Iterator[tuple[float, float, str]]:
    """(x, y, text) of every domain's entry."""
    x = float(MARGIN)
    for text in made.legend:
        yield x, made.height - 14, text
        x += 48 + 0.56 * FONT * len(text)


def _write_svg(made: Picture, target: Path) -> None:
    ink = "".join(f".d{number}{{stroke:{COLOURS[number % len(COLOURS)]}}}" for number in range(len(made.cables)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {made.height:.0f}" '
        f'width="{WIDTH}" height="{made.height:.0f}" font-family="sans-serif" font-size="{FONT}">',
        f"<title>{escape(made.title)}</title>",
        "<style>.page,.switch{fill:#fff}.switch{stroke:#222;stroke-width:1.2}.host{fill:#444}path{fill:none}",
        ".block{fill:#f4f6f8;stroke:#667}.more{stroke-dasharray:4 3}",
        "text{fill:#222;stroke:#fff;stroke-width:3;paint-order:stroke;dominant-baseline:central}.label{text-anchor:middle}",
        f"{ink}@media(prefers-color-scheme:dark){{.page,.switch{{fill:#16181c}}.switch{{stroke:#ddd}}.host{{fill:#ccc}}.block{{fill:#22262c;stroke:#99a}}"
        "text{fill:#ddd;stroke:#16181c}}</style>",
        '<rect class="page" width="100%" height="100%"/>',
        f'<text x="{MARGIN}" y="18" font-size="15">{escape(made.title)}</text>',
    ]
    for number, (curves, width) in enumerate(zip(made.cables, made.widths, strict=True)):
        parts.append(f'<path class="d{number}" stroke-width="{width:.2f}" stroke-opacity="0.75" d="{_svg_path(curves)}"/>')
    for box in made.boxes:
        place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
        kind = "block more" if box.dashed else "block"
        parts.append(f'<rect class="{kind}" {place} rx="5"><title>{escape(box.name)}</title></rect>')
    size = 1.5 * made.radius if not made.boxes else made.radius
    for node, (x, y) in enumerate(made.points.tolist()):
        name = f"<title>{escape(made.names[node])}</title>"
        if node < made.hosts:
            parts.append(f'<circle class="host" cx="{x:.1f}" cy="{y:.1f}" r="{made.radius:.1f}">{name}</circle>')
        else:
            place = f'x="{x - size:.1f}" y="{y - size:.1f}" width="{2 * size:.1f}" height="{2 * size:.1f}" rx="{size / 3:.1f}"'
            parts.append(f'<rect class="switch" {place}>{name}</rect>')
    parts += [f'<text class="label" x="{at.x:.1f}" y="{at.y:.1f}">{escape(at.text)}</text>' for at in made.labels]
    for number, (x, y, text) in enumerate(_legend(made)):
        parts.append(f'<path class="d{number}" stroke-width="3" d="M{x:.0f} {y:.0f}h18"/>')
        parts.append(f'<text x="{x + 24:.0f}" y="{y:.0f}">{escape(text)}</text>')
    target.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _svg_path(curves: NDArray[np.float64]) -> str:
    steps = []
    for x, y, cx, cy, to_x, to_y in np.round(curves, 1).tolist():
        straight = abs(2 * cx - x - to_x) + abs(2 * cy - y - to_y) < 1
        steps.append(f"M{x:g} {y:g}L{to_x:g} {to_y:g}" if straight else f"M{x:g} {y:g}Q{cx:g} {cy:g} {to_x:g} {to_y:g}")
    return "".join(steps)


def _write_png(made: Picture, target: Path) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.collections import LineCollection
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle
        from matplotlib.patheffects import withStroke
    except ImportError:
        fix = "Run pip install matplotlib, or draw to .svg, which needs nothing."
        raise ConfigError("PNG drawings need matplotlib, which is not installed", where=str(target), fix=fix) from None
    figure: Any = Figure(figsize=(WIDTH / 100, made.height / 100), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(made.height, 0))
    axes.axis("off")
    point = 0.72  # points of type per pixel of the drawing
    t = np.linspace(0, 1, 17)[None, :, None]
    for number, (curves, width) in enumerate(zip(made.cables, made.widths, strict=True)):
        start, control, end = (curves[:, None, at : at + 2] for at in (0, 2, 4))
        lines: Any = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
        colour = COLOURS[number % len(COLOURS)]
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=width * point, alpha=0.75, zorder=1))
    for box in made.boxes:
        style = "--" if box.dashed else "-"
        frame = Rectangle((box.x, box.y), box.width, box.height, facecolor="#f4f6f8", edgecolor="#666677", linestyle=style)
        axes.add_patch(frame).set_zorder(1.5)
    hosts, switches = made.points[: made.hosts], made.points[made.hosts :]
    size = 2 if made.boxes else 3
    axes.scatter(*hosts.T, s=(2 * made.radius * point) ** 2, c="#444444", linewidths=0, zorder=2)
    axes.scatter(*switches.T, s=(size * made.radius * point) ** 2, c="white", marker="s", edgecolors="#222222", zorder=2)
    halo = [withStroke(linewidth=2, foreground="white")]
    for at in made.labels:
        axes.text(at.x, at.y, at.text, fontsize=FONT * point, ha="center", va="center", path_effects=halo, zorder=3)
    axes.text(MARGIN, 18, made.title, fontsize=15 * point, va="center")
    for number, (x, y, text) in enumerate(_legend(made)):
        axes.plot((x, x + 18), (y, y), color=COLOURS[number % len(COLOURS)], linewidth=3 * point)
        axes.text(x + 24, y, text, fontsize=FONT * point, va="center")
    figure.savefig(target, facecolor="white")
