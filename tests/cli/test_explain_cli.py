"""``distsim explain`` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distsim.cli.main import main
from distsim.cli.shipped import shipped

GOLDEN = Path(__file__).parent / "golden_explain_pipeline.txt"


@pytest.fixture
def result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A folder of results of a shipped pipeline."""
    folder = str(tmp_path / "out")
    assert main(["run", "pipeline_send_recv", "--network", "fluid", "-o", folder, "--quiet"]) == 0
    capsys.readouterr()
    return folder


def run(args, capsys):
    """(exit code, stdout, stderr)."""
    code = main(["explain", *args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_text_of_a_shipped_trace_is_golden(result, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, err = run([result], capsys)
    assert (code, err) == (0, "")
    assert out == GOLDEN.read_text(encoding="utf-8")


def test_the_document_adds_up(result, capsys):
    code, out, _ = run([result, "--json"], capsys)
    found = json.loads(out)
    assert code == 0
    assert (found["format"], found["schema"]) == ("distsim-explanation", 1)
    assert sum(found["path"]["contributions"]["kind"].values()) == found["makespan_ps"]
    assert sum(row["end_ps"] - row["begin_ps"] for row in found["path"]["told"]) == found["makespan_ps"]
    for one in found["per_rank"]:
        assert sum(one["parts_ps"].values()) == found["makespan_ps"]
        assert sum(one["compute_ps"].values()) == one["parts_ps"]["compute"]
    assert found["slack"]["exact"] is True
    assert {one["name"] for one in found["bounds"]} >= {"infinite_network", "infinite_compute", "no_bubbles"}


def test_one_rank(result, capsys):
    code, out, _ = run([result, "--rank", "3", "--json"], capsys)
    found = json.loads(out)
    assert code == 0
    assert [one["rank"] for one in found["per_rank"]] == [3]
    assert found["path"]["end_ps"] < found["makespan_ps"]


def test_bounds_run_again_stand_beside_those_to_first_order(result, capsys):
    _, out, _ = run([result, "--resimulate", "--json"], capsys)
    bounds = {one["name"]: one for one in json.loads(out)["bounds"]}
    assert bounds["infinite_network"]["resimulated_ps"] == bounds["infinite_network"]["step_ps"]
    # without computation in between, messages share links: no longer what first order says
    assert bounds["infinite_compute"]["resimulated_ps"] > bounds["infinite_compute"]["step_ps"]
    assert bounds["no_bubbles"]["resimulated_ps"] is None


def test_a_trace_that_has_changed_is_noted(tmp_path, capsys):
    trace, folder = tmp_path / "pipeline.json", str(tmp_path / "out")
    trace.write_text(Path(shipped()["pipeline_send_recv"]).read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["run", str(trace), "--network", "fluid", "-o", folder, "--quiet"]) == 0
    capsys.readouterr()
    trace.unlink()
    code, out, _ = run([folder], capsys)
    assert code == 0
    assert "note: of every task only the dependency that ended last is known" in out


def test_a_service_is_explained_by_its_requests(tmp_path, capsys):
    folder = str(tmp_path / "load")
    shipped_requests = str(Path(shipped()["pipeline_send_recv"]).with_name("chat_sessions.jsonl"))
    args = ["--model", "llama3-8b", "--cluster", "h100:gpus=1", "--requests", shipped_requests, "--n", "20"]
    assert main(["serve", *args, "-o", folder, "--quiet"]) == 0
    capsys.readouterr()
    code, out, _ = run([folder], capsys)
    assert code == 0
    assert out.startswith("latency ")
    code, _, err = run([folder, "--rank", "0"], capsys)
    assert code == 2
    assert "--rank is for runs and training steps" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["RESULT", "--rank", "9"], "there is no rank 9"), (["RESULT", "--step", "x"], "the run tells no steps"),
        (["RESULT", "--top", "0"], "0 rows"), (["nowhere"], "is no results folder"),
        ([shipped()["pipeline_send_recv"]], "Simulate it first: distsim run TRACE -o FOLDER"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_is_refused(args, said, result, capsys):
    code, out, err = run([result if one == "RESULT" else str(one) for one in args], capsys)
    assert (code, out) == (2, "")
    assert said in err
