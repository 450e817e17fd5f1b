"""``distsim run`` on GOAL and with ``--network loggops``, from end to end."""

from __future__ import annotations

import json
import shlex

import pytest

from distsim.cli.main import main

PAIR = "num_ranks 2\nrank 0 {\ns: send 1000b to 1\n}\nrank 1 {\nr: recv 1000b from 0\nc: calc 506\nc requires r\n}\n"


@pytest.fixture
def pair(tmp_path):
    path = tmp_path / "pair.goal"
    path.write_text(PAIR)
    return str(path)


def test_first_line_and_json(pair, capsys):
    assert main(["run", pair, "--network", "loggops"]) == 0
    text = capsys.readouterr().out
    # 1500 + 2500 + 1500 + 999 * 6 + 506 = 12 us; CPUs: 506 of computing, 1500 + 7494 of messages, in 24 us
    assert text.startswith("step 12 us on 2 ranks: 2 % compute, 38 % exposed communication")
    assert "60 % idle" in text.splitlines()[0]
    assert "loggops:L=2500,o=1500,g=1000,G=6,O=0,S=65535" in text
    assert main(["run", pair, "--network", "loggops:preset=ai", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["makespan_ns"] == 200 + 3700 + 200 + 999 * 0.04 + 506
    assert made["spec"]["network"] == "loggops:L=3700,o=200,g=5,G=0.04,O=0,S=0"
    assert "topo" not in made["spec"]
    assert main([*shlex.split(made["command"])[1:], "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["makespan_ns"] == made["makespan_ns"]


def test_results_folder(pair, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["run", pair, "--network", "loggops", "-o", str(out), "--quiet"]) == 0
    assert {"summary.json", "spans.parquet", "links.parquet"} <= {file.name for file in out.iterdir()}
    assert capsys.readouterr().out.startswith("step 12 us")


def test_goal_on_a_topology(pair, capsys):
    assert main(["run", pair, "--topo", "switch:bandwidth=1GB/s,latency=1us", "--network", "analytic", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["makespan_ns"] == 1000 + 2000 + 506


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--topo", "ring"], 2, "--topo"),
        (["--topo", "fat_tree"], 2, "--topo"),
        (["--algorithm", "ring"], 2, "--algorithm"),
        (["--splits", "2"], 2, "--splits"),
        (["--peak", "1TFLOPS"], 2, "--peak"),
        (["--ranks", "3"], 2, "2 ranks"),
        (["--profile", "astra", "--topo", "ring"], 2, "astra profile 'loggops'"),
    ],
)
def test_options_without_effect_are_refused(pair, capsys, options, code, said):
    assert main(["run", pair, "--network", "loggops", *options]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("spec", ["loggops:preset=no", "loggops:K=1", "loggops:L=soon", "loggops:G=-2"])
def test_bad_parameters_are_usage_errors(pair, capsys, spec):
    assert main(["run", pair, "--network", spec]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--network loggops" in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["run", "llama3_8b_tp8_dp8", "--network", "loggopps:L=3"], "Nearest: loggops"),
        (["collective", "all_reduce", "--ranks", "4", "--network", "loggops"], "distsim run TRACE --network loggops"),
    ],
)
def test_where_loggops_is_no_level_it_is_said(capsys, command, said):
    assert main(command) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err


def test_deadlock_and_bad_text_exit_with_one(tmp_path, capsys):
    stuck = tmp_path / "stuck.goal"
    stuck.write_text(PAIR.replace("recv 1000b from 0", "recv 1000b from 0 tag 3"))
    assert main(["run", str(stuck), "--network", "loggops", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert 'send "s" of rank 0 to rank 1 (1000 B, tag 0) is never received' in captured.err
    assert 'recv "r" of rank 1 from rank 0 (1000 B, tag 3) gets no message' in captured.err
    bad = tmp_path / "bad.goal"
    bad.write_text(PAIR.replace("calc 506", "calc fast"))
    for network in ("loggops", "analytic"):
        assert main(["run", str(bad), "--network", network]) == 1
        assert "line 7, rank 1, \"c\": found 'fast'" in capsys.readouterr().err


def test_trace_summarises_goal(pair, capsys):
    assert main(["trace", pair, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ranks"] == 2
