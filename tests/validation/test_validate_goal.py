"""distsim validate goal: parity with LogGOPSim (required in CI), rows that the reference left unexecuted, bad data."""

from __future__ import annotations

import gzip
import json

import pytest

from distsim.cli.main import main

PARAMS = {"L": 2500, "o": 1500, "g": 1000, "G": 6, "O": 0, "S": 65535}
GOOD = "num_ranks 2\nrank 0 { s: send 1b to 1 }\nrank 1 { r: recv 1b from 0 }\n"
STUCK = GOOD.replace("recv 1b from 0", "recv 1b from 0 tag 1")
ROW = {"goal": "good.goal", "params": PARAMS, "set": "default", "makespan_ns": 5500, "hosts": [1500, 5500], "events": 3}


def validate(folder, capsys, rows, *options: str):
    (folder / "loggopsim_reference.json").write_text(json.dumps(rows))
    assert main(["validate", "goal", "--data", str(folder), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def folder(tmp_path):
    with gzip.open(tmp_path / "good.goal.gz", "wt") as file:
        file.write(GOOD)
    (tmp_path / "stuck.goal").write_text(STUCK)
    return tmp_path


@pytest.mark.parametrize("form", ["python", "compiled"])
def test_all_of_the_reference_is_met(goal_reference, capsys, monkeypatch, form):
    monkeypatch.setenv("DISTSIM_KERNELS", form)
    words = ["validate", "goal", "--data", str(goal_reference), "--json", "--fail-under", "matched_fraction=1"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["matched"] == found["rows"] == found["expressed"] >= 28


def test_makespan_and_hosts_are_compared(folder, capsys):
    found = validate(folder, capsys, [ROW, ROW | {"makespan_ns": 5501}, ROW | {"hosts": [1501, 5500]}, ROW | {"hosts": [5500]}])
    assert (found["rows"], found["expressed"], found["matched"]) == (4, 4, 1)
    assert found["groups"] == {"set default": {"rows": 4, "matched": 1}}
    assert len(found["worst"]) == 3
    assert found["metrics"]["matched_fraction"] == 0.25


def test_unexecuted_rows_are_met_by_refusal(folder, capsys):
    stuck = ROW | {"goal": "stuck.goal", "makespan_ns": 4000, "hosts": None}
    rows = [stuck | {"events": 2}, stuck | {"unexecuted": 1}, stuck | {"makespan_ns": None}, ROW | {"events": 1}, stuck]
    found = validate(folder, capsys, rows)
    group = found["groups"]["unexecuted in the reference, refused here"]
    assert group == {"rows": 4, "matched": 3}  # the fourth runs here: nothing of it is unexecuted
    assert found["matched"] == 3
    assert sum(found["refused"].values()) == 1  # the last claims a makespan for operations that never run


def test_what_cannot_be_run_is_refused_by_reason(folder, capsys):
    (folder / "bad.goal").write_text("num_ranks 1")
    found = validate(folder, capsys, [ROW | {"goal": "absent.goal"}, ROW | {"goal": "bad.goal"}, ROW | {"params": {"Q": 1}}])
    assert found["expressed"] == 0
    assert sorted(reason.split(":")[0] for reason in found["refused"]) == ["ConfigError", "ConfigError", "TraceError"]


@pytest.mark.parametrize("content", ["{", "[1]", '[{"goal": "x"}]', '[{"goal": "x", "params": {}}]'])
def test_malformed_reference(folder, capsys, content):
    (folder / "loggopsim_reference.json").write_text(content)
    assert main(["validate", "goal", "--data", str(folder)]) == 2
    assert "loggopsim_reference.json" in capsys.readouterr().err


def test_folder_without_reference(tmp_path, capsys):
    assert main(["validate", "goal", "--data", str(tmp_path)]) == 2
    assert "holds no loggopsim_reference.json" in capsys.readouterr().err
