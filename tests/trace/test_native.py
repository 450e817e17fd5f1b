"""The native form: what a person writes is what the graph holds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distsim.trace import parquet
from distsim.trace.check import check
from distsim.trace.convert import convert, open_document
from distsim.trace.critical import critical_path
from distsim.trace.graph import NodeType, PeerKind, TaskGraph
from distsim.trace.native import parse_ranks
from distsim.trace.native_model import schema
from distsim.trace.read import read_trace
from distsim.trace.summary import summarise


def read(folder: Path, **spec: Any) -> TaskGraph:
    path = folder / "t.json"
    path.write_text(json.dumps({"format": "distsim-trace/1", **spec}))
    return read_trace(path)


def named(graph: TaskGraph, rank: int = 0) -> dict[str, list[str]]:
    """Node -> nodes it waits for, by name."""
    p = graph.program(rank)
    names = [graph.names[k] for k in p.name]
    return {names[row]: [names[d] for d in p.dep[p.dep_ptr[row] : p.dep_ptr[row + 1]]] for row in range(len(p))}


def test_nodes_follow_each_other_unless_they_say_otherwise(tmp_path: Path) -> None:
    nodes = [
        {"op": "compute", "name": n, **more}
        for n, more in (("a", {}), ("b", {}), ("c", {"after": []}), ("d", {"after": ["b", "c", "x?"]}))
    ]
    assert named(read(tmp_path, programs=[{"nodes": nodes}])) == {"a": [], "b": ["a"], "c": [], "d": ["b", "c"]}


def test_repeat_chains_its_rounds_and_counts(tmp_path: Path) -> None:
    block = {
        "repeat": 2,
        "nodes": [
            {"op": "compute", "name": "f{i}"},
            {"repeat": 2, "index": "j", "nodes": [{"op": "compute", "name": "g{i}{j}"}]},
        ],
    }
    back = {"repeat": 2, "reverse": True, "nodes": [{"op": "compute", "name": "b{i}", "after": ["b{i+1}?", "f{i}"]}]}
    assert named(read(tmp_path, programs=[{"nodes": [block, back]}])) == {
        "f0": [],
        "g00": ["f0"],
        "g01": ["g00"],
        "f1": ["g01"],
        "g10": ["f1"],
        "g11": ["g10"],
        "b1": ["f1"],
        "b0": ["b1", "f0"],
    }


def test_units_groups_and_peers(tmp_path: Path) -> None:
    nodes = [
        {"op": "compute", "duration": "1.5ms", "num_ops": "1.2T", "tensor_size": "64MiB", "cpu": True, "start": 7},
        {"op": "all_gather", "bytes": "1GB", "group": "tp", "root": 1, "dims": [0, 2], "stream": "comm", "priority": 3},
        {"op": "send", "bytes": 8, "peer": "+1", "group": "tp", "tag": 5},
        {"op": "receive", "bytes": 8, "peer": "-1", "group": "tp", "tag": 5},
    ]
    graph = read(tmp_path, ranks=8, groups={"tp": {"size": 2, "stride": 4}}, programs=[{"nodes": nodes}])
    p = graph.programs[0]
    assert p.type.tolist() == [NodeType.COMP, NodeType.COMM_COLL, NodeType.COMM_SEND, NodeType.COMM_RECV]
    assert (p.duration_ps[0], p.num_ops[0], p.tensor_size[0], p.cpu[0], p.start_ps[0]) == (
        1_500_000_000,
        1_200_000_000_000,
        64 << 20,
        True,
        7000,
    )
    assert (p.bytes[1], p.root[1], p.dims[1], p.priority[1], graph.streams[p.stream[1]]) == (10**9, 1, 0b101, 3, "comm")
    assert p.peer_kind[2] == PeerKind.IN_GROUP
    assert [graph.peer(r, 2) for r in (0, 4, 5)] == [4, 0, 1]
    assert graph.members(6, 0) == (2, 6)
    assert check(graph) == []


def test_ranks() -> None:
    assert parse_ranks("0,4,8-11", None, "") == [0, 4, 8, 9, 10, 11]
    assert parse_ranks("0-6:2", None, "") == [0, 2, 4, 6]
    assert parse_ranks("all", 3, "") == [0, 1, 2]
    assert parse_ranks([3, 1], None, "") == [3, 1]


def test_schema_is_of_the_model() -> None:
    assert set(schema()["required"]) == {"format", "programs"}


def test_critical_path_crosses_ranks(tmp_path: Path) -> None:
    first = [{"op": "compute", "duration": "5ms"}, {"op": "send", "bytes": 8, "peer": 1}, {"op": "compute", "duration": "1ms"}]
    second = [
        {"op": "compute", "duration": "2ms", "name": "own"},
        {"op": "receive", "bytes": 8, "peer": 0, "after": []},
        {"op": "compute", "duration": "3ms"},
        {"op": "all_reduce", "bytes": 8, "after": [0, 2]},
        {"op": "compute", "duration": "10us"},
    ]
    third = [{"op": "all_reduce", "bytes": 8}, {"op": "compute", "duration": "4ms"}]
    graph = read(
        tmp_path,
        programs=[
            {"ranks": "0", "nodes": [*first, {"op": "all_reduce", "bytes": 8}]},
            {"ranks": "1", "nodes": second},
            {"ranks": "2", "nodes": third},
        ],
    )
    assert critical_path(graph) == (5 + 3 + 4) * 1_000_000_000
    summary = summarise(graph, [])
    assert summary.by_type == {"COMP": 6, "COMM_COLL": 3, "COMM_SEND": 1, "COMM_RECV": 1}
    assert summary.compute_ps == (4_000_000_000, 6_000_000_000)
    assert [(t.operation, t.nodes, t.bytes) for t in summary.traffic] == [("all_reduce", 3, 24), ("send", 1, 8)]


@pytest.mark.parametrize("form", ["python", "compiled"])
def test_critical_path_of_a_deadlock_is_none(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTSIM_KERNELS", form)
    nodes = [{"op": "receive", "bytes": 8, "peer": "+1", "group": "g"}, {"op": "send", "bytes": 8, "peer": "+1", "group": "g"}]
    graph = read(tmp_path, ranks=2, groups={"g": [0, 1]}, programs=[{"nodes": nodes}])
    assert critical_path(graph) is None
    assert check(graph) == []
    assert [d.kind for d in summarise(graph, []).defects] == ["deadlock"]


def test_gzip_and_parquet_hold_the_same_graph(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "traces" / "llama3_8b_tp8_dp8.json"
    zipped, columns = tmp_path / "x.json.gz", tmp_path / "x.parquet"
    zipped.write_bytes(gzip.compress(source.read_bytes()))
    convert(str(zipped), str(columns))
    same(read_trace(source), read_trace(columns))
    again = tmp_path / "y.parquet"
    parquet.write(read_trace(columns), str(again))
    same(read_trace(source), read_trace(again))


def test_a_spmd_trace_survives_rank_files(tmp_path: Path) -> None:
    """Relative groups and peers become absolute names in .et files, and reading folds the ranks again."""
    source = Path(__file__).resolve().parents[2] / "traces" / "llama3_8b_tp8_dp8.json"
    convert(str(source), str(tmp_path / "w"))
    graph, original = read_trace(tmp_path / "w", strict=True), read_trace(source)
    assert len(graph.programs) == 1
    for rank in (0, 13, 63):
        for g in range(2):
            assert graph.members(rank, g) == original.members(rank, g)
    assert (graph.programs[0].bytes == original.programs[0].bytes).all()
    assert (graph.programs[0].duration_ps == original.programs[0].duration_ps).all()
    convert(str(source), str(tmp_path / "x.parquet"))
    assert [n.name for n in open_document(str(tmp_path / "x.parquet")).load(9).nodes] == [
        n.name for n in open_document(str(source)).load(9).nodes
    ]


def same(a: TaskGraph, b: TaskGraph) -> None:
    assert a.rank_program.tolist() == b.rank_program.tolist()
    assert len(a.programs) == len(b.programs)
    assert a.groups == b.groups
    assert a.streams == b.streams
    assert a.metadata == b.metadata
    for p, q in zip(a.programs, b.programs, strict=True):
        for name in type(p).__slots__:
            if name != "name":
                assert np.array_equal(getattr(p, name), getattr(q, name)), name
        assert [a.names[k] if k >= 0 else None for k in p.name] == [b.names[k] if k >= 0 else None for k in q.name]
