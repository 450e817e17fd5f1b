"""``distsim serve``: the answer, its JSON, its files, its options, and what is refused how."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from distsim.cli.main import main
from distsim.cli.serving_options import GROUPS
from distsim.serve import ServeSpec
from distsim.serving.deployment import Deployment
from distsim.serving.fleet import Pool
from distsim.serving.iteration import Shape
from distsim.serving.times.model import ModelTimes
from distsim.topology.spec import build

SMALL = ["serve", "--model", "llama3-8b", "--cluster", "h100:gpus=1", "--requests", "poisson:qps=5", "--n", "60",
         "--lengths", "uniform:prompt=50-900,output=2-60"]  # fmt: skip
#: keys that readers of --json and summary.json rely on
KEYS = {
    "": {"format", "schema", "answer", "requests", "latencies", "throughput", "goodput", "limit", "kv", "prefix_cache",
         "iterations", "gpus", "gpu_seconds", "price", "energy_estimate", "relative_error", "tenants", "replica_count",
         "replicas", "end_ps", "warnings", "counts", "spec", "provenance", "measured_relative_error", "tiers", "swap",
         "speculation"},
    "requests": {"asked", "finished", "dropped", "unfinished", "dropped_by_reason", "restarted"},
    "latencies": {"ttft_ps", "tpot_ps", "latency_ps", "queueing_ps", "normalised_ps", "between_tokens_ps",
                  "longest_between_tokens_ps"},
    "goodput": {"slo", "share", "requests_per_s", "met"},
    "limit": {"by", "of", "because", "waiting_share", "kv_short_share", "kv_short_share_of_waiting",
              "seats_taken_share", "time_shares"},
    "kv": {"mean_share", "peak_share"},
    "iterations": {"count", "batch_mean", "batch_most", "busy_share", "preemptions", "prompt_tokens", "recomputed_tokens"},
}  # fmt: skip


def run(capsys, *words, code=0):
    assert main(list(words)) == code
    return capsys.readouterr()


def made(capsys, *words):
    return json.loads(run(capsys, *SMALL, *words, "--json").out)


def test_the_first_line_is_the_answer(capsys):
    lines = run(capsys, *SMALL, "--slo", "ttft=2s,tpot=50ms", "--price", "2").out.splitlines()
    for word in ("requests/s", "output tokens/s", "per GPU", "1 x h100_sxm", "TTFT", "TPOT", "P99", "goodput 100.0 %", "KV",
                 "limited by memory (bandwidth)"):  # fmt: skip
        assert word in lines[0], word
    assert any("time to first token" in line for line in lines)
    assert any("per million output tokens" in line for line in lines)
    assert any("estimate" in line for line in lines)
    assert run(capsys, *SMALL, "--quiet").out.count("\n") == 1


def test_json_is_one_document_with_stable_keys(capsys):
    found = made(capsys, "--slo", "ttft=2s", "--price", "2")
    for place, keys in KEYS.items():
        assert set(found[place] if place else found) == keys, place
    assert found["format"] == "distsim-serving"
    assert found["schema"] == 1
    assert set(found["latencies"]["ttft_ps"]) == {"count", "mean", "p50", "p90", "p95", "p99", "most"}
    assert found["requests"]["asked"] == found["requests"]["finished"] == 60
    assert found["spec"]["seed"] == found["provenance"]["seed"] == 0
    assert found["spec"]["pools"][0]["deployment"]["gpu"] == "h100"
    assert sum(found["limit"]["time_shares"].values()) == pytest.approx(1)
    assert 0 < found["relative_error"]["model"] < 1
    assert found["price"]["total"] == pytest.approx(found["gpu_seconds"] / 3600 * 2)
    without = made(capsys)
    assert without["price"] is None
    assert without["goodput"] is None


def test_a_lone_request_takes_what_the_provider_says(capsys, tmp_path):
    (tmp_path / "one.csv").write_text("arrival_s,prompt,output\n0,777,4\n")
    words = ["serve", "--model", "llama3-8b", "--cluster", "h100:gpus=2", "--tp", "2", "--requests", str(tmp_path / "one.csv")]
    found = json.loads(run(capsys, *words, "--json").out)
    times = ModelTimes(Deployment.of(model="llama3-8b", gpu="h100_sxm", tp=2), build("dgx_h100:gpus=2"))
    first = sum(times.times(Shape(((777, 0),), 0, 0, 0, 1)))
    rest = [sum(times.times(Shape((), 1, kv, kv, 1))) for kv in (777, 778, 779)]
    assert found["latencies"]["ttft_ps"]["mean"] == first
    assert found["latencies"]["latency_ps"]["mean"] == first + sum(rest)
    assert found["end_ps"] == first + sum(rest)


def test_the_same_seed_gives_the_same_bytes_and_stepping_the_same_times(capsys):
    assert made(capsys) == made(capsys)
    assert made(capsys)["latencies"] == made(capsys, "--stepped")["latencies"]
    assert made(capsys)["latencies"] != made(capsys, "--seed", "1")["latencies"]


def test_output_folder_and_timeline(capsys, tmp_path):
    out, timeline = tmp_path / "out", tmp_path / "t.json.gz"
    run(capsys, *SMALL, "-o", str(out), "--timeline", str(timeline))
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    tables = {f"{name}.parquet" for name in ("requests", "iterations", "replicas", "series")}
    assert set(first) == tables | {"summary.json", "page.html"}
    assert json.loads(first["summary.json"])["requests"]["asked"] == 60
    assert timeline.stat().st_size > 100
    run(capsys, *SMALL, "--out", str(out))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first


def test_a_specification_file_with_pools_that_differ(capsys, tmp_path):
    spec = tmp_path / "serve.yaml"
    spec.write_text(
        "cluster: h100:gpus=4\nmodel: llama3-8b\nrequests: poisson:qps=50\nlengths: fixed:prompt=100,output=20\nn: 40\n"
        "slo: {ttft: 1s, percentile: 90}\nprice: 3\n"
        "pools:\n- {name: large, tp: 2}\n- {name: small, replicas: 2, weights: fp8}\n"
    )
    found = json.loads(run(capsys, "serve", "--spec", str(spec), "--n", "30", "--json").out)
    assert [row["pool"] for row in found["replicas"]] == ["large", "small", "small"]
    assert [row["gpus"] for row in found["replicas"]] == [2, 1, 1]
    assert found["requests"]["asked"] == 30
    assert found["goodput"]["slo"]["percentile"] == 90
    assert found["price"]["per_gpu_hour"] == 3
    assert found["gpus"] == 4


def test_the_cluster_has_as_many_gpus_as_were_asked_for(capsys):
    two = json.loads(run(capsys, *SMALL, "--cluster", "h100:gpus=2", "--json").out)
    assert two["gpus"] == 2
    assert two["replica_count"] == 2
    assert "there are 2" in run(capsys, *SMALL, "--cluster", "h100:gpus=2", "--tp", "4", code=2).err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scheduler", "vllm_v2"], "vllm_v1"), (["--router", "lorr"], "Nearest: lor"), (["--gpu", "h101"], "h100_sxm"),
        (["--model", "llama3-8"], "llama3-8b"), (["--tp", "3"], "does not divide 32 attention heads"),
        (["--scheduler", "vllm_v1:max_num_seq=3"], "max_num_seqs"), (["--cluster", "dgx_h10:gpus=1"], "topology"),
        (["--kv-blocks", "0"], "hold no request"), (["--slo", "ttff=2s"], "ttft"), (["--price", "-1"], "no price"),
        (["--price", "nan"], "no price"), (["--requests", "nofile.csv"], "no such file"), (["--spec", "no.yaml"], "no.yaml"),
        (["--replicas", "3"], "there are 1"), (["--out", ""], "no name"), (["--timeline", "/nowhere/t.json"], "/nowhere"),
        (["--qps", "-4"], "qps"), (["--n", "0"], "n is 0"), (["--set", "nonsense"], "KEY=VALUE"),
        (["--set", "replica=2"], "replicas"),
        (["--model", "llama3-70b"], "leave no room"), (["--times", "modell"], "model"), (["--max-total", "1"], "max_total"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_words_with_exit_code_2(capsys, words, said):
    printed = run(capsys, *SMALL, *words, code=2)
    assert printed.out == ""
    assert said in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize(
    ("content", "said"),
    [("a,b\n1,2\n", "columns"), ("arrival_s,prompt,output\n5,10,10\n1,10,10\n", "before"), ("", "empty"),
     ("arrival_s,prompt,output\n0,ten,10\n", "prompt")],
)  # fmt: skip
def test_request_files_that_cannot_be_read_are_refused(capsys, tmp_path, content, said):
    (tmp_path / "bad.csv").write_text(content)
    words = ["serve", "--model", "llama3-8b", "--cluster", "h100:gpus=1", "--requests", str(tmp_path / "bad.csv")]
    assert said in run(capsys, *words, code=2).err


@pytest.mark.parametrize("content", ["[1, 2]", "pools: 3", "pools: [3]", "a: [", "cluster: h100:gpus=1\nmodle: llama3-8b\n"])
def test_specification_files_that_are_none_are_refused(capsys, tmp_path, content):
    (tmp_path / "bad.yaml").write_text(content)
    assert run(capsys, "serve", "--spec", str(tmp_path / "bad.yaml"), "--requests", "poisson:qps=1", code=2).err


def test_requests_that_no_cache_holds_are_dropped_in_sight(capsys):
    printed = run(capsys, *SMALL, "--kv-blocks", "20")
    assert "not served" in printed.out.splitlines()[0]
    assert "longer than the KV cache" in printed.out


def test_every_field_has_an_option_that_names_its_default():
    options = {one.name: one for group in GROUPS.values() for one in group}
    fields = {**ServeSpec.model_fields, **Pool.model_fields, **Deployment.model_fields}
    for name in ("pools", "deployment"):
        fields.pop(name)
    missing = sorted(set(fields) - set(options))
    assert not missing, f"no option for {', '.join(missing)}: add a line each to distsim/cli/serving_options.py"
    assert set(options) - set(fields) == {"disaggregate"}
    for name, field in fields.items():
        if name == "replicas" or field.is_required() or field.default in (None, ""):
            continue
        shown = options[name].default
        assert str(shown) == str(field.default), f"--{name} says {shown}, the field {field.default}"


def test_help_is_light_and_quick():
    code = "import sys\nfrom distsim.cli.main import main\ntry:\n    main(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
    code += "print([m for m in ('numpy', 'pydantic', 'yaml', 'pyarrow', 'simpy', 'networkx') if m in sys.modules])"
    began = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
    assert "traces/chat_sessions.jsonl" in out
    assert "--slo" in out
    assert time.perf_counter() - began < 2.0  # 0.06 s on an idle machine


def test_lists_name_what_there_is(capsys):
    found = json.loads(run(capsys, "serve", "--list", "schedulers", "--json").out)
    assert {"vllm_v0", "vllm_v1", "sarathi"} <= {one["name"] for one in found}
    assert next(one for one in found if one["name"] == "vllm_v1")["options"]["max_num_seqs"] == 256
    assert "poisson" in run(capsys, "serve", "--list", "arrivals").out
    assert "h100_sxm" in run(capsys, "serve", "--list", "gpus").out
