"""distsim validate silicon: the reference's dense points, rows worked out by hand, bad data."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json

import pytest

from distsim.cli.main import main
from distsim.serving.deployment import Deployment
from distsim.serving.iteration import Shape
from distsim.serving.times.model import ModelTimes
from distsim.validation.silicon_rows import COLUMNS, case_of
from distsim.validation.silicon_run import PER_CLIENT, TOKENISE, _waves, _weights, predict

WORKERS = [
    f"{role}_{what}" for role in ("prefill", "decode")
    for what in ("batch_size", "num_workers", "tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
]  # fmt: skip
ROW = {
    "id": "one", "backend": "vllm", "backend_version": "0.19.0", "model_path": "meta-llama/Llama-3.1-8B-Instruct",
    "system": "h100_sxm", "mode": "agg", "isl": "512", "osl": "64", "batch_size": "1.0", "tp_size": "1.0", "pp_size": "1.0",
    "silicon_ttft_ms": "20", "silicon_tpot_ms": "7",
}  # fmt: skip


def _row(**change):
    return {name: "" for name in (*COLUMNS, *WORKERS)} | ROW | change


def _write(folder, *rows, name="points.csv.gz"):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with gzip.open(folder / name, "wt") as file:
        file.write(out.getvalue())
    return ["validate", "silicon", "--data", str(folder), "--quiet"]


def _document(capsys, arguments):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_one_client_by_hand(tmp_path, capsys):
    """A client alone: its prompt, then 63 tokens; 5 ms to the server, 1.1 us a token for the tokeniser."""
    times = ModelTimes(Deployment(model="llama3-8b", gpu="h100_sxm"))
    ttft = times.times(Shape(((512, 0),), 0, 0, 0, 1))[0] / 1e9 + 5.0 + 512 * 1.1e-3
    tpot = sum(times.times(Shape((), 1, 512 + n, 512 + n, 1))[0] for n in range(63)) / 63 / 1e9
    document = _document(capsys, _write(tmp_path, _row(silicon_ttft_ms=str(ttft), silicon_tpot_ms=str(tpot))))
    assert document["expressed"] == document["matched"] == 1
    assert document["metrics"]["ttft_mape"] == pytest.approx(0, abs=1e-9)
    assert document["metrics"]["tpot_mape"] == pytest.approx(0, abs=1e-9)
    assert list(document["groups"]) == ["Llama-3.1-8B-Instruct, h100_sxm, vllm agg"]


def test_scatter_of_repeated_measurements(tmp_path, capsys):
    rows = [_row(id=str(n), silicon_tpot_ms=str(ms)) for n, ms in enumerate((8, 10, 12))]
    metrics = _document(capsys, _write(tmp_path, *rows))["metrics"]
    assert metrics["tpot_noise"] == pytest.approx(0.4 / 3)
    assert metrics["ttft_noise"] == 0


def test_a_disaggregated_point(tmp_path, capsys):
    workers = {name: "1.0" for name in WORKERS}
    document = _document(capsys, _write(tmp_path, _row(mode="disagg", batch_size="", tp_size="", **workers)))
    times = ModelTimes(Deployment(model="llama3-8b", gpu="h100_sxm"))
    worst = document["worst"][0]
    assert worst["simulated_ttft_ms"] == pytest.approx(times.times(Shape(((512, 0),), 0, 0, 0, 1))[0] / 1e9 + 5.0)
    assert worst["simulated_tpot_ms"] == pytest.approx(times.times(Shape((), 1, 544, 544, 1))[0] / 1e9)


@pytest.mark.parametrize(("change", "reason"), [
    ({"model_path": "nobody/Nothing-1B"}, "unknown model"),
    ({"system": "h999"}, "unknown GPU"),
    ({"tp_size": "3.0"}, "does not divide"),
    ({"batch_size": ""}, "batch_size is empty"),
    ({"batch_size": "1.5"}, "batch_size is 1.5"),
    ({"silicon_tpot_ms": "-1"}, "is no time"),
    ({"gemm_quant_mode": "fp3"}, "is not known"),
    ({"model_path": "meta-llama/Meta-Llama-3.1-70B"}, "does not fit the memory"),
    ({"mode": "disagg"}, "without its numbers of workers"),
    ({"id": "x_tp8_ep8_1", "tp_size": "64"}, "does not divide"),
    ({"id": "x_tp4_ep1_1"}, "another parallelism"),
    ({"isl": "900000"}, "longer than the KV cache"),
])  # fmt: skip
def test_rows_that_cannot_be_expressed_are_counted_with_reasons(tmp_path, capsys, change, reason):
    document = _document(capsys, _write(tmp_path, _row(**change), _row()))
    assert (document["rows"], document["expressed"]) == (2, 1)
    ((said, count),) = document["refused"].items()
    assert reason in said
    assert count == 1


def test_a_missing_column_and_an_empty_folder(tmp_path, capsys):
    arguments = _write(tmp_path, {name: value for name, value in _row().items() if name != "isl"})
    assert main(arguments) == 2
    assert "has no column isl" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["validate", "silicon", "--data", str(tmp_path / "empty"), "--quiet"]) == 2
    assert "silicon_e2e_measured.csv" in capsys.readouterr().err


def test_formats_of_mixtures():
    int4 = {"gemm_quant_mode": "int4_wo", "moe_quant_mode": "int4_wo"}
    case = case_of(_row(model_path="moonshotai/Kimi-K2.5", system="b200_sxm", tp_size="8", moe_tp_size="8", **int4))
    assert (case.deployment.weights, case.deployment.experts, case.shortest) == ("bf16", "int4", 0.8)
    dense = case_of(_row(backend="trtllm", gemm_quant_mode="fp8", moe_quant_mode="fp8"))
    assert (dense.deployment.weights, dense.deployment.kv_dtype, dense.shortest) == ("fp8", "fp8", 1.0)


def test_a_sample_of_the_reference(serving_reference, tmp_path, capsys):
    """Every sixth dense point, aggregated; the whole is at 28.6 % and 11.9 % (docs/serving_times.md)."""
    with gzip.open(serving_reference / "silicon_e2e_measured.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["mode"] == "agg"]
    rows = [row for row in rows if "Qwen3-32B" in row["model_path"] or "Llama" in row["model_path"]]
    document = _document(capsys, _write(tmp_path, *rows[::6]))
    assert document["expressed"] > 0.9 * document["rows"]
    assert document["metrics"]["tpot_mape"] <= 0.14
    assert document["metrics"]["ttft_mape"] <= 0.34


def test_prompts_that_come_again_are_found_where_the_server_looks():
    """aiperf's hundred prompts, in rows of thousands; genai-perf's, all different, in those of powers of two."""
    cached = case_of(_row(isl="2000"))
    assert cached.prompts == 100
    assert "prefix_caching=true" in cached.scheduler
    assert case_of(_row(isl="2048")).prompts == 0
    assert case_of(_row(isl="2000", backend="trtllm")).prompts == 0
    plain = dataclasses.replace(cached, clients=64, prompts=0, scheduler=cached.scheduler.replace("true", "false"))
    again = dataclasses.replace(cached, clients=64)
    assert predict(again).ttft < 0.7 * predict(plain).ttft
    assert predict(again).tpot < predict(plain).tpot


def test_prompts_wait_for_the_tokeniser():
    """Clients that start together: a server that takes no time would see them one after the other."""
    one, many = (predict(dataclasses.replace(case_of(_row(isl="4096", osl="2")), clients=n)) for n in (1, 8))
    assert many.ttft > one.ttft + 3.5 * 4096 * TOKENISE / 1e9


@pytest.mark.parametrize("clients", [1, 8, 9, 100, 240, 300, 1000])
def test_weights_stand_for_ten_requests_per_client(clients):
    waves = _waves(clients)
    assert 3 <= waves <= PER_CLIENT
    for weights in _weights(waves):
        assert len(weights) == waves
        assert sum(weights) == pytest.approx(1)
        assert weights[0] == pytest.approx(1 / PER_CLIENT)


def test_fewer_requests_per_client_hardly_move_the_points(monkeypatch):
    """Five per client, weighted, against all ten: single points move by some per cent, their mean does not."""
    cases = [dataclasses.replace(case_of(_row(isl="1024", osl="128")), clients=n) for n in (12, 24, 40, 64, 100, 128)]
    few = [predict(case) for case in cases]
    monkeypatch.setattr("distsim.validation.silicon_run._ALL", 1 << 30)
    ten = [predict(case) for case in cases]
    pairs = list(zip(few, ten, strict=True))
    assert sum(one.ttft / other.ttft for one, other in pairs) / len(pairs) == pytest.approx(1, abs=0.03)
    assert sum(one.tpot / other.tpot for one, other in pairs) / len(pairs) == pytest.approx(1, abs=0.01)
    assert all(one.ttft == pytest.approx(other.ttft, rel=0.15) for one, other in pairs)


def test_early_versions_of_tensorrt_llm_leave_a_fifth_of_the_memory():
    early, late = (case_of(_row(backend="trtllm", backend_version=version)) for version in ("1.0.0rc3", "1.2.0rc6"))
    assert (early.deployment.utilisation, late.deployment.utilisation) == (0.8, 0.0)
