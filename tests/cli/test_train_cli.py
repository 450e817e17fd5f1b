"""``distsim train`` and ``distsim generate``: the answer, its JSON, its files, and what is refused how."""

from __future__ import annotations

import json

import pytest

from distsim.cli.main import main

SMALL = ["--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--tp", "2", "--global-batch", "16", "--seq", "4096",
         "--sequence-parallel", "--zero", "1"]  # fmt: skip


def test_the_first_line_is_the_answer_in_units(capsys):
    assert main(["train", *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step ")
    for word in ("8 x h100_sxm", "MFU", "tokens/s/GPU", "GiB"):
        assert word in lines[0]
    assert any("matrix products" in line for line in lines)
    assert any("folded into 1" in line for line in lines)


def test_json_is_one_document_whose_parts_add_up(capsys):
    assert main(["train", *SMALL, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert sum(made["breakdown_ps"].values()) == pytest.approx(made["step_ps"], rel=1e-9)
    assert 0.2 < made["mfu"] <= made["hfu"] < 1
    assert made["tokens_per_s_gpu"] == pytest.approx(16 * 4096 / (made["step_ps"] / 1e12) / 8)
    assert made["memory_bytes"] == max(stage["device_bytes"] for stage in made["memory_stages"])
    assert made["spec"]["plan"]["dp"] == 4


def test_folding_and_grain_change_what_is_simulated_and_not_the_answer(capsys):
    steps = {}
    for name, options in (("folded", []), ("whole", ["--no-fold"]), ("analytic", ["--network", "analytic"])):
        assert main(["train", *SMALL, *options, "--json"]) == 0
        made = json.loads(capsys.readouterr().out)
        steps[name] = made["step_ps"]
        assert made["counts"]["classes"] == (8 if name == "whole" else 1)
    assert steps["folded"] == steps["whole"] >= steps["analytic"]


def test_recomputation_is_work_that_only_hfu_counts(capsys):
    found = {}
    for recompute in ("none", "full"):
        assert main(["train", *SMALL, "--recompute", recompute, "--json"]) == 0
        found[recompute] = json.loads(capsys.readouterr().out)
    assert found["full"]["step_ps"] > 1.2 * found["none"]["step_ps"]
    assert found["full"]["hfu"] / found["full"]["mfu"] == pytest.approx(4 / 3, rel=0.05)
    assert found["full"]["memory_bytes"] < found["none"]["memory_bytes"]


def test_output_folder_holds_tables_and_a_timeline(tmp_path, capsys):
    assert main(["train", *SMALL, "-o", str(tmp_path / "out")]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"spans.parquet", "summary.json", "timeline.json.gz"} <= names


@pytest.mark.parametrize("name", ["step.json", "step.parquet"])
def test_generated_traces_replay(name, tmp_path, capsys):
    path = tmp_path / name
    assert main(["generate", *SMALL, "-o", str(path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["ranks"] == 8
    assert main(["run", str(path), "--topo", "dgx_h100", "--collectives", "nccl", "--network", "analytic", "--json"]) == 0
    replayed = json.loads(capsys.readouterr().out)
    assert main(["train", *SMALL, "--network", "analytic", "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    # the replay knows of no interference between computation and collectives
    assert replayed["makespan_ps"] == pytest.approx(trained["step_ps"], rel=0.02)
    assert replayed["makespan_ps"] <= trained["step_ps"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "llama3-8c", "--cluster", "dgx_h100"], ["llama3-8b"]),
        (["--model", "llama3-8b", "--cluster", "dgx_h1000"], ["dgx_h100"]),
        (["--model", "llama3-8b"], ["cluster"]),
        (["--cluster", "dgx_h100"], ["model"]),
        (["--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--gpu", "h10"], ["h100"]),
        (["--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--stack", "megatron"], ["megatron_core"]),
        (["--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--tp", "3"], ["tp"]),
        (["--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--tp", "0"], ["tp"]),
        (["--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--dp", "16", "--global-batch", "16"], ["GPUs"]),
        (["--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--global-batch", "7"], ["no multiple"]),
        (["--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--ep", "2"], ["experts"]),
        (["--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--pp", "2", "--schedule", "2f2b", "--zero", "1"], ["1f1b"]),
        (["--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--pp", "2", "--layers-per-stage", "16,a"], ["16,a"]),
        (["--model", "llama3-405b", "--cluster", "dgx_h100:gpus=8", "--tp", "8"], ["GiB", "optimizer"]),
        (["--model", "llama3-8b", "--cluster", "fat_tree:gpus=8"], ["--gpu"]),
        (["--model", "no/such/config.json", "--cluster", "dgx_h100:gpus=8"], ["config.json"]),
        (["--model", "llama3-8b", "--cluster", "dgx_a100:gpus=8", "--precision", "fp8", "--zero", "1"], ["fp8"]),
        (["--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--compute-table", "none.csv"], ["none.csv"]),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_words(arguments, words, capsys):
    assert main(["train", *arguments]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err


def test_a_plan_that_does_not_fit_can_be_simulated_all_the_same(capsys):
    arguments = ["train", "--model", "llama3-70b", "--cluster", "dgx_h100:gpus=8", "--tp", "8", "--global-batch", "8"]
    assert main(arguments) == 2
    assert "fits" in capsys.readouterr().err
    assert main([*arguments, "--memory", "warn"]) == 0
    said = capsys.readouterr().out
    assert "warning" in said


@pytest.mark.parametrize(
    ("what", "name"), [("models", "llama3-405b"), ("gpus", "h100_sxm"), ("stacks", "megatron_core"), ("schedules", "zb_h1")]
)
def test_what_there_is_to_choose_from_is_listed(what, name, capsys):
    assert main(["train", "--list", what]) == 0
    assert name in capsys.readouterr().out
    assert main(["train", "--list", what, "--json"]) == 0
    assert name in {one["name"] for one in json.loads(capsys.readouterr().out)}
