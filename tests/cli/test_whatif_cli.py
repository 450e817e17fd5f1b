"""distsim whatif, end to end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from distsim.cli.main import main
from distsim.report.reopen import reopen


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    replay = ["run", "traces/pipeline_send_recv.json", "--topo", "dgx_h100:gpus=8"]
    train = ["train", "--model", "llama3-8b", "--cluster", "dgx_h100:gpus=8", "--tp", "2", "--global-batch", "32"]
    assert main([*replay, "-o", str(folder / "run"), "--quiet"]) == 0
    assert main([*train, "--seq", "4096", "-o", str(folder / "step"), "--quiet"]) == 0
    return folder


def test_set_estimates_simulates_and_saves(saved, tmp_path, capsys):
    out = tmp_path / "faster"
    arguments = ["whatif", str(saved / "run"), "--set", "gpu.compute=1.5x", "--set", "rank.2.compute=+20%"]
    assert main([*arguments, "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("gpu.compute=1.5x, rank.2.compute=+20%: 1.262 s -> ")
    assert "error of the estimate: " in text
    assert "run it: distsim run " in text
    result = reopen(out)
    assert result.spec["speeds"] == "gpu.compute=1.5x,rank.2.compute=1.2x"
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["simulated_ps"] == result.makespan
    assert found["saved_ps"] == found["before_ps"] - result.makespan
    assert abs(found["error"]) < 0.01
    assert main(["whatif", str(out), "--set", "gpu.compute=2x", "--no-simulate", "--quiet"]) == 0  # and again from there
    assert "(estimated, not simulated)" in capsys.readouterr().out


def test_knobs_and_levers(saved, capsys):
    assert main(["whatif", str(saved / "step"), "--knobs", "--json"]) == 0
    knobs = {one["knob"]: one for one in json.loads(capsys.readouterr().out)["knobs"]}
    assert knobs["plan.tp"]["value"] == "2"
    assert knobs["link.nvlink.bandwidth"] == {
        "knob": "link.nvlink.bandwidth", "value": "450 GB/s", "about": "of each of 16 links nvlink", "continuous": True,
    }  # fmt: skip
    assert main(["whatif", str(saved / "step"), "--knobs"]) == 0
    assert "plan.global_batch" in capsys.readouterr().out
    assert main(["whatif", str(saved / "step"), "--levers", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["levers"][0]["knob"] == "gpu.compute"
    assert abs(found["levers"][0]["error"]) < 0.02
    assert main(["whatif", str(saved / "step"), "--levers", "--no-simulate"]) == 0
    text = capsys.readouterr().out
    assert "gpu.compute saves most" in text.splitlines()[0]
    assert "simulated" not in text


def test_a_training_step_with_another_plan(saved, capsys):
    assert main(["whatif", str(saved / "step"), "--set", "plan.tp=4", "--set", "link.nvlink.bandwidth=900GB/s"]) == 0
    text = capsys.readouterr().out
    assert "no estimate: the step is made of other tasks" in text
    assert "--tp 4 --dp 2" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "link.nvlnk.bandwidth=2x"], "link.nvlink.bandwidth"), (["--set", "gpu.compute"], "KNOB=VALUE"),
        (["--set", "gpu.compute=2x", "--set", "gpu.compute=3x"], "set twice"), ([], "nothing to do"),
        (["--levers", "--knobs"], "exclude each other"), (["--levers", "-o", "x"], "no new result"),
        (["--set", "gpu.compute=-2x"], "2x, 0.5x"), (["--set", "topo=no_such"], "no_such"),
        (["--set", "plan.tp=2"], "unknown knob"), (["--set", "network=loggops"], "loggops"),
        (["--set", "events=frob", "--no-simulate"], "no such file of events"), (["--set", "gpu.compute=1e-30x"], "too long"),
        (["--set", "endpoint_delay=frob", "--no-simulate"], "is not a time"),
        (["--set", "link.nvlink.bandwidth=1e-30x", "--no-simulate"], "is none"),
        (["--set", "network=coflow", "--set", "nccl_algo=ring", "--no-simulate"], "no effect on coflows"),
        (["--set", "communication=recorded", "--no-simulate"], "was not captured"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_words(saved, arguments, says, capsys):
    assert main(["whatif", str(saved / "run"), *arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.startswith("distsim: ")
    assert not captured.out


def test_what_is_no_result_is_refused(tmp_path, capsys):
    assert main(["whatif", str(tmp_path), "--levers"]) == 2
    assert "no results folder" in capsys.readouterr().err
    assert main(["whatif", str(tmp_path / "nowhere"), "--levers"]) == 2


def test_a_trace_that_has_gone_is_told(tmp_path, capsys):
    trace = tmp_path / "t.json"
    nodes = [{"op": "compute", "duration": "1ms"}]
    trace.write_text(json.dumps(
        {"format": "distsim-trace/1", "ranks": 1, "programs": [{"name": "r", "ranks": "all", "nodes": nodes}]}
    ))  # fmt: skip
    assert main(["run", str(trace), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    trace.unlink()
    assert main(["whatif", str(tmp_path / "out"), "--set", "gpu.compute=2x"]) in (1, 2)
    assert "t.json" in capsys.readouterr().err


def test_help_is_light():
    code = "import sys; from distsim.cli.main import parser_for; parser_for(['whatif']); print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
