"""Overload and input that cannot be: a typed error in one message, or an outcome that the first screen counts. Never a hang."""

from __future__ import annotations

import json

import pytest

from distsim.cli.main import main

SMALL = ["serve", "--model", "llama3-8b", "--cluster", "h100:gpus=1", "--requests", "poisson:qps=5", "--n", "40",
         "--lengths", "uniform:prompt=50-900,output=2-60"]  # fmt: skip


def run(capsys, *words, code=0):
    assert main(list(words)) == code
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return printed


def replay(capsys, folder, rows, *words, code=0):
    (folder / "trace.csv").write_text(rows)
    base = ["serve", "--model", "llama3-8b", "--cluster", "h100:gpus=1", "--requests", str(folder / "trace.csv")]
    return run(capsys, *base, *words, code=code)


# --- what is refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kv-blocks", "-5"], "-5 KV blocks"), (["--block", "0"], "block=0"), (["--block", "100000000"], "no room"),
        (["--replicas", "0"], "--replicas of at least 1"), (["--replicas", "-1"], "replicas=-1"), (["--tp", "0"], "tp=0"),
        (["--scheduler", "vllm_v1:max_num_seqs=0"], "max_num_seqs=0"), (["--scheduler", "vllm_v3"], "Nearest: vllm_v1"),
        (["--scheduler", "vllm_v1:max_num_seqs"], "not key=value"),
        (["--scheduler", "sglang:chunk=8", "--block", "64"], "holds no block of 64 tokens"),
        (["--scheduler", "lightllm", "--pp", "2", "--cluster", "h100:gpus=2"], "one pipeline stage"),
        (["--utilisation", "nan"], "utilisation"), (["--utilisation", "0.01"], "no room"), (["--qps", "inf"], "qps=inf"),
        (["--qps", "1e-30"], "2^62 ps"), (["--seed", "-1"], "seed=-1"), (["--duration", "0s"], "no request arrives"),
        (["--n", "100000000000"], "requests"), (["--lengths", "fixed:prompt=0,output=1"], "prompt=0"),
        (["--lengths", "fixed:prompt=1000000000,output=1"], "prompt=1000000000"), (["--cluster", "h100:gpus=0"], "gpus is '0'"),
        (["--ep", "2"], "no experts"), (["--role", "decode"], "at least one of each"),
        (["--disaggregate", "prefill=1"], "no decode replicas"), (["--times", "profile:folder=/nonexistent"], "model"),
        (["--kv-tiers", "cpu:size=10GB,bandwidth=50GB/s"], "finds no prefixes"), (["--network", "nosuch"], "fluid"),
        (["--admission", "queue:limit=0"], "limit=0"), (["--failures", "mtbf:hours=0"], "hours=0"),
        (["--rate-limit", "each:requests=0"], "requests=0"), (["--autoscale", "target:outstanding=0"], "outstanding=0"),
        (["--speculation", "draft:tokens=0"], "tokens=0"),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused(capsys, words, said):
    printed = run(capsys, *SMALL, *words, code=2)
    assert printed.out == ""
    assert said in printed.err


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("TIMESTAMP,ContextTokens\n2023-11-16 18:15:46,100\n", "Nearest: ContextTokens"),
        ("arrival_s,prompt\n0,100\n", "output"), ("arrival_s,prompt,output\n0,-3,10\n", "line 2, column prompt"),
        ("arrival_s,prompt,output\nnan,3,10\n", "finite"), ("arrival_s,prompt,output\n-1,3,10\n", "-1"),
        ("arrival_s,prompt,output\n5,10,10\n1,10,10\n", "before"), ("arrival_s,prompt,output\n0,1\n", "cells"),
        ("arrival_s,prompt,output\n", "one line"),
    ],
)  # fmt: skip
def test_traces_that_cannot_be_are_refused(capsys, tmp_path, rows, said):
    assert said in replay(capsys, tmp_path, rows, code=2).err


# --- what is served, or counted -----------------------------------------------------------------------------------------------


def test_a_request_longer_than_the_cache_is_dropped_and_the_others_are_served(capsys, tmp_path):
    printed = replay(capsys, tmp_path, "arrival_s,prompt,output\n0,100,10\n1,10000000,10\n2,100,10\n")
    assert "1 of 3 requests not served" in printed.out.splitlines()[0]
    assert "longer than the KV cache" in printed.out


@pytest.mark.parametrize("scheduler", ["vllm_v1", "vllm_v0", "sarathi", "orca", "static", "lightllm", "sglang", "trtllm"])
def test_a_cache_of_one_block_serves_nobody_and_says_so(capsys, scheduler):
    printed = run(capsys, *SMALL, "--kv-blocks", "1", "--scheduler", scheduler)
    assert "40 of 40 requests not served" in printed.out.splitlines()[0]


def test_under_overload_the_queue_is_what_limits(capsys):
    words = ["--requests", "poisson:qps=500", "--n", "600", "--lengths", "fixed:prompt=2000,output=100", "--slo", "ttft=1s"]
    found = json.loads(run(capsys, *SMALL, *words, "--json").out)
    assert found["limit"]["by"] == "queue"
    assert found["requests"]["finished"] == 600
    assert found["goodput"]["share"] < 0.5
    printed = run(capsys, *SMALL, *words, "--admission", "queue:limit=50")
    assert "not served" in printed.out.splitlines()[0]


@pytest.mark.parametrize(
    "words",
    [
        ["--scheduler", "vllm_v1:max_num_batched_tokens=1"], ["--scheduler", "vllm_v1:max_num_seqs=1"], ["--block", "1"],
        ["--scheduler", "sarathi:chunk=1"], ["--block", "1024"], ["--requests", "static"],
        ["--lengths", "fixed:prompt=1,output=1"],
        ["--pp", "4", "--cluster", "h100:gpus=4", "--requests", "static", "--n", "2"],
    ],
)  # fmt: skip
def test_the_smallest_there_can_be_is_served_to_the_end(capsys, words):
    found = json.loads(run(capsys, *SMALL, *words, "--json").out)
    assert found["requests"]["finished"] == found["requests"]["asked"]
