"""Results made for pages, and what a page holds, read as a browser would."""

from __future__ import annotations

import base64
import json
import zlib
from html.parser import HTMLParser

import numpy as np

from distsim.record import CollectiveRow
from distsim.result import LinkTable, Result, SpanTable
from distsim.topology.spec import build

KINDS = ("none", "compute", "all_reduce", "recv")
COMPUTE, TALK = 1, 2


def steps(ranks, count, *, topo="", seed=0, names=None, late=None, warnings=()):
    """``count`` steps of computation on all ranks, each closed by an all_reduce; ``late``: a rank that takes twice as long."""
    topology = build(topo or f"ring:hosts={max(2, ranks)}", ranks)
    random = np.random.default_rng(seed)
    took = random.integers(20_000_000, 40_000_000, (ranks, count))
    if late is not None:
        took[late] *= 2
    start, end = np.zeros((ranks, count, 2), np.int64), np.zeros((ranks, count, 2), np.int64)
    now, rows = 0, []
    for step in range(count):
        start[:, step, 0], end[:, step, 0] = now, now + took[:, step]
        start[:, step, 1] = end[:, step, 0]
        last = int(end[:, step, 0].max())
        first, now = int(end[:, step, 0].min()), last + 5_000_000
        end[:, step, 1] = now
        rows.append(CollectiveRow("all_reduce", "world", 1 << 20, tuple(range(ranks)), "ring", first, last, now))
    total = ranks * count * 2
    talks = np.tile([False, True], ranks * count)
    named = names or tuple(f"step {step}" for step in range(count))
    number = np.tile(np.repeat(np.arange(count), 2), ranks) % len(named)
    by = np.arange(total) - 1
    by[:: count * 2] = -1
    spans = SpanTable(
        rank=np.repeat(np.arange(ranks, dtype=np.int32), count * 2), node=np.arange(total),
        kind=np.where(talks, TALK, COMPUTE).astype(np.int8), stream=talks.astype(np.int32),
        group=np.where(talks, 0, -1).astype(np.int32), name=number.astype(np.int32), bytes=np.where(talks, 1 << 20, 0),
        ready=start.reshape(-1), start=start.reshape(-1), end=end.reshape(-1), released_by=by,
        kinds=KINDS, streams=("compute", "comm"), groups=("world",), names=named,
    )  # fmt: skip
    links = topology.links
    use = LinkTable(random.integers(1, 1 << 30, links), (random.random(links) * now * 0.6).astype(np.int64))
    return Result(
        makespan=int(now), finish=np.full(ranks, now), ranks=ranks, topology=topology, links=use, collectives=tuple(rows),
        spec={"trace": "made.json", "topo": topology.spec, "network": "fluid"}, provenance={"distsim": "0", "network": "fluid"},
        counts={"nodes": total}, warnings=tuple(warnings), make_spans=lambda: spans,
    )  # fmt: skip


def unpacked(value):
    """A document as ``assets/base.js`` unpacks it."""
    if isinstance(value, list):
        return [unpacked(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "$" not in value:
        return {name: unpacked(one) for name, one in value.items()}
    data = zlib.decompress(base64.b64decode(value["b"]))
    if value["$"] == "json":
        return json.loads(data)
    kind, count = np.dtype(f"<{value['$']}"), value["n"]
    planes = np.frombuffer(data, np.uint8).reshape(kind.itemsize, count)
    column = np.ascontiguousarray(planes.T).view(kind).reshape(-1)
    return np.cumsum(column, dtype=kind) if value["d"] else column


class Seen(HTMLParser):
    """Elements of a page: (tag, attributes) in order, and the text of scripts."""

    VOID = ("meta", "link", "input", "br", "img")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.scripts, self.open, self.texts = [], [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open[-1][0] == tag, f"{tag} closes {self.open[-1]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1][0] == "script":
            self.scripts[-1] += data
        for _, attributes in self.open:
            if "id" in attributes:
                self.texts[attributes["id"]] = self.texts.get(attributes["id"], "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self, section):
        """The data of a section, unpacked."""
        return unpacked(json.loads(self.texts[f"{section}-data"]))
