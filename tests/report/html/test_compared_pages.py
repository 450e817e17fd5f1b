"""Pages of two results: their first line, what they refuse, and the command."""

from __future__ import annotations

import itertools
import json

import pytest

from distsim.cli.main import main
from distsim.errors import ConfigError
from distsim.report.folder import load
from distsim.report.html.kinds import page_of
from distsim.report.html.sides import change, names
from distsim.units import format_time

KINDS = {"run": "run", "service-a": "service", "study-a": "sweep"}


def sections(page):
    return {section.id: section for section in page.sections}


def test_two_runs_say_which_is_slower_and_why(results_folder):
    one, other = (load(results_folder / name).summary["makespan_ps"] for name in ("run", "run-chunk"))
    page = page_of([str(results_folder / "run"), str(results_folder / "run-chunk")])
    word = "longer" if other > one else "less"
    assert page.answer.startswith(f"B takes {format_time(abs(other - one))} {word} than A")
    assert "exposed" in page.answer
    found = sections(page)
    assert {"difference", "settings", "communication", "links", "timelines", "configuration"} <= set(found)
    steps = found["difference"].data["steps"]
    assert sum(more for _, more in steps) == pytest.approx(other - one, abs=1)
    assert "cut_through" in found["settings"].html
    assert found["timelines"].data["first"]["makespan"] == found["timelines"].data["second"]["makespan"] == max(one, other)
    back = page_of([str(results_folder / "run-chunk"), str(results_folder / "run")])
    assert back.answer.startswith(f"B takes {format_time(abs(other - one))} {'less' if word == 'longer' else 'longer'} than A")


def test_equal_runs_say_so(results_folder):
    page = page_of([str(results_folder / "run")] * 2)
    assert page.answer.startswith("both steps take ")
    assert "No part differs" in sections(page)["difference"].html
    assert "same specification" in sections(page)["settings"].html


def test_two_services(results_folder):
    page = page_of([str(results_folder / name) for name in ("service-a", "service-b")])
    assert page.answer.startswith("B against A: ")
    charts = sections(page)["latencies"].data["charts"]
    assert {chart["id"] for chart in charts} == {"cdf-ttft", "cdf-tpot", "cdf-latency", "cdf-queueing"}
    assert all([line["name"] for line in chart["lines"]] == ["A: service-a", "B: service-b"] for chart in charts)
    assert ["objective", 0.5] in charts[0]["marks"]
    assert "qps=40" in sections(page)["settings"].html


def test_two_studies(results_folder):
    page = page_of([str(results_folder / name) for name in ("study-a", "study-b")])
    assert page.answer.startswith("best makespan of B ")
    data = sections(page)["fronts"].data
    assert (data["y"], data["x"]) == ("makespan_ps", "link_bytes")
    assert [len(study["point"]) for study in data["studies"]] == [4, 4]


@pytest.mark.parametrize(("one", "other"), [pair for pair in itertools.product(KINDS, KINDS) if pair[0] != pair[1]])
def test_results_of_different_kinds_are_refused(results_folder, one, other):
    with pytest.raises(ConfigError, match="cannot be compared"):
        page_of([str(results_folder / one), str(results_folder / other)])


def test_the_command_writes_a_comparison_or_nothing(results_folder, tmp_path, capsys):
    target = tmp_path / "both.html"
    words = ["report", str(results_folder / "run"), str(results_folder / "run-chunk"), "-o", str(target), "--json"]
    assert main(words) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["bytes"] == target.stat().st_size
    assert "difference" in made["sections"]
    first = target.read_bytes()
    assert main(words) == 0
    assert target.read_bytes() == first
    capsys.readouterr()
    other = tmp_path / "none.html"
    assert main(["report", str(results_folder / "run"), str(results_folder / "service-a"), "-o", str(other)]) == 2
    assert "cannot be compared" in capsys.readouterr().err
    assert not other.exists()


def test_names_are_as_short_as_tells_them_apart():
    assert names("/x/a", "/x/b") == ("A: a", "B: b")
    assert names("/x/a/r", "/y/a/r") == ("A: x/a/r", "B: y/a/r")
    assert [name[3:].lstrip("/") for name in names("/x", "/x")] == ["x", "x"]


def test_changes_in_words():
    assert (change(2, 3), change(3, 3), change(0, 2), change(0, 0)) == ("+50.0 %", "same", "new", "same")
    assert change(1e6, 1e6 - 1) == change(1e6, 1e6 + 1) == "no difference"
