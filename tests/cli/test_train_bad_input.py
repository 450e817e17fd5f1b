"""What a sceptical user tries on ``train``, ``generate`` and ``search``: refused in words, or right; never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from distsim.analysis.training import breakdown
from distsim.cli.main import main
from distsim.errors import ConfigError, UnknownNameError
from distsim.models.catalog import model
from distsim.training import train

EIGHT = ["--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8"]
MIXTRAL = ["--model", "mixtral-8x7b", "--cluster", "dgx_h100:gpus=8", "--ep", "8"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*EIGHT, "--pp", "4", "--schedule", "1f1b", "--vpp", "2", "--global-batch", "8"], ["1f1b", "vpp", "interleaved"]),
        ([*EIGHT, "--pp", "4", "--schedule", "gpipe", "--vpp", "2", "--global-batch", "8"], ["gpipe", "vpp", "interleaved"]),
        ([*EIGHT, "--pp", "4", "--layers-per-stage=-8,24,8,8", "--global-batch", "16"], ["0 or more"]),
        ([*EIGHT, "--tp", "2", "--etp", "2"], ["no experts", "etp"]),
        ([*EIGHT, "--tp", "0"], ["tp is 0"]),
        ([*EIGHT, "--pp", "0"], ["pp is 0"]),
        ([*EIGHT, "--tp", "-1"], ["tp is -1"]),
        ([*MIXTRAL, "--ep-imbalance", "inf"], ["ep_imbalance is inf", "finite"]),
        ([*MIXTRAL, "--ep-imbalance", "nan"], ["ep_imbalance is nan"]),
        ([*MIXTRAL, "--capacity", "inf"], ["capacity is inf", "finite"]),
        ([*EIGHT, "--tp", "2", "--memory", "ignore", "--global-batch", "4000000000"], ["1,000,000,000 micro-batches"]),
        ([*EIGHT, "--tp", "2", "--memory=ignore", "--global-batch=400000", "--grain=kernel"], ["tasks", "global batch"]),
        ([*EIGHT, "--tp", "2", "-o", ""], ["--output"]),
        (["--model", "llama3-8b☃", "--cluster", "dgx_h100:gpus=8"], ["llama3-8b"]),
    ],
)  # fmt: skip
def test_train_refuses(arguments, words, capsys):
    assert main(["train", *arguments]) == 2
    said = capsys.readouterr()
    assert not said.out
    for word in words:
        assert word in said.err


def test_a_trace_without_a_name_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", *EIGHT, "--tp", "2", "-o", ""]) == 2
    assert "--output" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--stack", "megatron"], "megatron_core"),
        (["--gpu", "h10"], "h100"),
        (["--network", "packets"], "analytic"),
        (["--set", "precision=nvfp4"], "fp4"),
        (["--gpus", "16"], "has 8 GPUs"),
    ],
)
def test_search_refuses_what_no_plan_could_mend(arguments, word, capsys):
    assert main(["search", *EIGHT, "--global-batch", "8", "--workers", "1", *arguments]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert word in said.err


def test_names_of_models_fold_case_and_separators_only():
    assert model("Llama-3.1 8B") is model("llama3.1-8b")
    with pytest.raises(UnknownNameError):
        model("llama3-8b!")


@pytest.mark.parametrize("grain", ["block", "kernel"])
@pytest.mark.parametrize("zero", [1, 3])
@pytest.mark.parametrize("layers", [(24, 0, 0, 0), (8, 0, 0, 16), (0, 12, 12, 0)])
def test_stages_without_layers_hand_on_what_they_get(layers, zero, grain):
    made = train(model="gpt3-1.7b", cluster="dgx_h100:gpus=8", pp=4, layers_per_stage=layers, zero=zero, grain=grain,
                 global_batch=8, memory="ignore")  # fmt: skip
    assert sum(breakdown(made).parts.values()) == pytest.approx(made.step_ps, rel=1e-9)


@pytest.mark.parametrize("zero", [0, 2, 3])
@pytest.mark.parametrize("stack", ["deepspeed_megatron", "torchtitan_eager", "megatron_core_simumax"])
def test_waiting_for_the_host_does_not_depend_on_the_grain_or_on_what_is_sharded(stack, zero):
    steps = {}
    for grain in ("block", "kernel"):
        made = train(model="gpt3-1.7b", cluster="dgx_h100:gpus=8", tp=4, seq=256, zero=zero, stack=stack, global_batch=8,
                     overlap_grad_reduce=True, network="analytic", grain=grain)  # fmt: skip
        steps[grain] = made.step_ps
        waited = 2 * made.job.plan.micro_batches * made.job.costs.waits_ps
        assert breakdown(made).parts["launch"] >= waited * 0.999
    assert steps["kernel"] == pytest.approx(steps["block"], rel=0.02)


def test_prefetching_more_than_there_is_holds_no_more_than_there_is():
    made = [train(model="gpt3-1.7b", cluster="dgx_h100:gpus=8", zero=3, prefetch=ahead, global_batch=8) for ahead in (24, 1000)]
    assert made[0].memory.device == made[1].memory.device


def test_the_rate_of_nvlink_counts():
    steps = []
    for rate in (50, 200, 450, 900):
        cluster = f"dgx_h100:gpus=8,nvlink_bandwidth={rate}GBps"
        steps.append(train(model="gpt3-1.7b", cluster=cluster, tp=4, global_batch=16, network="analytic").step_ps)
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) == 4
    default = train(model="gpt3-1.7b", cluster="dgx_h100:gpus=8", tp=4, global_batch=16, network="analytic").step_ps
    assert default == steps[2]


def test_the_same_command_prints_the_same_document():
    command = [sys.executable, "-m", "distsim", "train", *MIXTRAL, "--memory", "ignore", "--global-batch", "16", "--json"]
    printed = []
    for seed in ("1", "2"):
        ran = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        printed.append(ran.stdout)
    assert printed[0] == printed[1]
    json.loads(printed[0])


def test_the_python_interface_refuses_as_the_command_line_does():
    with pytest.raises(ConfigError, match="vpp"):
        train(model="llama3-8b", cluster="dgx_h100:gpus=8", pp=4, vpp=2, schedule="1f1b", global_batch=8)


def _config(path, **fields):
    usual = {"model_type": "llama", "num_hidden_layers": 4, "hidden_size": 1024, "num_attention_heads": 16,
             "intermediate_size": 2816, "vocab_size": 32000, "max_position_embeddings": 2048}  # fmt: skip
    path.write_text(json.dumps(usual | fields))
    return str(path)


def test_what_was_assumed_of_a_model_is_said(tmp_path, capsys):
    config = _config(tmp_path / "config.json", model_type="novel")
    assert main(["train", "--model", config, "--cluster", "dgx_h100:gpus=2", "--json"]) == 0
    assert any("'novel' is not known" in one for one in json.loads(capsys.readouterr().out)["warnings"])


def test_absurd_depths_are_refused(tmp_path, capsys):
    assert main(["train", "--model", _config(tmp_path / "config.json", num_hidden_layers=10**9), "--cluster", "dgx_h100"]) == 2
    assert "10,000" in capsys.readouterr().err


def test_several_kinds_of_gpu_go_at_the_pace_of_the_slowest():
    mixed = train(model="gpt3-1.7b", cluster="mixed_h100_a100.yaml", tp=2, dp=48, global_batch=48)
    assert mixed.job.gpu.name == "a100_sxm"
    assert any("slowest" in one for one in mixed.warnings)
    own = train(model="gpt3-1.7b", cluster="mixed_h100_a100.yaml", gpu="h100", tp=2, dp=48, global_batch=48)
    assert own.job.gpu.name == "h100_sxm"
    assert not own.warnings


@pytest.mark.parametrize(
    ("content", "word"), [(b"\xff\xfe", "utf-8"), (b"name: x\n", "about"), (b"- 3\n", "mapping"), (b"a: [", "not a stack")]
)
def test_files_that_are_no_stack_are_refused_in_a_line(content, word, tmp_path, capsys):
    path = tmp_path / "stack.yaml"
    path.write_bytes(content)
    assert main(["train", *EIGHT, "--tp", "2", "--stack", str(path)]) == 2
    said = capsys.readouterr().err
    assert word in said
    assert len(said.splitlines()) <= 2


def test_a_stack_without_a_rate_is_refused(tmp_path, capsys):
    import yaml

    from distsim.workload.training.stack import FOLDER

    fields = yaml.safe_load((FOLDER / "llama3.yaml").read_text()) | {"gemm": {"*": 0}}
    path = tmp_path / "stack.yaml"
    path.write_text(yaml.safe_dump(fields))
    assert main(["train", *EIGHT, "--tp", "2", "--stack", str(path)]) == 2
    assert "gemm" in capsys.readouterr().err
