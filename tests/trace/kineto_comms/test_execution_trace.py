"""PyTorch's host execution traces: both schemas, joined to captures, and alone."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from distsim.cli.main import main
from distsim.errors import TraceError
from distsim.trace.kineto.execution_trace import beside, contents, link, read_execution_trace, told_beside
from distsim.trace.kineto.ranks import match
from distsim.trace.kineto.reading import read_capture

OLD = {
    "schema": "1.0.1", "pid": 1, "nodes": [
        {"name": "record_param_comms", "id": 5, "rf_id": 40, "parent": 4, "tid": 1,
         "inputs": [[7, 8, 0, 300, 4, "cuda:0"], 12, 94594108284448, 0, "all_to_allv", [100, 200], [150, 150]]},
        {"name": "nccl:all_to_all", "id": 6, "rf_id": 41, "parent": 5, "tid": 1, "inputs": [[7, 8, 0, 300, 4, "cuda:0"]]},
        {"name": "record_param_comms", "id": 7, "rf_id": 42, "parent": 4, "tid": 1, "inputs": [12, 0, 0, "wait", [], []]},
        {"name": "aten::mm", "id": 8, "rf_id": 43, "parent": 4, "tid": 2, "inputs": []},
    ],
}  # fmt: skip


def new(name, number, parent, values, **attrs):
    return {"name": name, "id": number, "ctrl_deps": parent, "inputs": {"values": values, "shapes": [], "types": []},
            "attrs": [{"name": key, "type": "", "value": value} for key, value in attrs.items()]}  # fmt: skip


NEW = {
    "schema": "1.1.1-chakra.0.0.4", "pid": 1, "nodes": [
        new("## process_group:init ##", 2, 1, [json.dumps([
            {"pg_name": "0", "ranks": [], "group_size": 4}, {"pg_name": "1", "ranks": [0, 2], "group_size": 2},
        ])]),
        new("record_param_comms", 5, 4, [[[7, 8, 0, 64, 2, "cuda:0"]], 3, ["1", "dp"], 1, "broadcast", [], [], 0, 2, 2],
            rf_id=9, tid=1, collective_name="broadcast", dtype="Half", in_msg_nelems=64, out_msg_nelems=64, pg_name="1",
            pg_size=2),
        new("nccl:broadcast", 6, 5, [], rf_id=10, tid=1),
    ],
}  # fmt: skip


def parse(document):
    return read_execution_trace(json.dumps(document).encode(), "made")


def test_schema_1_0():
    trace = parse(OLD)
    assert [(one.name, one.function) for one in trace.operations] == [("nccl:all_to_all", 41)]
    assert trace.operations[0].facts == {
        "operation": "all_to_allv", "in_bytes": 1200, "uneven": True, "root": 0, "sequence": 12,
    }  # fmt: skip
    assert (trace.threads, trace.operators) == (2, {"aten::mm": 1})


def test_schema_1_1():
    trace = parse(NEW)
    facts = trace.operations[0].facts
    assert (facts["operation"], facts["in_bytes"], facts["name"], facts["size"], facts["root"]) == ("broadcast", 128, "1", 2, 1)
    assert trace.groups["1"].ranks == (0, 2)
    assert trace.groups["0"].size == 4
    assert trace.document()["collectives"] == [
        {"operation": "broadcast", "group": "1", "ranks": 2, "count": 1, "bytes": 128, "largest": 128, "unknown": 0}
    ]


@pytest.mark.parametrize(("data", "message"), [
    (b"{", "is not JSON"), (b"[]", "no PyTorch execution trace"), (b'{"schema": "1.0.1"}', "no PyTorch execution trace"),
    (b'{"schema": "1.0.1", "nodes": [3]}', "node 0 has no name"), (b'{"schema": "1.0.1", "nodes": [{"name": "x"}]}', "node 0"),
])  # fmt: skip
def test_what_is_none_is_refused(data, message):
    with pytest.raises(TraceError, match=message):
        read_execution_trace(data, "bad")


def capture(**annotation):
    rank = annotation.pop("rank", 0)
    return read_capture(json.dumps({"distributedInfo": {"rank": rank, "world_size": 4}, "traceEvents": [
        {"ph": "X", "cat": "user_annotation", "name": "nccl:broadcast", "pid": 1, "tid": 1, "ts": 5, "dur": 9,
         "args": {"External id": 77, **annotation}},
        {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": 8, "dur": 2,
         "args": {"correlation": 3}},
        {"ph": "X", "cat": "kernel", "name": "ncclKernel_Broadcast_RING_LL(x)", "pid": 0, "tid": 9, "ts": 20, "dur": 5,
         "args": {"device": 0, "stream": 9, "correlation": 3}},
    ]}).encode(), "made")  # fmt: skip


@pytest.mark.parametrize("annotation", [{}, {"Record function id": 10}])
def test_a_capture_learns_sizes_and_groups(annotation):
    made = capture(**annotation)
    told = link(made, parse(NEW))
    assert match([made]).ranks[0].bytes.tolist() == [-1]
    found = match([made], told=[told])
    assert found.ranks[0].bytes.tolist() == [128]
    assert json.loads(found.metadata["kineto.groups"])[0]["ranks"] == [0, 2]


def test_a_trace_of_another_run_is_not_used(tmp_path):
    assert link(capture(), parse(OLD)) is None
    (tmp_path / "kineto_rank0.json").write_text("{}")
    (tmp_path / "et_rank0.json.gz").write_bytes(gzip.compress(json.dumps(OLD).encode()))
    told, defects = told_beside(str(tmp_path / "kineto_rank0.json"), capture())
    assert told is None
    assert "of another run" in defects[0].what
    assert beside(str(tmp_path / "other.json")) is None
    assert beside(str(tmp_path / "kineto_rank1.json")) is None


def test_a_broken_trace_beside_a_capture_is_told(tmp_path):
    (tmp_path / "et_rank0.json").write_text("{")
    with pytest.raises(TraceError, match=r"et_rank0\.json: is not JSON"):
        told_beside(str(tmp_path / "kineto_rank0.json"), capture())
    (tmp_path / "et_rank0.json").unlink()
    (tmp_path / "et_rank0.json.gz").write_bytes(b"\x1f\x8b broken")
    with pytest.raises(TraceError, match="cannot be read"):
        told_beside(str(tmp_path / "kineto_rank0.json"), capture())


def test_reference_traces_say_of_dlrm_what_its_captures_say(traces_reference):
    folder = traces_reference / "param_dlrm_8xV100"
    for rank in (0, 7):
        path = folder / f"kineto_rank{rank}.json.gz"
        made = read_capture(path)
        told, defects = told_beside(str(path), made)
        assert len(told) == 8
        assert not defects
        with_, without = match([made], told=[told]), match([made])
        assert (with_.ranks[0].bytes == without.ranks[0].bytes).all()
        assert (with_.ranks[0].collective == without.ranks[0].collective).all()
        assert np.count_nonzero([facts.get("uneven", False) for facts in told.values()]) == 1


def test_reference_trace_alone_tells_its_collectives(traces_reference, capsys):
    path = traces_reference / "param_resnet_2gpu" / "et_rank0.json.gz"
    document = read_execution_trace(contents(str(path)), "resnet").document()
    assert {(one["operation"], one["count"]) for one in document["collectives"]} == {("broadcast", 6), ("all_reduce", 15)}
    assert main(["trace", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["collectives"] == document["collectives"]
    assert main(["trace", str(path)]) == 0
    assert "15 all_reduce of group 0 (2 ranks): 292.5 MiB" in capsys.readouterr().out
    assert main(["trace", str(path), "--strict"]) == 1
    capsys.readouterr()
    assert main(["run", str(path)]) == 1
    assert "kineto_rank<N>.json" in capsys.readouterr().err
