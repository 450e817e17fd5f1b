"""Every defect is named with rank, node and a way out; what can be repaired is, when asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distsim.errors import TraceError
from distsim.trace import protobuf
from distsim.trace.check import check
from distsim.trace.document import Attribute, Node, RankTrace
from distsim.trace.read import load, read_trace


def comm(number: int, kind: int, after: list[int] | None = None, **said: int) -> Node:
    return Node(number, f"c{number}", kind, [], after or [], attributes=[Attribute(k, "int64", v) for k, v in said.items()])


def reduce(number: int, size: int = 8, operation: int = 0) -> Node:
    return comm(number, 7, comm_type=operation, comm_size=size)


def write(folder: Path, *ranks: list[Node]) -> str:
    for rank, nodes in enumerate(ranks):
        (folder / f"w.{rank}.et").write_bytes(protobuf.write_document(RankTrace("0.0.4", [], nodes)))
    return str(folder / "w")


def native(folder: Path, **spec: Any) -> str:
    path = folder / "t.json"
    path.write_text(json.dumps({"format": "distsim-trace/1", **spec}))
    return str(path)


def test_dangling_dependency(tmp_path: Path) -> None:
    path = write(tmp_path, [Node(998, "a", 4), Node(999, "b", 4), Node(4485, "allreduce_12", 4, [], [999, 9999])])
    with pytest.raises(TraceError) as error:
        read_trace(path)
    assert str(error.value) == (
        f'{path}.0.et: node 4485 of rank 0 ("allreduce_12") depends on node 9999, which does not exist\n'
        f"  Nearest ids: 999, 4485. Run `distsim trace {path}` for all defects, or pass --repair to drop dangling dependencies."
    )
    graph = read_trace(path, repair=True)
    assert graph.programs[0].dep.tolist() == [1]
    assert "9999" in graph.defects[0]
    with pytest.raises(TraceError, match="9999"):
        read_trace(path, repair=True, strict=True)


def test_many_dangling_dependencies_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, [Node(k, "", 4, [], [k + 1000]) for k in range(50)])
    _, defects = load(path)
    assert len(defects) == 21
    assert "30 more" in defects[-1].what


def test_cycle_names_its_nodes(tmp_path: Path) -> None:
    path = write(tmp_path, [Node(0, "a", 4), Node(1, "b", 4, [], [0, 3]), Node(2, "c", 4, [], [1]), Node(3, "d", 4, [], [2])])
    with pytest.raises(TraceError, match=r'rank 0 .* cycle of 3: 1 \("b"\) -> 3 \("d"\) -> 2 \("c"\) -> 1'):
        read_trace(path)


def test_duplicate_id(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r'node 5 of rank 0 \("b"\) has an id that row 0'):
        read_trace(write(tmp_path, [Node(5, "a", 4), Node(5, "b", 4)]))


@pytest.mark.parametrize("kind", [0, 8, 300])
def test_unknown_type(tmp_path: Path, kind: int) -> None:
    with pytest.raises(TraceError, match=r"node 1 of rank 0 .*which is not a Chakra node type"):
        read_trace(write(tmp_path, [Node(1, "", kind)]))


def test_unknown_collective(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="comm_type 12, which is no collective"):
        read_trace(write(tmp_path, [reduce(1, operation=12)]))


@pytest.mark.parametrize(
    ("name", "told"),
    [("num_ops", "negative num_ops"), ("tensor_size", "a negative tensor_size"), ("comm_size", "negative bytes")],
)
def test_negative(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(TraceError, match=told):
        read_trace(write(tmp_path, [comm(1, 4, **{name: -5})]))


def test_negative_duration(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="negative duration"):
        read_trace(write(tmp_path, [Node(1, "", 4, duration_micros=(1 << 64) - 3)]))


def test_undefined_group_and_rank_outside_its_group(tmp_path: Path) -> None:
    nodes = [Node(0, "x", 7, attributes=[*reduce(0).attributes, Attribute("pg_name", "string", "17")])]
    with pytest.raises(TraceError, match=r"group '17', which is not defined\n.*--groups"):
        read_trace(write(tmp_path, nodes, nodes))
    (tmp_path / "w.json").write_text('{"17": [1]}')
    with pytest.raises(TraceError, match=r"node 0 of rank 0 .* group '17' but is not a member"):
        read_trace(str(tmp_path / "w"))


def test_missing_and_foreign_peers(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"has no peer .comm_dst"):
        read_trace(write(tmp_path, [comm(0, 5, comm_size=8)]))
    with pytest.raises(TraceError, match="names rank 7 as its peer, but the trace has ranks 0 to 0"):
        read_trace(write(tmp_path, [comm(0, 5, comm_size=8, comm_dst=7)]))


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (
            [reduce(0), reduce(1, 16)],
            r"collective 1 of all ranks .*node 1 of rank 0 .* all_reduce of 8 B, but node 1 of rank 1 .* of 16 B",
        ),
        ([reduce(0, operation=2), reduce(1)], "collective 0 of all ranks .*all_reduce of 8 B, but .*all_gather of 8 B"),
        ([reduce(0)], "rank 1 runs only 1 of them"),
    ],
)
def test_ranks_that_disagree(tmp_path: Path, second: list[Node], told: str) -> None:
    path = write(tmp_path, [reduce(0), reduce(1)], second)
    graph = read_trace(path)
    assert [d.kind for d in check(graph)] == ["collective"]
    with pytest.raises(TraceError, match=told):
        read_trace(path, strict=True)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ([comm(3, 6, comm_size=16, comm_src=0, comm_tag=1)], "sends 8 B, but node 3 of rank 1 .* receives 16 B of it"),
        ([comm(3, 6, comm_size=8, comm_src=0, comm_tag=2)], "sends to rank 1 .message 0, tag 1., but rank 1 never receives it"),
        ([Node(3, "", 4)], "never receives it"),
    ],
)
def test_sends_without_their_receives(tmp_path: Path, second: list[Node], told: str) -> None:
    path = write(tmp_path, [comm(0, 5, comm_size=8, comm_dst=1, comm_tag=1)], second)
    with pytest.raises(TraceError, match=told):
        read_trace(path, strict=True)


def test_receive_without_send(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"receives from rank 0 .* but rank 0 never sends it"):
        read_trace(write(tmp_path, [Node(1, "", 4)], [comm(0, 6, comm_size=8, comm_src=0)]), strict=True)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such trace"):
        read_trace(tmp_path / "nothing")
    path = write(tmp_path, [reduce(0)], [reduce(0)], [reduce(0)])
    (tmp_path / "w.1.et").unlink()
    with pytest.raises(TraceError, match=r"the file of rank 1 is missing .*w.1.et"):
        read_trace(path)
    (tmp_path / "w.1.et").write_bytes(b"")
    with pytest.raises(TraceError, match=r"w.1.et: is empty"):
        read_trace(path)
    whole = (tmp_path / "w.0.et").read_bytes()
    (tmp_path / "w.1.et").write_bytes(whole[:-1])
    with pytest.raises(TraceError, match=r"w.1.et: is cut short"):
        read_trace(path)
    (tmp_path / "w.1.et").write_bytes(b'{"a": 1}' * 100)
    with pytest.raises(TraceError, match=r"w.1.et: is not a Chakra trace"):
        read_trace(path)
    (tmp_path / "w.1.et").write_bytes(b"\x1f\x8b\x08garbage")
    with pytest.raises(TraceError, match="damaged gzip"):
        read_trace(path)
    (tmp_path / "e.json").write_text("")
    with pytest.raises(TraceError, match="is empty"):
        read_trace(tmp_path / "e.json")
    (tmp_path / "e.json").write_text('{"a": 1}')
    with pytest.raises(TraceError, match="not a Chakra node"):
        read_trace(tmp_path / "e.json")
    (tmp_path / "x.tar.gz").write_bytes(b"no tar")
    with pytest.raises(TraceError, match="not a readable tar"):
        read_trace(tmp_path / "x.tar.gz")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(TraceError, match="Parquet"):
        read_trace(tmp_path / "x.parquet")


def test_other_files_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "host.json"
    path.write_text('{"1": [0, 1]}')
    with pytest.raises(TraceError, match="communicator-group file"):
        read_trace(path)
    path.write_text('{"schema": "1.1.0", "pid": 1, "nodes": []}')
    with pytest.raises(TraceError, match="no durations"):
        read_trace(path)
    path.write_text('{"traceEvents": []}')
    with pytest.raises(TraceError, match="Kineto"):
        read_trace(path)
    for events in ("null", "{}", "3"):
        path.write_text(f'{{"traceEvents": {events}}}')
        with pytest.raises(TraceError, match=f"traceEvents is {events}, no list of events"):
            read_trace(path)
    for nothing in ("{}", "[]", " {\n}\n"):
        path.write_text(nothing)
        with pytest.raises(TraceError, match="nothing in it"):
            read_trace(path)


def test_folder_of_host_execution_traces_alone(tmp_path: Path) -> None:
    folder = tmp_path / "et"
    folder.mkdir()
    with pytest.raises(TraceError, match="no such trace"):
        read_trace(folder)
    for rank in range(2):
        (folder / f"et_rank{rank}.json").write_text('{"schema": "1.1.0", "pid": 1, "nodes": []}')
    with pytest.raises(TraceError, match=r"host execution traces \(et_rank0.json, et_rank1.json\) without the Kineto"):
        read_trace(folder)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"programs": [{"nodes": [{"op": "compute", "durations": 3}]}]}, r"programs\[0\].nodes\[0\].durations: Extra inputs"),
        (
            {"programs": [{"name": "p", "nodes": [{"op": "al_reduce"}]}]},
            "program \"p\": node 0: unknown op 'al_reduce'\n.*all_reduce",
        ),
        (
            {"programs": [{"nodes": [{"op": "compute", "name": "a", "duration": "3 parsecs"}]}]},
            r'node 0 \("a"\): .*unknown time unit',
        ),
        ({"programs": [{"nodes": [{"op": "compute", "duration": -3}]}]}, "negative"),
        (
            {"programs": [{"nodes": [{"op": "compute", "name": "first"}, {"op": "compute", "after": "frist"}]}]},
            "Nearest: first",
        ),
        ({"programs": [{"ranks": "0-1", "nodes": []}, {"ranks": [1], "nodes": []}]}, "rank 1 runs two programs"),
        ({"ranks": 4, "programs": [{"ranks": "0-1", "nodes": []}]}, "no program runs on rank 2 and 1 others"),
        ({"programs": [{"ranks": "a-b", "nodes": []}]}, "does not name ranks"),
        ({"ranks": 6, "groups": {"g": {"size": 4}}, "programs": [{"nodes": []}]}, "does not divide 6 ranks"),
        ({"groups": {"g": [[0, 1], [1]]}, "ranks": 2, "programs": [{"nodes": []}]}, "group 'g' lists rank 1 twice"),
        ({"groups": {"g": [9]}, "ranks": 2, "programs": [{"nodes": []}]}, "lists rank 9, but there are 2 ranks"),
        ({"programs": [{"nodes": [{"op": "send", "peer": "next", "bytes": 1}]}]}, "names no rank"),
        ({"programs": [{"nodes": [{"op": "all_reduce", "bytes": 1, "group": "tpp"}]}], "groups": {"tp": [0]}}, "Nearest: tp"),
        ({"programs": []}, "has no ranks"),
        (
            {"programs": [{"nodes": [{"op": "compute", "attrs": [{"name": "x", "kind": "int46", "value": 1}]}]}]},
            "no attribute kind",
        ),
    ],
)
def test_native_faults(tmp_path: Path, spec: dict[str, Any], told: str) -> None:
    with pytest.raises(TraceError, match=told):
        read_trace(native(tmp_path, **spec))


def test_numbers_too_large_for_their_column(tmp_path: Path) -> None:
    path = native(tmp_path, programs=[{"nodes": [{"op": "all_reduce", "bytes": 8, "root": 1 << 40}]}])
    with pytest.raises(TraceError, match="root"):
        read_trace(path)
    path = native(tmp_path, programs=[{"nodes": [{"op": "all_reduce", "bytes": 1 << 70}]}])
    with pytest.raises(TraceError, match="bytes"):
        read_trace(path)
    with pytest.raises(TraceError, match="not a valid protobuf"):
        read_trace(write(tmp_path, [comm(0, 5, comm_dst=1 << 40)]))
