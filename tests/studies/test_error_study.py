"""``distsim study error`` from the command line: planted errors, two traces, what is refused."""

from __future__ import annotations

import json

import pytest

from distsim.cli.main import main

PARTS = ("compute", "memory", "communication", "scheduling")


def study(capsys, *words):
    """(exit code, stdout, stderr) of ``distsim study error``."""
    code = main(["study", "error", *words])
    out, err = capsys.readouterr()
    return code, out, err


def document(capsys, *words):
    code, out, err = study(capsys, *words, "--json")
    assert code == 0, err
    return json.loads(out)


def chain(path, gemm, copy):
    """A trace of one rank: a kernel, then a copy, in us."""
    nodes = [
        {"op": "compute", "name": "gemm", "duration": f"{gemm}us"},
        {"op": "load", "name": "copy", "duration": f"{copy}us", "after": "gemm"},
    ]
    programs = [{"name": "rank", "ranks": "all", "nodes": nodes}]
    path.write_text(json.dumps({"format": "distsim-trace/1", "ranks": 1, "programs": programs}))
    return str(path)


def test_two_traces_of_the_same_nodes(tmp_path, capsys):
    measured, predicted = chain(tmp_path / "measured.json", 100, 40), chain(tmp_path / "predicted.json", 90, 55)
    found = document(capsys, measured, "--predicted", predicted)
    assert {part: found["total"][f"{part}_ps"] for part in PARTS} == {
        "compute": -10_000_000, "memory": 15_000_000, "communication": 0, "scheduling": 0,
    }  # fmt: skip
    assert found["composition_ps"] == {"kernels": 25_000_000, "parts": 25_000_000, "reached": 25_000_000, "step": 5_000_000}
    out = study(capsys, measured, "--predicted", predicted)[1]
    assert out.startswith("run +3.6 % (predicted 145 us, measured 140 us): compute -7.1 %, memory +10.7 %")


def test_a_planted_compute_error_is_computes(capsys):
    found = document(capsys, "dp_overlapped_buckets", "--scale-compute", "0.8333333333x")
    total = found["total"]
    assert total["error_ps"] > 0
    assert sum(total[f"{part}_ps"] for part in PARTS) == total["error_ps"]
    assert abs(total["compute_ps"] - total["error_ps"]) <= 0.01 * total["error_ps"]
    assert found["kernels"]["compute"]["bias"] == pytest.approx(0.2, abs=1e-6)
    assert found["differs"] == ["compute"]
    assert found["command"].startswith("distsim study error dp_overlapped_buckets")


def test_the_first_line_is_the_answer(capsys):
    code, out, _ = study(capsys, "dp_overlapped_buckets", "--scale-compute", "0.8x", "--quiet")
    assert code == 0
    assert out.startswith("run +")
    assert "compute +" in out
    assert "memory 0 %, communication 0 %, scheduling 0 %" in out


def test_page_and_folder(tmp_path, capsys):
    code, _, err = study(capsys, "dp_overlapped_buckets", "--scale-compute", "0.8x", "-o", str(tmp_path / "page.html"))
    assert code == 0, err
    assert "composition problem" in (tmp_path / "page.html").read_text()
    assert study(capsys, "dp_overlapped_buckets", "--scale-compute", "0.8x", "-o", str(tmp_path / "out"))[0] == 0
    assert (tmp_path / "out" / "results.csv").read_text().startswith("what,measured_ps,predicted_ps,error_ps,compute_ps")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("dp_overlapped_buckets", "--compute", "recorded"), "does not differ"),
        (("dp_overlapped_buckets", "--scale-compute", "quick"), "is no rescaling"),
        (("dp_overlapped_buckets", "--scale-compute", "a100->h1000"), "unknown GPU"),
        (("dp_overlapped_buckets", "--compute", "roofline"), "--peak"),
        (("dp_overlapped_buckets", "--predicted", "pipeline_send_recv"), "has 4 ranks, the measurement"),
        (("dp_overlapped_buckets", "--predicted", "x.json", "--scale-compute", "2x"), "has no effect beside --predicted"),
        (("dp_overlapped_buckets", "--predicted", "x.json", "--host", "none"), "--host has no effect"),
        (("nowhere.json",), "nowhere.json"),
    ],
)
def test_bad_input_is_refused_in_words(capsys, words, told):
    code, out, err = study(capsys, *words)
    assert code in (1, 2)
    assert told in err
    assert "Traceback" not in err
    assert not out


def test_a_captured_trace(traces_reference, capsys):
    file = str(traces_reference / "hta_ddp_2xA100" / "kineto_rank0.json.gz")
    found = document(capsys, file, "--host", "none")
    assert len([row for row in found["rows"] if row["what"].startswith("step ")]) == 3
    total = found["total"]
    assert total["scheduling_ps"] == total["error_ps"] < -0.5 * total["measured_ps"]  # the host holds this capture up
    network = ("--topo", "dgx_a100", "--collectives", "nccl", "--network", "analytic")
    found = document(capsys, file, *network, "--compute", "typical")
    assert found["differs"] == ["compute", "memory", "communication"]
    assert found["runs"] == 8
