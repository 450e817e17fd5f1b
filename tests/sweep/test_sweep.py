"""``distsim sweep``: same bytes whatever runs it, nothing run twice, kills survived, refusals counted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from study_process import command, digests

from distsim.cli.main import main
from distsim.errors import ConfigError
from distsim.sweep.journal import Journal
from distsim.sweep.pareto import best, front

OBJECTIVES = {"t": "min", "m": "max"}
ROWS = st.lists(st.fixed_dictionaries({"t": st.integers(0, 6), "m": st.one_of(st.none(), st.integers(0, 6))}), max_size=25)


@given(rows=ROWS)
def test_the_front_is_what_nothing_dominates(rows):
    def dominates(a, b):
        return a["t"] <= b["t"] and a["m"] >= b["m"] and a != b

    whole = [row for row in rows if row["m"] is not None]
    wanted = {at for at, row in enumerate(rows) if row["m"] is not None and not any(dominates(one, row) for one in whole)}
    found = front(rows, OBJECTIVES)
    assert set(found) == wanted
    assert len(found) == len(wanted)
    if whole:
        assert best(rows, OBJECTIVES) == found[0]
        assert rows[found[0]]["t"] == min(row["t"] for row in whole)


def test_a_study_is_right_and_its_files_tell_it(fake_study, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["sweep", str(fake_study), "-o", str(out), "--workers", "1"]) == 0
    first, counts = capsys.readouterr().out.splitlines()[:2]
    table = pq.read_table(out / "results.parquet").to_pylist()
    # tp 5 and 7 do not divide 96 heads; tp 1, pp 1 does not fit; tp of 5 to 8 on pp 8 is more than 32
    wanted = [(tp, pp) for tp in (1, 2, 3, 4, 6, 8) for pp in (1, 2, 4, 8) if tp * pp <= 32 and tp * pp > 1]
    assert [(row["tp"], row["pp"]) for row in table] == wanted
    for row in table:
        tp, pp = row["tp"], row["pp"]
        assert row["step_ps"] == 10**12 // (tp * pp) + 10**9 * (pp - 1) + 10**10 * (tp - 1)
        assert row["bound_step_ps"] <= row["step_ps"]
    least = min(table, key=lambda row: (row["step_ps"], row["memory_bytes"]))
    assert f"at tp={least['tp']}, pp={least['pp']} (of {len(wanted)} points)" in first
    assert counts == f"32 points: {len(wanted)} run, {32 - len(wanted)} refused before, 0 failed"
    summary = json.loads((out / "summary.json").read_text())
    reasons = {one["reason"]: one["count"] for one in summary["reasons"]}
    assert reasons == {"tp N does not divide N attention heads": 6, "tp * pp <= 32": 4, "does not fit, most of it weights": 1}
    assert summary["best"] == least
    assert (out / "study.yaml").read_text() == fake_study.read_text()


def test_processes_dask_and_one_process_give_the_same_bytes(fake_study, tmp_path):
    assert main(["sweep", str(fake_study), "-o", str(tmp_path / "one"), "--workers", "1", "--quiet"]) == 0
    assert main(["sweep", str(fake_study), "-o", str(tmp_path / "two"), "--workers", "2", "--quiet"]) == 0
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    if os.environ.get("CI") != "true":
        pytest.importorskip("distributed")
    assert main(["sweep", str(fake_study), "-o", str(tmp_path / "dask"), "--dask", "local:2", "--quiet"]) == 0
    assert digests(tmp_path / "one") == digests(tmp_path / "dask")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_study_goes_on_and_ends_with_the_same_bytes(fake_study, tmp_path, workers):
    assert main(["sweep", str(fake_study), "-o", str(tmp_path / "whole"), "--workers", "1", "--quiet"]) == 0
    out, log = tmp_path / "out", tmp_path / "log"
    arguments = ("sweep", str(fake_study), "-o", str(out), "--workers", workers, "--quiet")
    for wanted in (2, 7, 12):  # killed when so many points are in the journal
        process = command(*arguments, FAKE_SLEEP="0.05", FAKE_LOG=str(log))
        while process.poll() is None:
            if _lines(out) >= wanted:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        _, said = process.communicate()
        assert process.returncode == -signal.SIGKILL, said
    assert not (out / "results.parquet").exists()
    kept = _lines(out)
    process = command(*arguments, FAKE_LOG=str(log))
    _, notes = process.communicate()
    assert process.returncode == 0, notes
    assert digests(out) == digests(tmp_path / "whole")
    runs = log.read_text().splitlines()
    # what was finished but not yet in the journal is all that may have run twice: at most what was under way at a kill
    assert len(set(runs)) == 21
    assert kept >= 12
    assert main([*arguments, "--workers", workers]) == 0  # nothing left: nothing is run, nothing changes
    assert log.read_text().splitlines() == runs
    assert digests(out) == digests(tmp_path / "whole")


def _lines(out: Path) -> int:
    journal = out / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def test_workers_do_not_outlive_a_killed_study(fake_study, tmp_path):
    process = command("sweep", str(fake_study), "-o", str(tmp_path / "out"), "--workers", "2", FAKE_SLEEP="0.2")
    while _lines(tmp_path / "out") < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()  # waits until all that hold its pipes have gone

    def group() -> str:
        return subprocess.run(["ps", "-o", "pid=,stat=", "-g", str(process.pid)], capture_output=True, text=True).stdout

    until = time.monotonic() + 5
    while [line for line in group().splitlines() if " Z" not in line] and time.monotonic() < until:
        time.sleep(0.05)
    assert not [line for line in group().splitlines() if " Z" not in line]


def test_ctrl_c_leaves_a_study_that_goes_on(fake_study, tmp_path):
    process = command("sweep", str(fake_study), "-o", str(tmp_path / "out"), "--workers", "2", FAKE_SLEEP="0.1")
    while _lines(tmp_path / "out") < 2:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the group
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "goes on" in said
    assert "Traceback" not in said
    assert main(["sweep", str(fake_study), "-o", str(tmp_path / "out"), "--workers", "1", "--quiet"]) == 0


def test_a_journal_cut_short_or_damaged_loses_only_that(fake_study, tmp_path, capsys):
    arguments = ["sweep", str(fake_study), "-o", str(tmp_path / "out"), "--workers", "1"]
    assert main(arguments) == 0
    whole = digests(tmp_path / "out")
    journal = tmp_path / "out" / "journal.jsonl"
    text = journal.read_bytes()
    for cut in (1, 17, 60, len(text) - 5):
        journal.write_bytes(text[:-cut])
        capsys.readouterr()
        assert main(arguments) == 0
        assert "taken from the journal" in capsys.readouterr().err or cut > len(text) - 60
        assert digests(tmp_path / "out") == whole
        assert journal.read_bytes().count(b"\n") == 21
    lines = text.splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"\x00garbage{\n", *lines[4:]]))
    assert main(arguments) == 0
    assert "1 lines of the journal cannot be read" in capsys.readouterr().err
    assert digests(tmp_path / "out") == whole


def test_a_changed_study_takes_what_is_the_same(fake_study, tmp_path, capsys, monkeypatch):
    out, log = tmp_path / "out", tmp_path / "log"
    arguments = ["sweep", str(fake_study), "-o", str(out), "--workers", "1", "--json"]
    assert main(arguments) == 0
    fake_study.write_text(fake_study.read_text().replace("[1, 2, 4, 8]", "[2, 4, 16]").replace("<= 32", "<= 64"))
    monkeypatch.setenv("FAKE_LOG", str(log))
    capsys.readouterr()
    assert main(arguments) == 0
    made = json.loads(capsys.readouterr().out)
    same = [(tp, pp) for tp in (1, 2, 3, 4, 6, 8) for pp in (2, 4)]
    assert made["reused"] == len(same)
    assert len(log.read_text().splitlines()) == made["run"] - len(same) == 4  # pp 16 with tp 1, 2, 3, 4


def test_points_that_fail_are_kept_and_counted(fake_study, tmp_path, capsys, monkeypatch):
    fake_study.write_text("kind: fake\nbase: {tp: 2}\ngrid: {pp: [1, 2], trouble: [null, refused, mistake]}\n")
    arguments = ["sweep", str(fake_study), "-o", str(tmp_path / "out"), "--workers", "1"]
    assert main(arguments) == 0
    captured = capsys.readouterr().out
    assert "6 points: 6 run, 0 refused before, 4 failed" in captured
    assert "4 points failed; the first: fake: plan 2 cannot be simulated" in captured
    rows = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert [row["failed"] and row["failed"].split(":")[0] for row in rows] == [None, "fake", "ZeroDivisionError"] * 2
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    assert main(arguments) == 0  # a refusal is a result; a mistake is tried again
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_a_worker_that_dies_leaves_a_study_that_goes_on(fake_study, tmp_path, capsys):
    fake_study.write_text("kind: fake\nbase: {tp: 2}\ngrid: {pp: [1, 2, 4], trouble: [null, deadly]}\n")
    assert main(["sweep", str(fake_study), "-o", str(tmp_path / "out"), "--workers", "2"]) == 1
    assert "a worker process died" in capsys.readouterr().err


def test_one_folder_one_writer(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(ConfigError, match="being written by another"):
        Journal(tmp_path / "journal.jsonl")
    journal.close()
    Journal(tmp_path / "journal.jsonl").close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.yaml"], "is no file"), (["run_topologie"], "run_topologies"), (["STUDY", "--workers", "-1"], "--workers"),
        (["STUDY", "--dask", "local:0"], "local:2"), (["STUDY", "--dask", "http://x"], "local:2"),
        (["STUDY", "--dask", "local:2", "--workers", "2"], "Leave one of them out"),
        (["STUDY", "-o", "FULL"], "holds no study"), (["STUDY", "-o", "FILE"], "is a file"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told(fake_study, tmp_path, capsys, arguments, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    words = {"STUDY": str(fake_study), "FULL": str(tmp_path / "full"), "FILE": str(fake_study)}
    chosen = [words.get(word, word) for word in arguments]
    assert main(["sweep", *chosen, *([] if "-o" in chosen else ["-o", str(tmp_path / "out")])]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("distsim: ")
    assert sorted(file.name for file in (tmp_path / "full").iterdir()) == ["thesis.tex"]


@pytest.mark.parametrize("text", ["kind: fake\ngrid: {tp: [1], tp: [2]}", "kind: fak", "- 1", "kind: [", "grid: {tp: [1]}", ""])
def test_a_study_that_cannot_be_used(tmp_path, capsys, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert main(["sweep", str(path), "-o", str(tmp_path / "out")]) == 2
    assert str(path) in capsys.readouterr().err


def test_an_objective_that_no_result_has(fake_study, tmp_path, capsys):
    fake_study.write_text(fake_study.read_text() + "objectives: {step: min}\n")
    assert main(["sweep", str(fake_study), "-o", str(tmp_path / "out"), "--workers", "1"]) == 2
    assert "step_ps" in capsys.readouterr().err


def test_all_refused_is_no_answer(fake_study, tmp_path, capsys):
    fake_study.write_text("kind: fake\nbase: {pp: 2}\ngrid: {tp: [5, 7]}\n")
    assert main(["sweep", str(fake_study), "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().out.startswith("no answer: all points were refused")


def test_a_dry_run_writes_nothing(fake_study, tmp_path, capsys):
    assert main(["sweep", str(fake_study), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("21 of 32 points to run, 11 refused")
    assert not (tmp_path / "out").exists()


def test_the_page_is_self_contained_and_holds_the_study(fake_study, tmp_path):
    fake_study.write_text("kind: fake\nname: </script><b>&\ngrid: {tp: [1, 2, 5], pp: [2], name: ['</script><img>']}\n")
    assert main(["sweep", str(fake_study), "-o", str(tmp_path / "out"), "--workers", "1"]) == 0
    page = (tmp_path / "out" / "pareto.html").read_text()
    assert page.count("</script>") == 1
    assert not re.search(r"(src|href)\s*=|@import|url\(", page)
    assert "&lt;/script&gt;&lt;b&gt;&amp;" in page
    data = json.loads(re.search(r"^const D = (.*);$", page, re.M)[1])
    assert [row[data["columns"].index("tp")] for row in data["rows"]] == [1, 2]
    assert data["reasons"][0]["reason"] == "tp N does not divide N attention heads"
    assert data["rows"][0][data["columns"].index("name")] == "</script><img>"


def test_a_shipped_study_of_runs(tmp_path, capsys):
    assert main(["sweep", "run_topologies", "-o", str(tmp_path / "out"), "--workers", "1", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    rows = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    assert made["run"] == len(rows) == 6
    for fabric in ("fat_tree", "rail_optimized"):  # faster links, faster steps
        steps = [row["makespan_ps"] for row in rows if row["fabric"] == fabric]
        assert steps == sorted(steps, reverse=True)
        assert len(set(steps)) == 3
