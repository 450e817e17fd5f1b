"""``distsim validate vllm``: the bars on measured runs, and folders that are not what they should be."""

from __future__ import annotations

import json

import pytest
from profile_tables import profile

from distsim.cli.main import main
from distsim.errors import ConfigError
from distsim.validation.vllm import Vllm

#: mean errors of time to first token, time per output token and latency, and the mean error of a request's latency
BARS = {"RTX4090/Llama-3.1-8B": (0.015, 0.01, 0.01, 0.01), "RTXPRO6000/Llama-3.1-8B": (0.04, 0.015, 0.02, 0.02)}


def test_the_bars_on_measured_runs(serving_reference):
    report = Vllm().run(serving_reference / "vllm_measured", lambda fraction, what: None)
    assert not report.refused
    assert report.expressed == report.rows >= 600
    for name, (ttft, tpot, latency, mape) in BARS.items():
        group = report.groups[name]
        assert abs(group["ttft_mean_error"]) <= ttft
        assert abs(group["tpot_mean_error"]) <= tpot
        assert abs(group["latency_mean_error"]) <= latency
        assert group["latency_mape"] <= mape
        assert group["extrapolated"] == 0
    assert report.metrics["latency_mape"] == max(group["latency_mape"] for group in report.groups.values())


def setup(folder, *, count=20, blocks=400, **kwargs):
    """A run of a made-up engine, whose tokens all come 0.1 s after one another."""
    run = folder / "GPU" / "llama3-8b"
    profile(run / "profile")
    requests, asked = [], []
    for row in range(count):
        arrival, prompt, output = 0.01 * row, 100 + row, 10
        stamps = {"queued_ts": 50 + arrival, "scheduled_ts": 50.1 + arrival, "first_token_ts": 50.2 + arrival}
        stamps |= {"last_token_ts": 51.1 + arrival, "arrival_time": 1e9 + arrival}
        requests.append({"request_id": str(row), "input_toks": prompt, "output_toks": output, **stamps})
        asked.append({"input_toks": prompt, "output_toks": output, "arrival_time_ns": int(arrival * 1e9)})
        asked[-1]["input_tok_ids"] = list(range(prompt))
    engine = {"max_num_seqs": 128, "max_num_batched_tokens": 2048, **kwargs}
    meta = {"model": "meta-llama/Llama-3.1-8B", "engine_kwargs": engine, "kv_cache": {"num_gpu_blocks": blocks}}
    (run / "meta.json").write_text(json.dumps(meta))
    (run / "requests.jsonl").write_text("\n".join(map(json.dumps, requests)))
    (folder / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    return run


def test_a_made_up_run_is_scored(tmp_path, capsys):
    setup(tmp_path)
    assert main(["validate", "vllm", "--data", str(tmp_path), "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    group = document["groups"]["GPU/llama3-8b"]
    assert document["expressed"] == document["rows"] == group["rows"] == 20
    assert not document["refused"]
    assert document["metrics"]["tpot_mean_error"] == group["tpot_mean_error"] < 0  # its kernels are faster than 0.1 s
    assert main(["validate", "vllm", "--data", str(tmp_path), "--quiet", "--fail-over", "latency_mape=0.01"]) == 1


def test_blocks_that_were_not_recorded_are_what_memory_leaves(tmp_path):
    run = setup(tmp_path)
    meta = json.loads((run / "meta.json").read_text())
    del meta["kv_cache"]["num_gpu_blocks"]
    (run / "meta.json").write_text(json.dumps(meta))
    report = Vllm().run(tmp_path, lambda fraction, what: None)
    assert any("neither its KV blocks nor memory" in reason for reason in report.refused)
    meta["engine_kwargs"]["dtype"], meta["hardware"] = "bfloat16", {"device_total_memory_bytes": 24 << 30}
    (run / "meta.json").write_text(json.dumps(meta))
    assert not Vllm().run(tmp_path, lambda fraction, what: None).refused
    meta["hardware"]["device_total_memory_bytes"] = 16 << 30
    (run / "meta.json").write_text(json.dumps(meta))
    assert any("leaves no memory" in reason for reason in Vllm().run(tmp_path, lambda fraction, what: None).refused)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root, run: (root / "asked.jsonl").unlink(), "no file of requests has these"),
        (lambda root, run: (run / "requests.jsonl").write_text("{"), "no JSON"),
        (lambda root, run: (run / "requests.jsonl").write_text('{"input_toks": 3, "queued_ts": 1}'), "malformed"),
        (lambda root, run: (run / "requests.jsonl").write_text(""), "no requests"),
        (lambda root, run: (run / "requests.jsonl").unlink(), "holds no requests.jsonl"),
        (lambda root, run: (run / "meta.json").write_text("[]"), "is no JSON object"),
        (lambda root, run: (run / "profile" / "dense.csv.gz").unlink(), "holds no dense"),
        (lambda root, run: (run / "profile").rename(run / "other"), "is not a folder"),
    ],
)
def test_a_run_that_does_not_read_is_counted_as_refused(tmp_path, spoil, message):
    spoil(tmp_path, setup(tmp_path))
    report = Vllm().run(tmp_path, lambda fraction, what: None)
    assert [reason for reason in report.refused if message in reason]
    assert report.expressed == 0
    assert report.worst[0]["group"] == "refused"


def test_requests_longer_than_the_cache_are_refused_in_words(tmp_path):
    setup(tmp_path, blocks=4)
    report = Vllm().run(tmp_path, lambda fraction, what: None)
    assert [reason for reason in report.refused if "did not finish" in reason]


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"holds no meta\.json"):
        Vllm().run(tmp_path, lambda fraction, what: None)
    assert main(["validate", "vllm", "--data", str(tmp_path), "--quiet"]) == 2
    assert "meta.json" in capsys.readouterr().err
