"""The page as a document: whole in itself, escaped, reachable, the same figures as everywhere else."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pytest
from report_results import Seen, steps

from distsim import simulate
from distsim.analysis.summary import summarise
from distsim.cli.main import parser_for
from distsim.cli.shipped import shipped
from distsim.cli.training_options import point
from distsim.errors import ConfigError
from distsim.report.folder import save
from distsim.report.html.kinds import page_of
from distsim.report.html.page import render, write
from distsim.report.html.section import Figure, Page, Section
from distsim.report.reopen import reopen
from distsim.training import TrainSpec, train

EVIL = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "<!--",
    "@DATA@",
    "&lt;b&gt;",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("run") / "out"
    return save(simulate(shipped()["pipeline_send_recv"], "fat_tree"), place)


@pytest.fixture(scope="module")
def seen(folder):
    return Seen(render(page_of([str(folder)])))


def test_all_sections_are_there_and_in_the_contents(seen):
    ids = [one["id"] for one in seen.all("section")]
    assert ids == ["breakdown", "why", "timeline", "path", "communication", "links", "configuration"]
    assert [one["href"] for one in seen.all("a") if one.get("href", "").startswith("#") and "class" not in one] == [
        f"#{i}" for i in ids
    ]


def test_ids_are_unique_and_labels_point_at_something(seen):
    ids = [attributes["id"] for _, attributes in seen.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in seen.elements:
        for name in ("aria-labelledby", "for", "data-copy"):
            assert name not in attributes or attributes[name] in ids


def test_nothing_is_loaded_from_anywhere(seen):
    policy = next(one["content"] for one in seen.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    for tag, attributes in seen.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)


def test_controls_have_names_and_no_order_of_their_own(seen):
    for tag, attributes in seen.elements:
        assert int(attributes.get("tabindex", "0")) <= 0, (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    assert seen.all("html") == [{"lang": "en"}]


def test_equal_results_give_equal_bytes(folder):
    assert render(page_of([str(folder)])) == render(page_of([str(folder)]))


def test_the_page_says_what_the_run_said(folder, seen):
    result = reopen(str(folder))
    summary = summarise(result)
    page = page_of([str(folder)])
    assert page.answer.startswith("step ")
    assert seen.all("h1")
    parts = {part["name"]: part["ps"] for part in seen.data("breakdown")["parts"]}
    assert np.array_equal(parts["compute"], summary.breakdown.compute)
    assert np.array_equal(sum(parts.values()), np.full(result.ranks, result.makespan))
    timeline = seen.data("timeline")
    assert timeline["makespan"] == result.makespan
    assert len(timeline["begin"]) == int((result.spans().end > result.spans().start).sum())


@pytest.mark.parametrize("text", EVIL)
def test_names_cannot_become_markup(text, tmp_path):
    result = steps(2, 3, names=(text, f"{text}2", "c"), warnings=(text,))
    page = page_of([str(save(result, tmp_path / "out"))], title=text)
    evil, plain = Seen(render(page)), Seen(render(page_of([str(save(steps(2, 3), tmp_path / "plain"))])))
    assert len(evil.scripts) == len(plain.scripts)
    assert not evil.all("img")
    assert not [name for _, attributes in evil.elements for name in attributes if name.startswith("on")]
    assert text in evil.data("timeline")["names"]
    assert evil.texts["warnings"].count(text) >= 1
    assert evil.texts["path"].count(text) >= 1


def test_a_mark_of_the_template_in_a_text_stays_a_text():
    page = Page("@ANSWER@", "@PLOTLY@", (Section("a", "A", "<p>@TITLE@</p>"),), (Figure("@STYLE@", "1"),))
    seen = Seen(render(page))
    assert "@TITLE@" in seen.texts["a"]


def test_the_library_is_there_once_where_there_are_charts_and_else_not():
    with_charts = render(Page("t", "a", (Section("a", "A", "", {}, ("breakdown.js",), charts=True),) * 1))
    assert with_charts.count('id="plotly"') == 1
    assert "MIT" in with_charts[: with_charts.index('id="plotly"')][-300:]  # its licence travels with it
    assert 'id="plotly"' not in render(Page("t", "a", (Section("a", "A", ""),)))


def test_a_training_step_has_its_memory_and_a_command_that_repeats_it(tmp_path):
    training = train(model="llama3-8b", cluster="dgx_h100:gpus=8", tp=2, pp=2, global_batch=16, seq=8192, recompute="selective")
    place = save(training.result, tmp_path / "out")
    page = page_of([str(place)])
    seen = Seen(render(page))
    figures = {figure.name: figure.value for figure in page.figures}
    assert figures["MFU"] == f"{100 * training.mfu:.1f} %"
    assert [one["id"] for one in seen.all("section")][:2] == ["breakdown", "training"]
    memory = seen.data("memory")
    assert [sum(sizes[stage] for sizes in memory["bytes"]) for stage in range(2)] == [
        one.device for one in training.memory.stages
    ]
    through = memory["charts"][0]["lines"]
    assert [line["name"] for line in through] == ["stage 0", "stage 1"]
    for line, one in zip(through, training.memory.stages, strict=True):
        assert line["points"]["y"].max() * 2**30 == pytest.approx(one.allocated, rel=1e-6)
        assert len(line["points"]["x"]) == len(line["points"]["y"])
    stages = seen.data("training")
    for stage in range(2):
        whole = sum(part["stages"][stage] for part in stages["parts"])
        assert whole == pytest.approx(training.step_ps, rel=0.01)
    words = shlex.split(seen.texts["command"])
    assert words[:2] == ["distsim", "train"]
    again = TrainSpec.of(point(parser_for(words[1:]).parse_args(words[1:])))
    assert again == training.job.spec


def test_timed_events_are_told(tmp_path):
    at = {"at": "10ms", "rank": 1, "slow": 2.0, "until": "60ms"}
    result = simulate(shipped()["dp_overlapped_buckets"], "fat_tree", events=str(_written(tmp_path / "e.yaml", [at])))
    seen = Seen(render(page_of([str(save(result, tmp_path / "out"))])))
    assert "events cost" in seen.texts["events"]
    assert "rank 1" in seen.texts["events"]


def _written(path, events):
    path.write_text(f"events: {json.dumps(events)}\n")
    return path


def test_1024_ranks_fit_in_eight_megabytes(tmp_path):
    page = page_of([str(save(steps(1024, 60, topo="h100_superpod:gpus=1024"), tmp_path / "out"))])
    target = tmp_path / "report.html"
    assert write(page, target) == target.stat().st_size <= 8e6
    data = Seen(target.read_text(encoding="utf-8")).data("timeline")
    assert len(data["ranks"]) == 64
    assert sum(row["tasks"] for row in data["rows"]) == 64 * 120


def test_a_file_is_written_whole_or_not_at_all(folder, tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    target.write_text("before")
    page = page_of([str(folder)])

    def full(self, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.write_bytes", full)
        with pytest.raises(ConfigError, match="No space left"):
            write(page, target)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]
    write(page, target)
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
