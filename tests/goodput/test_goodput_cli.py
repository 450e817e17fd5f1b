"""``distsim goodput``: the answer, the document, the picture, what is refused."""

from __future__ import annotations

import json
import time

import pytest

from distsim.cli.main import main

LLAMA = [
    "goodput", "--gpus", "16384", "--step", "6s", "--days", "54", "--failures-per-day", "7.76", "--checkpoint", "5s",
    "--restart", "8min", "--detection", "1min",
]  # fmt: skip


def test_answer_comes_first(capsys):
    assert main([*LLAMA, "--runs", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("goodput 92.")
    assert "of 777,600 steps of 6 s in 54 d; effective training time 92." in lines[0]
    assert any("restarts" in line for line in lines)
    assert not any("slow nodes" in line for line in lines)
    assert any("Daly's optimum" in line for line in lines)


def test_document(capsys):
    assert main([*LLAMA, "--runs", "20", "--curve", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "distsim-goodput"
    assert found["goodput"]["low_95"] < found["goodput"]["mean"] < found["goodput"]["high_95"]
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["goodput"]["mean"] == pytest.approx(found["daly_goodput"], abs=0.005)
    assert len(found["curve"]) == 13
    assert found["job"]["nodes"] == 2048
    assert main([*LLAMA, "--runs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["goodput"]["low_95"] is None


def test_same_seed_same_bytes(capsys):
    printed = []
    for seed in ("1", "1", "2"):
        assert main([*LLAMA, "--runs", "5", "--seed", seed, "--json"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


def test_ways_to_say_how_often_it_fails(capsys):
    rest = LLAMA[:7] + LLAMA[9:]
    gpu_hours = 24 / 7.76 * 16384
    printed = []
    for words in (["--gpu-mtbf", f"{gpu_hours}h"], ["--node-mtbf", f"{gpu_hours / 8}h"], ["--mtbf", f"{24 / 7.76}h"]):
        assert main([*rest, *words, "--runs", "3"]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == printed[2]


def test_everything_at_once(capsys):
    more = "--shape 0.7 --write 1min --spares 2 --repair 24h --node-loss 78% --when-short shrink --replica-gpus 128"
    assert main([*LLAMA, *more.split(), "--slow", "0.02%", "--slowdown", "3.3%", "--slow-for", "6h", "--runs", "10"]) == 0
    out = capsys.readouterr().out
    assert "slow nodes" in out
    assert "fewer replicas" in out
    assert "without slow nodes, repairs, bursts of failures" in out


def test_picture(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "curve.svg"
    assert main([*LLAMA, "--runs", "3", "--plot", str(path)]) == 0
    assert "<svg" in path.read_text()
    assert "best of these" in capsys.readouterr().out


def test_54_days_100_times_take_less_than_2_s(capsys):
    begin = time.process_time()
    assert main(LLAMA) == 0
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--step", "6"], "--step: duration '6' has no unit"),
        (["--step", "0s"], "step is 0"),
        (["--gpus", "0"], "--gpus: 0"),
        (["--gpus", "10"], "10 GPUs are no whole number of nodes of 8"),
        (["--failures-per-day", "0"], "--failures-per-day"),
        (["--failures-per-day", "nan"], "--failures-per-day"),
        (["--slow", "lots"], "--slow: 'lots' is no share"),
        (["--slow", "1%"], "slow_for is 0"),
        (["--when-short", "shrink"], "Say --replica-gpus"),
        (["--replica-gpus", "12"], "--replica-gpus: 12"),
        (["--checkpoint-interval", "0"], "--checkpoint-interval"),
        (["--checkpoint-interval", "1min", "--write", "10min"], "an interval of 10 min or more"),
        (["--days", "0"], "0 days"),
        (["--days", "nan"], "nan days"),
        (["--runs", "0"], "0 runs"),
        (["--seed", "-1"], "--seed"),
        (["--shape", "0"], "shape"),
        (["--plot", "curve.txt"], "cannot draw"),
    ],
)
def test_refused(capsys, words, what):
    assert main([*LLAMA, *words]) == 2
    printed = capsys.readouterr()
    assert what in printed.err
    assert printed.out == ""


def test_usage_errors_exit_2(capsys):
    for words in (LLAMA[:-8], [*LLAMA, "--mtbf", "3h"], [*LLAMA, "--when-short", "pray"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
    capsys.readouterr()
