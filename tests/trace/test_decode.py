"""The kernels read what the plain reader reads, compiled and interpreted alike (law 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_documents import located, rank_traces, resolved

from distsim.errors import TraceError
from distsim.trace import chakra, protobuf, wire
from distsim.trace.document import Attribute, Document, Node, RankTrace
from distsim.trace.graph import NodeType, TaskGraph
from distsim.trace.read import read_trace
from distsim.trace.rows import decode_document

FORMS = ["python", "compiled"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(traces=st.lists(rank_traces(dangling=True), min_size=1, max_size=3))
def test_kernels_agree_with_the_plain_reader(traces: list[RankTrace], monkeypatch: pytest.MonkeyPatch) -> None:
    files = [protobuf.write_document(t) or b"\x00" for t in traces]
    distinct = list(dict.fromkeys(files))
    by_bytes = {data: protobuf.read_document(data, "") for data in distinct}
    expected = decode_document(Document("t", len(files), lambda r: by_bytes[files[r]]), {})
    for form in FORMS:
        monkeypatch.setenv("DISTSIM_KERNELS", form)
        got = chakra.decode(located(files), {})
        assert got.rank_program == expected.rank_program
        assert resolved(got) == resolved(expected)
        assert got.findings == expected.findings


@pytest.mark.parametrize("form", FORMS)
@given(value=st.integers(-(1 << 63), (1 << 63) - 1))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_varint(form: str, value: int) -> None:
    run = wire.varint.compiled if form == "compiled" else wire.varint.interpreted
    data: Any = protobuf._varint(value)
    data = np.frombuffer(data, np.uint8) if form == "compiled" else data
    assert run(data, 0, len(data)) == (value, len(data))
    assert run(data, 0, len(data) - 1)[1] == -1


@pytest.mark.parametrize("size", [4, 8])
@given(value=st.floats(-(2.0**50), 2.0**50, width=32))
def test_floating_is_the_whole_part(size: int, value: float) -> None:
    data = np.array([value], np.float32 if size == 4 else np.float64).tobytes()
    assert wire.floating.interpreted(data, 0, size) == int(value)


@pytest.mark.parametrize("form", FORMS)
def test_any_cut_or_changed_byte_is_an_answer_or_a_trace_error(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTSIM_KERNELS", form)
    nodes = [
        Node(k, f"n{k}", 4, [], [k - 1] if k else [], 0, 7, attributes=[Attribute("num_ops", "int64", 1 << 40)])
        for k in range(3)
    ]
    data = protobuf.write_document(RankTrace("0.0.4", [], nodes))
    for at in range(len(data)):
        for changed in (data[:at], data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :]):
            try:
                chakra.decode(located([changed]), {})
            except TraceError as error:
                assert "t.0.et" in str(error)  # noqa: PT017


def write(folder: Path, *traces: RankTrace) -> str:
    for rank, trace in enumerate(traces):
        (folder / f"w.{rank}.et").write_bytes(protobuf.write_document(trace))
    return str(folder / "w")


def read(folder: Path, *traces: RankTrace, **more: Any) -> TaskGraph:
    return read_trace(write(folder, *traces), **more)


def test_lenient_kinds_and_values(tmp_path: Path) -> None:
    attributes = [
        Attribute("is_cpu_op", "int32", 1),
        Attribute("comm_size", "string", "4096"),
        Attribute("comm_type", "uint32", 7),
        Attribute("num_ops", "double", 2.5e9),
        Attribute("tensor_size"),
        Attribute("pg_name", "int64", 3),
        Attribute("involved_dim", "bool_list", [True, False, True]),
        Attribute("duration_ps", "int64", 1_500_000),
    ]
    (tmp_path / "w.json").write_text('{"3": [0]}')
    graph = read(tmp_path, RankTrace("", [], [Node(0, "c", 7, duration_micros=2, attributes=attributes)]))
    program = graph.programs[0]
    assert (bool(program.cpu[0]), int(program.bytes[0]), int(program.collective[0])) == (True, 4096, 7)
    assert (int(program.num_ops[0]), int(program.tensor_size[0]), int(program.dims[0])) == (2_500_000_000, -1, 0b101)
    assert int(program.duration_ps[0]) == 1_500_000, "the exact duration goes before the rounded one"
    assert graph.groups[int(program.group[0])].members == {0: (0,)}


@pytest.mark.parametrize(("defined", "expected"), [("{}", -1), ('{"0": [0]}', 0)])
def test_group_0_is_the_world_unless_defined(tmp_path: Path, defined: str, expected: int) -> None:
    (tmp_path / "w.json").write_text(defined)
    node = Node(
        0,
        "",
        7,
        attributes=[
            Attribute("pg_name", "string", "0"),
            Attribute("comm_type", "int64", 0),
            Attribute("comm_size", "int64", 8),
        ],
    )
    assert int(read(tmp_path, RankTrace("", [], [node])).programs[0].group[0]) == expected


def test_data_dependencies_come_before_control(tmp_path: Path) -> None:
    nodes = [Node(4, "", 4), Node(9, "", 4), Node(2, "", 4, [4], [9])]
    program = read(tmp_path, RankTrace("", [], nodes)).programs[0]
    assert program.dep.tolist() == [1, 0]
    assert program.dep_ptr.tolist() == [0, 0, 0, 2]


def test_ranks_that_differ_in_group_names_and_peers_share_a_program(tmp_path: Path) -> None:
    def rank(number: int) -> RankTrace:
        collective = [
            Attribute("pg_name", "string", str(10 + number // 2)),
            Attribute("comm_type", "int64", 0),
            Attribute("comm_size", "int64", 8),
        ]
        message = [Attribute("comm_size", "int64", 8), Attribute("comm_tag", "int32", 1)]
        up, down = (number + 2) % 4, (number - 2) % 4
        kind, end = (NodeType.COMM_SEND, ("comm_dst", up)) if number < 2 else (NodeType.COMM_RECV, ("comm_src", down))
        return RankTrace(
            "",
            [],
            [
                Node(0, "c", 7, attributes=collective),
                Node(1, "m", int(kind), attributes=[*message, Attribute(end[0], "int32", end[1])]),
            ],
        )

    (tmp_path / "w.json").write_text('{"10": [0, 1], "11": [2, 3]}')
    graph = read(tmp_path, *map(rank, range(4)), strict=True)
    assert graph.rank_program.tolist() == [0, 0, 1, 1]
    assert [graph.members(r, 0) for r in range(4)] == [(0, 1), (0, 1), (2, 3), (2, 3)]
    assert [graph.peer(r, 1) for r in range(4)] == [2, 3, 0, 1]
    assert graph.groups[0].label(3) == "11"


def test_groups_used_in_different_order_are_not_folded(tmp_path: Path) -> None:
    def rank(order: str) -> RankTrace:
        return RankTrace(
            "",
            [],
            [
                Node(
                    k,
                    "",
                    7,
                    attributes=[
                        Attribute("pg_name", "string", g),
                        Attribute("comm_type", "int64", 0),
                        Attribute("comm_size", "int64", 8),
                    ],
                )
                for k, g in enumerate(order)
            ],
        )

    (tmp_path / "w.json").write_text('{"5": [0, 1], "6": [0, 1]}')
    graph = read(tmp_path, rank("56"), rank("65"))
    assert len(graph.programs) == 2
    assert [g.name for g in graph.groups] == ["5", "6"]
