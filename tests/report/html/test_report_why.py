"""Sections that say why: the story that points at the timeline, ranks and classes that add up, levers, captured steps."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from building import ROOT
from report_results import Seen, steps

from distsim import simulate
from distsim.analysis.explain.findings import explain
from distsim.analysis.summary import summarise
from distsim.cli.main import main
from distsim.report import explain_rows
from distsim.report.folder import save
from distsim.report.html import captured, timeline, why
from distsim.report.html.kinds import page_of
from distsim.report.html.page import render
from distsim.report.html.shown import chosen
from distsim.report.reopen import reopen

TRACE = str(ROOT / "traces" / "pipeline_send_recv.json")


def _arranged(result):
    summary = summarise(result)
    return timeline.arrange(result, summary, chosen(result, summary))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(simulate(TRACE, "fat_tree"), tmp_path_factory.mktemp("why") / "out")


def test_it_says_what_explain_says_and_points_at_tasks(folder):
    result = reopen(folder)
    section = why.section(result, _arranged(result))
    found = explain(result)
    seen = Seen(section.html)
    said = section.html
    assert explain_rows.answer(found).split(": ")[0] in said
    tasks = [int(row["data-task"]) for row in seen.all("tr") if "data-task" in row]
    assert tasks
    drawn = int(np.count_nonzero(chosen(result, summarise(result)).rows >= 0))
    assert all(0 <= task < drawn for task in tasks)
    assert "What it could be at best" in said


@pytest.mark.parametrize("top", [1, 3, 12, 1000])
def test_rows_of_the_story_cover_the_path_without_gap(folder, top):
    found = explain(reopen(folder))
    rows = explain_rows.path(found, top)
    assert sum(row.ps for row in rows) == found.end_ps
    assert [row.begin_ps for row in rows] == sorted(row.begin_ps for row in rows)
    assert sum(len(row.legs) for row in rows) == len(found.story.legs)


def test_means_of_parts_add_up_to_the_step(folder):
    found = explain(reopen(folder))
    rows = explain_rows.parts(found)
    assert sum(row.mean_ps for row in rows) == pytest.approx(found.result.makespan)
    assert sum(row.percent for row in rows) == 100
    assert all(row.least_ps <= row.mean_ps <= row.most_ps for row in rows)


def test_where_the_trace_has_gone_it_says_so(tmp_path):
    trace = tmp_path / "trace.json"
    trace.write_bytes((ROOT / "traces" / "pipeline_send_recv.json").read_bytes())
    place = save(simulate(str(trace), "fat_tree"), tmp_path / "out")
    trace.unlink()
    (section,) = [one for one in page_of([str(place)]).sections if one.id == "why"]
    assert "there is no such trace" in section.html
    assert "The critical path as a story" in section.html


def test_of_too_many_tasks_it_is_left_out_and_says_so(monkeypatch):
    result = steps(2, 3)
    monkeypatch.setattr(why, "TASKS", 5)
    assert "12 tasks are more than a page waits for (5)" in why.section(result, _arranged(result)).html


def test_levers_come_with_the_option_only(folder, tmp_path, capsys):
    out = str(tmp_path / "page.html")
    assert main(["report", str(folder), "-o", out, "--json"]) == 0
    assert "levers" not in json.loads(capsys.readouterr().out)["sections"]
    assert main(["report", str(folder), "-o", out, "--json", "--levers"]) == 0
    assert "levers" in json.loads(capsys.readouterr().out)["sections"]
    seen = Seen((tmp_path / "page.html").read_text())
    assert "gpu.compute" in seen.texts["levers"]
    saved = [float(one["data-key"]) for one in seen.all("td") if one.get("data-key", "").replace(".", "").lstrip("-").isdigit()]
    assert saved


def test_levers_of_two_results_are_refused(folder, tmp_path, capsys):
    assert main(["report", str(folder), str(folder), "--levers", "-o", str(tmp_path / "page.html")]) == 2
    assert "--levers is for one run" in capsys.readouterr().err


# --- captured traces ---------------------------------------------------------------------------------------------------------


def _captured(ranks, count, **more):
    """A captured run of ``count`` iterations."""
    made = steps(ranks, count, **more)
    spans = made.spans()
    named = tuple(f"ProfilerStep#{number + 3}" for number in range(count))
    step = np.tile(np.repeat(np.arange(count, dtype=np.int32), 2), ranks)
    whole = replace(spans, step=step, steps=named)
    return replace(made, make_spans=lambda: whole, spec=dict(made.spec) | {"communication": "recorded"})


def test_steps_have_a_row_that_shows_them_on_the_timeline():
    result = _captured(3, 4, late=1)
    section = captured.section(result, summarise(result))
    rows = [one for one in Seen(section.html).all("tr") if "data-begin" in one]
    assert len(rows) == 4
    begins = [int(one["data-begin"]) for one in rows]
    assert begins == sorted(begins)
    assert begins[0] == 0
    assert int(rows[-1]["data-end"]) == result.makespan


def test_waiting_and_transfer_of_ranks_are_those_of_the_spans():
    result = _captured(3, 4, late=1)
    seen = Seen(captured.section(result, summarise(result)).html)
    keys = [one["data-key"] for one in seen.all("td") if "data-key" in one]
    at = len(keys) - 3 * 6
    waiting = [int(keys[at + 6 * rank + 3]) for rank in range(3)]
    transfer = [int(keys[at + 6 * rank + 4]) for rank in range(3)]
    spans = result.spans()
    expected = [0, 0, 0]
    for row in result.collectives:
        for rank in row.members:
            mine = (spans.rank == rank) & (spans.end == row.end_ps) & (spans.kind == spans.kinds.index("all_reduce"))
            expected[rank] += row.start_ps - int(spans.start[mine][0])
    assert waiting == expected
    assert waiting[1] == 0  # the late one waits for nobody
    assert transfer == [4 * 5_000_000] * 3


def test_other_runs_have_no_such_section(folder):
    result = reopen(folder)
    assert captured.section(result, summarise(result)) is None


def test_a_captured_run_has_its_classes_steps_and_no_links(traces_reference, tmp_path):
    files = sorted(map(str, (traces_reference / "param_dlrm_8xV100").glob("kineto_rank*.json.gz")))
    assert main(["run", *files, "-o", str(tmp_path / "out"), "--quiet"]) == 0
    page = page_of([str(tmp_path / "out")])
    seen = Seen(render(page))
    assert "gemm" in seen.texts["why"]
    assert "ProfilerStep#" in seen.texts["iterations"]
    assert "links" not in seen.texts  # no network was simulated
    rows = seen.data("timeline")["rows"]
    last = {row["rank"]: row["title"] for row in rows}
    assert all(title.startswith("latencies") for title in last.values())
    assert not [row for row in rows if row["title"].startswith("latencies") and row["rank"] not in last]
