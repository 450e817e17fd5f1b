"""What a newcomer types: units left out, shares for percents, keys of another tool, options that a file overrules. Each is
told, with what would have been right."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from distsim.analysis.serving_slo import Slo
from distsim.cli.main import main
from distsim.errors import ConfigError
from distsim.serve import serve
from distsim.serving.formats import format_named
from distsim.serving.requests.read import requests

TRACES = Path(__file__).resolve().parents[2] / "traces"
BASE = ["serve", "--model", "llama3-8b", "--cluster", "h100:gpus=1"]
SMALL = [*BASE, "--requests", "poisson:qps=5", "--n", "30", "--lengths", "uniform:prompt=50-900,output=2-60"]


def run(capsys, *words, code=0):
    assert main(list(words)) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed


# --- units -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--deadline", "10"], ["--duration", "10"], ["--start", "10"], ["--slo", "ttft=2"], ["--slo", "ttft=2s,tpot=50"],
        ["--admission", "queue:timeout=10"], ["--sessions", "turns=2,think=10"], ["--sessions", "turns=2,answer=3"],
        ["--requests", "mmpp:qps=1+20,sojourn=60+5"], ["--requests", "diurnal:qps=4,period=24"],
        ["--requests", "diurnal:qps=4,peak=14"], ["--scheduler", "priority:aging=10"],
        ["--autoscale", "schedule:plan=0@1+8@2"], ["--kv-tiers", "cpu:size=10GB,bandwidth=50GB/s,latency=10"],
    ],
)  # fmt: skip
def test_a_time_without_a_unit_is_refused(capsys, words):
    extra = ["--sessions", "turns=2"] if words[0] == "--kv-tiers" else []
    said = run(capsys, *SMALL, *extra, *words, code=2).err
    assert "has no unit" in said
    assert "something like 2s or 50ms" in " ".join(said.split())


def test_zero_and_times_with_units_are_taken(capsys):
    found = json.loads(run(capsys, *SMALL, "--deadline", "1min", "--slo", "ttft=2s,tpot=0.05s", "--json").out)
    assert found["requests"]["finished"] == 30
    assert len(requests("poisson:qps=4", lengths="fixed:prompt=10,output=2", sessions="turns=2,think=0", n=5)) == 5


def test_the_columns_of_a_file_keep_their_units(capsys, tmp_path):
    (tmp_path / "trace.csv").write_text("arrival_s,prompt,output\n0,100,5\n2,100,5\n")
    found = json.loads(run(capsys, *BASE, "--requests", str(tmp_path / "trace.csv"), "--json").out)
    assert found["end_ps"] > 2e12


# --- percentiles -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "meant"), [("0.99", "99"), ("0.999", "99.9"), ("1", "99"), ("10", "99"), ("0.95%", "95")])
def test_a_share_in_place_of_a_percentile_is_refused(given, meant):
    with pytest.raises(ConfigError, match=f"(?s)percentile.*Did you mean {meant}\\?"):
        Slo.parse(f"ttft=2s,percentile={given}")


def test_percentiles_from_the_median_on_are_taken():
    assert Slo.parse("ttft=2s,percentile=50").percentile == 50
    assert Slo.parse("ttft=2s,percentile=99.9%").percentile == 99.9


# --- options and pools -------------------------------------------------------------------------------------------------------

POOLS = """cluster: h100:gpus=8
model: llama3-8b
requests: poisson:qps=5
lengths: fixed:prompt=100,output=4
n: 20
pools: [{name: large, tp: 4, replicas: 1}, {tp: 2, replicas: 1}]
"""


def test_an_option_that_pools_overrule_is_refused_with_their_names(capsys, tmp_path):
    (tmp_path / "serve.yaml").write_text(POOLS)
    said = run(capsys, "serve", "--spec", str(tmp_path / "serve.yaml"), "--tp", "8", code=2).err
    assert "tp" in said
    assert "large" in said
    assert "pool 1" in said


def test_so_is_one_of_capacity(capsys, tmp_path):
    (tmp_path / "serve.yaml").write_text(POOLS)
    said = run(capsys, "capacity", "--spec", str(tmp_path / "serve.yaml"), "--tp", "1,2", code=2).err
    assert "large" in said


def test_an_option_that_no_pool_has_holds_for_all(capsys, tmp_path):
    (tmp_path / "serve.yaml").write_text(POOLS)
    found = json.loads(run(capsys, "serve", "--spec", str(tmp_path / "serve.yaml"), "--weights", "fp8", "--json").out)
    assert [pool["deployment"]["weights"] for pool in found["spec"]["pools"]] == ["fp8", "fp8"]


def test_a_key_that_all_pools_have_of_their_own_is_refused_and_one_that_some_have_is_a_default():
    point = {"cluster": "h100:gpus=8", "model": "llama3-8b", "requests": "poisson:qps=5", "n": 20,
             "lengths": "fixed:prompt=100,output=4"}  # fmt: skip
    with pytest.raises(ConfigError, match="prefill, decode"):
        serve(**point, tp=1, disaggregate="prefill=1,decode=1,prefill_tp=2,decode_tp=4")
    found = serve(**point, tp=1, disaggregate="prefill=1,decode=1,decode_tp=4")
    assert [row.gpus for row in found.replicas] == [1, 4]


# --- the longest sequence ----------------------------------------------------------------------------------------------------

LONG = "arrival_s,prompt,output\n0,100,10\n1,8200,10\n2,8190,10\n3,100,10\n"


def test_sequences_beyond_the_usual_are_counted_and_served(capsys, tmp_path):
    (tmp_path / "trace.csv").write_text(LONG)
    printed = run(capsys, *BASE, "--requests", str(tmp_path / "trace.csv"))
    assert "2 requests are longer than llama3-8b's usual 8,192 tokens" in printed.out
    assert "not served" not in printed.out.splitlines()[0]


def test_max_model_len_drops_prompts_and_cuts_answers(capsys, tmp_path):
    (tmp_path / "trace.csv").write_text(LONG)
    words = [*BASE, "--requests", str(tmp_path / "trace.csv"), "--max-model-len", "8192"]
    found = json.loads(run(capsys, *words, "--json").out)
    assert found["requests"]["dropped_by_reason"] == {"prompt of max_model_len or more": 1}
    assert found["requests"]["finished"] == 3
    assert "1 requests: answers cut to max_model_len=8192" in " ".join(found["warnings"])
    assert not any("usual" in text for text in found["warnings"])
    assert found["throughput"]["whole"]["output_tokens_per_s"] * found["end_ps"] / 1e12 == pytest.approx(10 + 2 + 10, rel=0.01)


@pytest.mark.parametrize("more", [{"concurrency": 2}, {"admission": "queue:limit=10"}, {"sessions": "turns=3,think=1s"}])
def test_max_model_len_leaves_nobody_behind(more):
    result = serve(
        model="llama3-8b", cluster="h100:gpus=1", requests="poisson:qps=20", n=60, lengths="uniform:prompt=10-900,output=2-90",
        max_model_len=500, **more,
    )  # fmt: skip
    found = result.requests
    served = found.done
    assert 0 < served.sum() < len(found)
    assert int((found.prompt + found.output)[served].max()) <= 500
    for prompt, reason in zip(found.prompt[~served], [text for text in found.reason if text], strict=True):
        assert prompt >= 500 or reason == "the turn before it was dropped"


# --- messages ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--failures", "mtbf:hours=100"], "repair is missing"),
        (["--failures", "mtbf:hours=1"], "mtbf:hours=100,repair=10min"),
        (["--autoscale", "target:max=4"], "target:outstanding=8"), (["--times", "vidur:layers=32"], "file is missing"),
        (["--requests", "poisson:rate=4"], "Nearest: qps"), (["--lengths", "fixed:input=100,output=4"], "Nearest: prompt"),
        (["--weights", "fp6"], "Nearest: fp16"), (["--timeline", "x.txt"], ".json.gz"),
        (["--kv-tiers", "cpu:size=10GB,bandwidth=50GB/s"], "--sessions"),
        (["--set", "max_modl_len=4096"], "Nearest: max_model_len"),
    ],
)  # fmt: skip
def test_messages_say_what_is_missing_and_what_is_near(capsys, words, said):
    err = run(capsys, *SMALL, *words, code=2).err
    assert said in err
    assert "Field required" not in err


def test_a_list_of_loads_is_told_where_lists_are_taken(capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*SMALL, "--qps", "1,2,4"])
    err = " ".join(capsys.readouterr().err.split())
    assert "distsim capacity" in err
    assert "distsim sweep" in err


def test_a_typing_slip_in_a_file_is_named_before_what_is_missing_because_of_it(capsys, tmp_path):
    (tmp_path / "serve.yaml").write_text("cluster: h100:gpus=1\nmodel: llama3-8b\nreqests: poisson:qps=5\n")
    said = run(capsys, "serve", "--spec", str(tmp_path / "serve.yaml"), code=2).err
    assert "serve.yaml: unknown option 'reqests'" in said
    assert "Nearest: requests" in said


@pytest.mark.parametrize(("given", "meant"), [("FP8", "fp8"), ("fp16", "bf16"), ("BF16", "bf16"), ("float16", "bf16")])
def test_formats_go_by_their_usual_names(given, meant):
    assert format_named(given) == format_named(meant)


def test_a_folder_of_another_kind_of_run_is_left_alone_and_one_of_this_kind_is_replaced_and_said(capsys, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "summary.json").write_text('{"format": "distsim-results"}')
    said = run(capsys, *SMALL, "-o", str(tmp_path / "other"), code=2).err
    assert "holds something else" in said
    first = run(capsys, *SMALL, "-o", str(tmp_path / "mine"))
    assert "replace" not in first.err
    assert "replaces the earlier results" in run(capsys, *SMALL, "-o", str(tmp_path / "mine")).err


def test_a_training_job_on_every_gpu_leaves_none_to_serve(capsys, tmp_path):
    words = [*BASE[:3], "--cluster", "h100:gpus=4", *SMALL[5:], "--beside", str(TRACES / "pipeline_send_recv.json")]
    assert "takes all 4" in run(capsys, *words, code=2).err


def test_lists_mark_what_has_to_be_given(capsys):
    assert "outstanding (required)" in run(capsys, "serve", "--list", "autoscalers").out
    found = json.loads(run(capsys, "serve", "--list", "autoscalers", "--json").out)
    assert next(one for one in found if one["name"] == "target")["required"] == ["outstanding"]
    assert "As ``" not in run(capsys, "serve", "--list", "schedulers").out


def test_the_shipped_requests_are_what_their_script_makes(tmp_path):
    made = runpy.run_path(str(TRACES.parent / "scripts" / "make_requests.py"))
    made["main"](str(tmp_path / "chats.jsonl"))
    assert (tmp_path / "chats.jsonl").read_bytes() == (TRACES / "chat_sessions.jsonl").read_bytes()
    table = requests(str(TRACES / "chat_sessions.jsonl"))
    assert len(table) == 300
    assert table.hashes
    assert (table.after >= 0).any()
