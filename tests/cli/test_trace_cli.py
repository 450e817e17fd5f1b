"""``distsim trace`` and ``distsim convert``, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distsim.cli.main import main

TRACES = Path(__file__).resolve().parents[2] / "traces"
LLAMA = str(TRACES / "llama3_8b_tp8_dp8.json")


def test_first_line_is_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", LLAMA]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "64 ranks, 52,032 nodes; at least" in lines[0]
    assert "ms (critical path" in lines[0]
    assert any(line.split()[:3] == ["reduce_scatter", "tp", "8"] for line in lines)


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", LLAMA, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ranks"] == 64
    assert document["defects"] == []
    assert document["critical_path_ns"] > 1e7


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "TraceSpec"


def test_defects_are_listed_and_decide_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.json"
    nodes = [{"op": "compute", "duration": "1ms"}, {"op": "all_reduce", "bytes": 8, "after": [0, 77]}]
    path.write_text(json.dumps({"format": "distsim-trace/1", "programs": [{"nodes": nodes}]}))
    assert main(["trace", str(path)]) == 1
    out = capsys.readouterr().out
    assert "1 defect that forbids a replay" in out.splitlines()[0]
    assert "[error] dangling: node 1 of rank 0 depends on node 77" in out
    assert main(["trace", str(path), "--repair"]) == 0
    assert "[repaired]" in capsys.readouterr().out
    assert main(["trace", str(path), "--repair", "--strict"]) == 1


def test_no_file_and_no_such_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace"]) == 2
    assert main(["trace", "nowhere/w"]) == 1
    assert "no such trace" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["w.json", "w.parquet", "et/w"])
def test_convert_takes_the_ranks_of_a_workload(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workload = tmp_path / "w.txt"
    workload.write_text("MICRO\n1\na -1 1000 ALLREDUCE 1000000 2000 NONE 0 3000 ALLREDUCE 4000000 100\n")
    written = str(tmp_path / target)
    assert main(["convert", str(workload), written]) == 1
    assert "Give --ranks N" in capsys.readouterr().err
    assert main(["convert", str(workload), written, "--ranks", "4"]) == 0
    assert main(["trace", written, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ranks"] == 4
    assert main(["convert", str(TRACES / "pipeline_send_recv.json"), str(tmp_path / "p" / "x"), "--ranks", "3"]) == 2
    assert "--ranks: has no effect" in capsys.readouterr().err


def test_convert_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(TRACES / "pipeline_send_recv.json"), str(tmp_path / "et.tar.gz")]) == 0
    assert "as et" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "et.tar.gz"), str(tmp_path / "x.parquet")]) == 0
    assert main(["trace", str(tmp_path / "x.parquet"), "--strict"]) == 0
    assert "4 ranks, 164 nodes" in capsys.readouterr().out
    assert main(["convert", LLAMA, str(tmp_path / "y"), "--to", "ett"]) == 2
    assert "Nearest: et" in capsys.readouterr().err
