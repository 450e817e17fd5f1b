"""Captured traces through the door: files, folders, ranks, strictness, conversion, the command line."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from kineto_files import KinetoFile

from distsim.api import simulate
from distsim.cli.main import main
from distsim.errors import ConfigError, TraceError
from distsim.trace.convert import convert
from distsim.trace.graph import NodeType
from distsim.trace.read import load, read_trace

REDUCE = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgs)"


def capture(rank, world=2, late=0, said=True):
    """A rank that computes, reduces with the others and computes again; ``late`` ns later than others."""
    info = {"backend": "nccl", "rank": rank, "world_size": world} if said else {}
    file = KinetoFile(distributedInfo=info, deviceProperties=[{"id": 0, "name": "NVIDIA H100"}])
    file.step(1, 0, 400_000)
    file.launched(1_000, 8_000, 50_000 + late, 7, name="backward")
    number = file.call("cudaLaunchKernel", 20_000, 22_000)
    file.ran(REDUCE, 60_000 + late, 300_000, 20, number, **{
        "Collective name": "allreduce", "In msg nelems": 1024, "Out msg nelems": 1024, "dtype": "Float", "Group size": world,
        "Process Group Name": "0", "Process Group Ranks": str(list(range(world))),
    })  # fmt: skip
    file.launched(310_000, 317_000, 340_000, 7, name="optimizer")
    return file


@pytest.fixture
def folder(tmp_path):
    """Two ranks, one of them gzipped, and another file beside."""
    (tmp_path / "kineto_rank0.json").write_bytes(capture(0, late=90_000).data())
    (tmp_path / "kineto_rank1.json.gz").write_bytes(gzip.compress(capture(1).data()))
    (tmp_path / "notes.json").write_text('{"a": 1}')
    return tmp_path


def test_a_folder_is_the_trace_of_its_ranks(folder):
    graph = read_trace(str(folder))
    assert (graph.ranks, graph.captured, graph.steps) == (2, True, ("ProfilerStep#1",))
    result = simulate(str(folder))
    spans = result.spans()
    row = [k for k in range(len(spans)) if spans.names[spans.name[k]] == REDUCE]
    assert [int(spans.start[k]) // 10**6 for k in row] == [149, 59]  # from the earliest event, at 1 us
    assert [int(spans.end[k]) // 10**6 for k in row] == [299, 299]
    assert result.warnings == ()


def test_a_number_of_ranks_is_refused_not_ignored(folder, capsys):
    for ranks in ("2", "-1"):
        assert main(["trace", str(folder), "--ranks", ranks]) == 2
        assert "--ranks: has no effect" in capsys.readouterr().err


def test_files_in_any_order_and_alone(folder):
    files = [str(folder / "kineto_rank1.json.gz"), str(folder / "kineto_rank0.json")]
    forth, back = read_trace(tuple(files)), read_trace(tuple(reversed(files)))
    assert forth.ranks == back.ranks == 2
    assert all((a.start_ps == b.start_ps).all() for a, b in zip(forth.programs, back.programs, strict=True))
    alone = read_trace(files[0])
    assert alone.ranks == 1
    assert json.loads(alone.metadata["kineto.ranks"]) == [1]


def test_ranks_by_the_names_of_files(tmp_path):
    for rank in (0, 2, 10):
        (tmp_path / f"host_rank{rank}.1694128201.pt.trace.json").write_bytes(capture(rank, 11, said=False).data())
    graph = read_trace(str(tmp_path))
    assert json.loads(graph.metadata["kineto.ranks"]) == [0, 2, 10]


def test_two_files_of_one_rank(tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_bytes(capture(1).data())
    with pytest.raises(TraceError, match=r"is of rank 1, as is .*a\.json"):
        read_trace(str(tmp_path))


def test_a_file_that_is_no_capture_among_captures(folder):
    with pytest.raises(ConfigError, match=r"notes\.json: is no captured"):
        read_trace((str(folder / "kineto_rank0.json"), str(folder / "notes.json")))
    with pytest.raises(TraceError, match="no such file"):
        read_trace((str(folder / "kineto_rank0.json"), str(folder / "absent.json")))
    with pytest.raises(ConfigError, match="holds its own groups"):
        read_trace(str(folder), groups=str(folder / "notes.json"))


def test_strict_refuses_what_was_repaired(tmp_path):
    file = capture(0, 1)
    file.ran("lost", 350_000, 360_000, 7, 987_654)
    path = tmp_path / "k.json"
    path.write_bytes(file.data())
    graph, defects = load(str(path))
    assert any("without a launch" in line for line in graph.defects)
    assert all(d.repaired or d.severity == "warning" for d in defects)
    with pytest.raises(TraceError, match="without a launch"):
        read_trace(str(path), strict=True)


def test_the_same_oddity_of_many_ranks_is_told_once(tmp_path):
    for rank in range(4):
        file = capture(rank, 4)
        file.ran("lost", 350_000, 360_000, 7, 987_654)
        (tmp_path / f"rank{rank}.json").write_bytes(file.data())
    told = [line for line in read_trace(str(tmp_path)).defects if "without a launch" in line]
    assert len(told) == 1
    assert told[0].startswith("capture: 4 kernels and copies")
    assert "(in 4 of 4 files)" in told[0]


def same(one, other):
    assert (one.steps, one.captured, dict(one.metadata)) == (other.steps, other.captured, dict(other.metadata))
    for a, b in zip(one.programs, other.programs, strict=True):
        for column in ("id", "type", "dep_ptr", "dep", "duration_ps", "start_ps", "tensor_size", "cpu", "collective", "bytes",
                       "root", "step"):  # fmt: skip
            assert (getattr(a, column) == getattr(b, column)).all(), column
        assert [one.names[n] for n in a.name] == [other.names[n] for n in b.name]
        assert [one.streams[s] if s >= 0 else "" for s in a.stream] == [other.streams[s] if s >= 0 else "" for s in b.stream]


def test_native_and_parquet_hold_a_captured_trace(folder, tmp_path):
    out = tmp_path / "out"
    graph = read_trace(str(folder))
    convert(str(folder), str(out / "w.json"))
    convert(str(out / "w.json"), str(out / "w.parquet"))
    convert(str(out / "w.parquet"), str(out / "v.json"))
    same(graph, read_trace(str(out / "w.json")))
    same(graph, read_trace(str(out / "w.parquet")))
    assert (out / "w.json").read_bytes() == (out / "v.json").read_bytes()
    makespans = {simulate(str(path)).makespan for path in (folder, out / "w.json", out / "w.parquet")}
    assert len(makespans) == 1


def test_chakra_cannot_hold_a_captured_trace(folder, tmp_path):
    for to in ("et", "chakra-json", "chakra-legacy"):
        with pytest.raises(TraceError, match="which Chakra cannot hold"):
            convert(str(folder), str(tmp_path / "out" / "w"), to)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_delays_in_a_native_trace(tmp_path):
    """Written by hand: a delay beside everything, and one that holds its stream; Chakra has none."""
    nodes = [
        {"op": "compute", "name": "a", "duration": "10us", "stream": "s"},
        {"op": "delay", "after": "a", "duration": "5us", "name": "latency"},
        {"op": "delay", "after": [], "duration": "7us", "stream": "s"},
        {"op": "compute", "after": "latency", "duration": "1us", "stream": "s"},
    ]
    path = tmp_path / "w.json"
    path.write_text(json.dumps({"format": "distsim-trace/1", "ranks": 1, "programs": [{"nodes": nodes}]}))
    graph = read_trace(str(path))
    assert graph.programs[0].type.tolist() == [NodeType.COMP, NodeType.DELAY, NodeType.DELAY, NodeType.COMP]
    assert simulate(graph).makespan == 18 * 10**6
    convert(str(path), str(tmp_path / "w.parquet"))
    assert read_trace(str(tmp_path / "w.parquet")).programs[0].type.tolist() == graph.programs[0].type.tolist()
    with pytest.raises(TraceError, match="is a delay, which Chakra does not know"):
        convert(str(path), str(tmp_path / "w.et"))


def test_trace_command(folder, capsys):
    assert main(["trace", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "captured on NVIDIA H100: ranks 0, 1 of 2" in text
    assert "ProfilerStep#1" in text
    assert "gpu stream 7" in text
    assert main(["trace", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["captured"]
    told = [(one["rank"], one["span_ns"], one["communication_ns"]) for one in said["steps"]]
    assert told == [(0, 332_000.0, 150_000.0), (1, 332_000.0, 240_000.0)]
    assert main(["trace", *map(str, sorted(folder.glob("kineto*")))]) == 0


def test_trace_command_refuses(folder, tmp_path, capsys):
    assert main(["trace", str(folder / "kineto_rank0.json"), str(folder / "notes.json")]) == 2
    assert "is no captured" in capsys.readouterr().err
    bad = tmp_path / "bad.json"
    bad.write_text('{"traceEvents": [{"ph": "X", "cat": "cpu_op", "ts": 1, "dur": 1, "name": "x", "pid": 1, "tid": 1}]}')
    assert main(["trace", str(bad)]) == 1
    assert "only the host was recorded" in capsys.readouterr().err
    file = capture(0, 1)
    file.ran("lost", 350_000, 360_000, 7, 987_654)
    bad.write_bytes(file.data())
    assert main(["trace", str(bad)]) == 0
    assert main(["trace", str(bad), "--strict"]) == 1


def test_run_command(folder, capsys):
    assert main(["run", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ranks"] == 2


def test_chakra_from_the_field(traces_reference):
    archive = str(traces_reference / "chakra_json" / "json_trace.tar.gz")
    graph, defects = load(f"{archive}:jsonData/chakra")
    program = graph.programs[0]
    assert (np.bincount(program.type)[[NodeType.COMP, NodeType.COMM_COLL]]).tolist() == [3657, 7]
    assert {d.kind for d in defects} == {"field"}
    assert (program.collective[program.type == NodeType.COMM_COLL] >= 0).all()
    result = simulate(graph)
    longest = int(program.duration_ps[~program.cpu].sum())
    assert 0 < result.makespan <= int(np.maximum(program.duration_ps, 0).sum())
    assert longest > 0
    with pytest.raises(TraceError, match="holds rank files of 2 traces"):
        load(archive)
    with pytest.raises(TraceError, match="holds no PREFIX"):
        load(f"{archive}:jsonData/absent")
    repaired, defects = load(f"{archive}:jsonData/small_chakra", repair=True)
    assert sum(d.kind == "dangling" for d in defects) == 7
    assert simulate(repaired).makespan > 0


def legacy(nodes):
    """A Chakra trace as converters write it."""
    return json.dumps({"workload_graph": [
        {"Id": k, "Name": name, "NodeType": kind, "data_deps": deps, "runtime": 10, "is_cpu_op": False,
         "start_time_micros": start, "stream": stream} for k, (name, kind, deps, start, stream) in enumerate(nodes)
    ]})  # fmt: skip


def test_gpu_nodes_follow_the_times_of_their_stream(tmp_path):
    """Ids say another order than times: the collective would be issued first."""
    path = tmp_path / "w.0.json"
    path.write_text(legacy([("ncclKernel_AllReduce_RING", 7, [], 40, 20), ("b", 4, [], 30, 7), ("a", 4, [], 10, 7)]))
    graph, defects = load(str(path))
    assert [d.what for d in defects if "ordered by time" in d.what] == [
        "1 GPU node in another order than their times on their stream: ordered by time"
    ]
    spans = simulate(graph).spans()
    assert {spans.names[n]: int(s) for n, s in zip(spans.name, spans.start, strict=True)}["b"] == 10 * 10**6
    contradicts = tmp_path / "c.0.json"
    contradicts.write_text(legacy([("b", 4, [], 30, 7), ("a", 4, [0], 10, 7)]))
    _, defects = load(str(contradicts))
    assert any("contradict its dependencies" in d.what for d in defects)
