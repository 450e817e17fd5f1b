"""A file read against a template is what it is when read alone: at every changed byte, for every family, in both forms."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_documents import located, rank_traces, resolved

from distsim.errors import TraceError
from distsim.trace import chakra, critical, protobuf, template
from distsim.trace.critical import critical_path
from distsim.trace.document import Attribute, Node, RankTrace
from distsim.trace.files import Located, RankFile
from distsim.trace.graph import NodeType, TaskGraph
from distsim.trace.matching import collectives, messages
from distsim.trace.order import program_order
from distsim.trace.read import load

FORMS = ["python", "compiled"]


def outcome(files: list[bytes], rank: int) -> Any:
    """What is known of a rank's file once all are read, or why it cannot be read."""
    source = Located("t", "et", tuple(RankFile(r, "t.et", lambda data=data: data) for r, data in enumerate(files)))  # type: ignore[misc]
    try:
        got = chakra.decode(source, {})
    except TraceError as error:
        return str(error)
    program = got.rank_program[rank]
    return resolved(got)[program], got.findings[program], got.heads[program]


def rank(peer: int = 3, group: str = "10", tag: int = 7, name: str = "a", doc: str = "") -> RankTrace:
    """A rank with one of each cell, and with what must not be taken for one."""
    sized = Attribute("comm_size", "int64", 64)
    collective = [Attribute("comm_type", "int64", 0), sized, Attribute("pg_name", "string", group, doc)]
    send = [sized, Attribute("comm_dst", "int32", peer), Attribute("comm_tag", "uint64", tag)]
    receive = [sized, Attribute("comm_src", "int32", peer), Attribute("comm_dst", "string", str(peer))]
    odd = [Attribute("pg_name", "int64", 4), Attribute("comm_tag", "double", 3.5), Attribute("comm_src", "sint32", -4)]
    twice = [Attribute("pg_name", "string", "11"), Attribute("pg_name", "string", "12")]
    nodes = [
        Node(0, name, 4, duration_micros=5, attributes=[Attribute("num_ops", "int64", 9)]),
        Node(1, "b", 7, [], [0], attributes=collective),
        Node(2, "b", 5, [1], [0], attributes=send),
        Node(3, "", 6, attributes=receive),
        Node(4, "", 7, attributes=odd),
        Node(5, "", 7, attributes=twice),
    ]
    return RankTrace("0.0.4", [], nodes)


def fits(files: list[bytes]) -> int:
    """Files that are read against the first."""
    first = template.Template(files[0], 0)
    return sum(len(data) == len(files[0]) and first.changes(data) is not None for data in files[1:])


@pytest.mark.parametrize("swapped", [False, True])
def test_a_change_of_any_bit_of_a_file(swapped: bool) -> None:
    whole = protobuf.write_document(rank(peer=1 << 30))  # a flipped bit takes it out of range
    fitted = 0
    for at in range(len(whole)):
        for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            changed = whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :]
            first, second = (changed, whole) if swapped else (whole, changed)
            alone = [outcome([first], 0), outcome([second], 0)]
            together = outcome([first, second], 1)
            assert together == (alone[0] if isinstance(alone[0], str) else alone[1]), (at, mask)
            fitted += fits([first, second])
    assert fitted > 50, "cells exist"


@pytest.mark.parametrize(
    ("other", "fit"),
    [
        ({"peer": 5}, True),
        ({"group": "99"}, True),
        ({"group": "é"}, True),
        ({"tag": 127}, True),
        ({"name": "z"}, True),
        ({"peer": 5, "group": "12", "tag": 0, "name": "b"}, True),
        ({"tag": 128}, False),  # one byte more
        ({"group": "100"}, False),
    ],
)
def test_what_fits(other: dict[str, Any], fit: bool) -> None:
    files = [protobuf.write_document(rank()), protobuf.write_document(rank(**other))]
    assert fits(files) == fit
    assert outcome(files, 1) == outcome(files[1:], 0)


def varied(trace: RankTrace, draw: Any) -> RankTrace:
    """The same nodes with other names, groups, peers and tags, mostly as long as before."""

    def text(old: str) -> str:
        return draw(st.text("ab01é", min_size=len(old), max_size=len(old)))

    def attribute(a: Attribute) -> Attribute:
        if a.kind is None or draw(st.booleans()):
            return a
        if isinstance(a.value, str):
            return dataclasses.replace(a, value=str(draw(st.integers(0, 99))).rjust(len(a.value), "1"))
        if isinstance(a.value, int) and not isinstance(a.value, bool):
            return dataclasses.replace(a, value=draw(st.sampled_from([a.value, a.value ^ 1, 0, 1, 77])))
        return a

    nodes = [
        dataclasses.replace(
            n, name=text(n.name) if draw(st.booleans()) else n.name, attributes=list(map(attribute, n.attributes))
        )
        for n in trace.nodes
    ]
    return dataclasses.replace(trace, nodes=nodes)


@st.composite
def families(draw: st.DrawFn) -> list[bytes]:
    first = draw(st.just(rank()) | rank_traces(dangling=True))
    files = [
        protobuf.write_document(t) or b"\x00" for t in (first, *(varied(first, draw) for _ in range(draw(st.integers(1, 4)))))
    ]
    return files + draw(st.lists(st.sampled_from(files), max_size=3))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kept", [0, 32 << 20])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=families())
def test_families(files: list[bytes], kept: int, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTSIM_KERNELS", form)
    monkeypatch.setattr(template, "_KEPT_BYTES", kept)
    together = chakra.decode(located(files), {})
    programs = resolved(together)
    for number, data in enumerate(files):
        alone = chakra.decode(located([data]), {})
        assert programs[together.rank_program[number]] == resolved(alone)[0]
        assert together.findings[together.rank_program[number]] == alone.findings[0]
        assert together.heads[together.rank_program[number]] == alone.heads[0]
        assert bool(together.unmodelled) >= bool(alone.unmodelled)
        if kept:
            assert together.rank_program[number] == together.rank_program[files.index(data)], "equal files, one program"


def test_files_of_many_lengths_and_contents() -> None:
    """More templates of one length than a file is compared with: nothing is lost but time."""
    numbers = np.random.default_rng(1).integers(1, 1 << 40, (12, 40)).tolist()
    files = []
    for row in numbers:
        nodes = [Node(k, "n", 4, attributes=[Attribute("num_ops", "fixed64", ops)]) for k, ops in enumerate(row)]
        files.append(protobuf.write_document(RankTrace("", [], nodes)))
    assert len({len(data) for data in files}) == 1
    got = chakra.decode(located(files * 2), {})
    assert got.rank_program == [*range(12), *range(12)]
    assert [p.num_ops.tolist() for p in got.programs] == numbers


def test_512_ranks_need_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what differs is looked at: neither the compiled decoder nor its import is worth it."""

    def files() -> Iterator[bytes]:
        for number in range(512):
            nodes = [Node(k, f"n{k}", 4, attributes=[Attribute("num_ops", "int64", k)]) for k in range(99)]
            group = Attribute("pg_name", "string", f"{1000 + number}")
            yield protobuf.write_document(RankTrace("", [], [*nodes, Node(99, "", 7, attributes=[group])]))

    def refused(self: object) -> Any:
        raise AssertionError("compiled")

    monkeypatch.delenv("DISTSIM_KERNELS", raising=False)
    monkeypatch.setattr("distsim.kernel.jit.Kernel.compiled", property(refused))
    got = chakra.decode(located(list(files())), {})
    assert list(got.groups) == [str(1000 + number) for number in range(512)]


@st.composite
def replays(draw: st.DrawFn) -> list[list[Node]]:
    """Programs of four ranks (not all different) that compute, meet in three kinds of groups and send to neighbours."""
    shapes = draw(st.lists(st.lists(st.integers(0, 5), max_size=5), min_size=1, max_size=2))
    ranks = []
    for number in range(4):
        nodes = []
        for k, kind in enumerate(draw(st.sampled_from(shapes))):
            sized = [Attribute("comm_size", "int64", 8), Attribute("comm_type", "int64", 0)]
            after = [k - 1] if k else []
            group = {1: "all", 2: f"near{number // 2}", 3: f"far{number % 2}"}.get(kind)
            if group:
                nodes.append(Node(k, "", 7, [], after, attributes=[*sized, Attribute("pg_name", "string", group)]))
            elif kind == 0:
                nodes.append(Node(k, "", 4, [], after, duration_micros=k + 1))
            else:
                send = kind == 4
                peer = Attribute("comm_dst" if send else "comm_src", "int32", (number + (1 if send else -1)) % 4)
                kind = NodeType.COMM_SEND if send else NodeType.COMM_RECV
                nodes.append(Node(k, "", int(kind), [], after, attributes=[sized[0], peer]))
        ranks.append(nodes)
    return ranks


@settings(max_examples=200, deadline=None)
@given(ranks=replays())
def test_the_bound_does_not_depend_on_which_ranks_share_a_program(
    ranks: list[list[Node]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("w")
    for number, nodes in enumerate(ranks):
        (folder / f"w.{number}.et").write_bytes(protobuf.write_document(RankTrace("0.0.4", [], nodes)))
    (folder / "w.json").write_text('{"all":[0,1,2,3],"near0":[0,1],"near1":[2,3],"far0":[0,2],"far1":[1,3]}')
    graph, _ = load(folder)
    apart = tuple(graph.program(r) for r in range(graph.ranks))
    alone: TaskGraph = dataclasses.replace(graph, programs=apart, rank_program=np.arange(graph.ranks, dtype=np.int32))
    assert critical_path(graph) == critical_path(alone)


FAR = {"far": {"size": 2, "stride": 2}}
MEET = {"op": "all_reduce", "bytes": 8, "group": "far"}
SEND, RECEIVE = ({"op": op, "peer": peer, "bytes": 8} for op, peer in (("send", "+1"), ("receive", "-1")))
WORK = {"op": "compute", "duration": "1ms"}


@pytest.mark.parametrize(
    ("programs", "groups"),
    [
        ([("0-2", [WORK, MEET]), ("3", [MEET])], FAR),  # ranks 0 and 1 run one program, but 0 meets its like, 1 does not
        ([("0", [MEET]), ("1-3", [WORK, MEET])], FAR),
        ([("0-3", [WORK, MEET])], {"far": [[0, 2], [1]]}),  # rank 3 meets nobody
        ([("0,2", [WORK, SEND]), ("1,3", [RECEIVE])], None),
        ([("0", [SEND]), ("1,2", [RECEIVE, SEND]), ("3", [WORK, RECEIVE])], None),  # 1 receives from 0, 2 from 1
        ([("0", [WORK]), ("1-2", [RECEIVE, SEND]), ("3", [WORK, RECEIVE])], None),  # 1 never receives
    ],
)
def test_unequal_ranks_of_one_program_are_followed_apart(programs: list[tuple[str, Any]], groups: Any, tmp_path: Path) -> None:
    spec = [{"ranks": ranks, "nodes": nodes} for ranks, nodes in programs]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"format": "distsim-trace/1", "ranks": 4, "groups": groups or {}, "programs": spec}))
    graph, _ = load(path)
    orders = [program_order(program) for program in graph.programs]
    c, m = collectives(graph, orders), messages(graph, orders)
    together = critical._network(graph, c, m, graph.rank_program)
    assert (together is None) == (spec[0]["ranks"] != "0,2")
    assert critical._network(graph, c, m, np.arange(4, dtype=np.int32)) is not None


@pytest.mark.parametrize("kind", ["int64", "sint32", "uint64"])
def test_another_kind_of_value_does_not_fit(kind: str) -> None:
    def data(kind: str) -> bytes:
        peer = Attribute("comm_dst", kind, 1)
        return protobuf.write_document(RankTrace("", [], [Node(0, "", 5, attributes=[peer])]))

    files = [data("int32"), data(kind)]
    assert len(files[0]) == len(files[1])
    assert fits(files) == 0
    together, alone = chakra.decode(located(files), {}), chakra.decode(located(files[1:]), {})
    assert resolved(together)[1] == resolved(alone)[0]
    assert bool(together.unmodelled) == bool(alone.unmodelled)
