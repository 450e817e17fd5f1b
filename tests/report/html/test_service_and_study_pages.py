"""Pages of services and studies: their figures are those of the folders, their columns are those of the tables."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim.cli.main import main
from distsim.errors import ConfigError
from distsim.report.html.kinds import page_of
from distsim.report.html.lines import distribution
from distsim.report.html.page import render
from distsim.report.html.replicas import busy
from distsim.report.html.serving import window
from distsim.report.html.sweep import SHOWN, document, load
from distsim.report.serving_folder import load as load_service


def unpacked(column):
    """A packed column, as a page unpacks it."""
    kind = {"f4": np.float32, "f8": np.float64}[column["$"]]
    planes = np.frombuffer(zlib.decompress(base64.b64decode(column["b"])), np.uint8)
    return np.ascontiguousarray(planes.reshape(-1, column["n"]).T).view(kind).ravel()


def sections(page):
    return {section.id: section for section in page.sections}


def test_a_service_shows_what_its_folder_holds(results_folder):
    saved = load_service(results_folder / "service-a")
    page = page_of([str(results_folder / "service-a")])
    assert page.answer == saved.summary["answer"]
    found = sections(page)
    assert list(found) == ["latencies", "load", "resources", "replicas", "setup"]
    lines = {line["name"]: line["points"] for line in found["latencies"].data["charts"][0]["lines"]}
    ttft = np.sort(saved.requests["ttft_ps"].to_numpy()) / 1e12
    assert np.array_equal(unpacked(lines["time to first token"]["x"]), ttft[ttft >= 0])
    assert unpacked(lines["time to first token"]["y"])[-1] == 1
    rates = {line["name"]: line["points"] for line in found["load"].data["charts"][1]["lines"]}
    half = window(saved) // int(saved.series["width_ps"].to_numpy()[0]) // 2
    told = saved.series["output_tokens_per_s"].to_numpy()
    around = [told[max(place - half, 0) : place + half + 1].mean() for place in range(len(told))]
    assert np.allclose(unpacked(rates["output"]["y"]), around, rtol=1e-5)
    assert page.figures[0].value == f"{saved.summary['throughput']['whole']['requests_per_s']:.4g}"


def test_the_map_of_replicas_holds_their_busy_time(results_folder):
    saved = load_service(results_folder / "service-b")
    end = saved.summary["end_ps"]
    for number, took in zip(saved.replicas["replica"].to_pylist(), saved.replicas["busy_ps"].to_pylist(), strict=True):
        shares = busy(saved, number, end)
        assert shares.min() >= 0
        assert shares.max() <= 1 + 1e-9
        assert shares.mean() * end == pytest.approx(took, rel=1e-6)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=3000))
def test_a_distribution_ascends_to_one_through_its_own_values(values):
    line = distribution("x", np.array(values))
    assert len(line.x) <= 400
    assert line.y[-1] == 1
    assert line.x[0] == min(values)
    assert line.x[-1] == max(values)
    assert np.all(np.diff(line.x) >= 0)
    assert np.all(np.diff(line.y) > 0)
    ordered, count = np.sort(values), line.y * len(values)
    assert np.all(count <= np.searchsorted(ordered, line.x, "right") + 1e-6)
    assert np.all(count > np.searchsorted(ordered, line.x, "left") - 1e-6)


def test_a_study_shows_what_its_folder_holds(results_folder):
    table = pq.read_table(results_folder / "study-a" / "results.parquet")
    summary = json.loads((results_folder / "study-a" / "summary.json").read_text())
    saved = load(str(results_folder / "study-a"))
    assert saved.rows == table.to_pylist()
    assert saved.varied == ("fabric", "gbps", "topo")
    assert [saved.rows[at]["point"] for at in saved.front] == [row["point"] for row in summary["front"]]
    page = page_of([str(results_folder / "study-a")])
    assert page.answer.startswith("best makespan ")
    data = sections(page)["points"].data
    assert data["cells"][data["columns"].index("makespan_ps")] == table["makespan_ps"].to_pylist()
    assert data["best"] == saved.best
    assert "makespan_ps" in data["numeric"]
    assert "fabric" not in data["numeric"]
    assert (results_folder / "study-a" / "study.yaml").read_text().strip().splitlines()[-1] in sections(page)["setup"].html


def test_a_study_of_which_nothing_was_run(results_folder, tmp_path):
    text = (results_folder / "study-a" / "study.yaml").read_text() + "constraints: ['gbps > 1000']\n"
    (tmp_path / "none.yaml").write_text(text)
    assert main(["sweep", str(tmp_path / "none.yaml"), "-o", str(tmp_path / "none"), "--quiet"]) == 1
    page = page_of([str(tmp_path / "none")])
    assert page.answer == "no answer: all points were refused"
    assert "constraint" in sections(page)["refused"].html
    assert "points" not in sections(page)
    assert render(page).startswith("<!doctype html>")


def test_of_very_many_points_front_and_best_are_always_shown(results_folder):
    saved = load(str(results_folder / "study-a"))
    many = 3 * SHOWN
    rows = [{**saved.rows[0], "point": k, "makespan_ps": 10**12 - k} for k in range(many)]
    large = dataclasses.replace(saved, rows=rows, front=[many - 1, many - 2], best=many - 1)
    data = document(large)
    points = data["cells"][data["columns"].index("point")]
    assert len(points) <= SHOWN + 3
    assert [points[at] for at in data["front"]] == [many - 1, many - 2]
    assert points[data["best"]] == many - 1


def test_fields_that_vary_are_those_of_the_study(results_folder):
    saved = load(str(results_folder / "study-b"))
    assert set(saved.varied) <= set(saved.summary["fields"])
    assert not {"makespan_ps", "ranks", "link_bytes"} & set(saved.varied)


@pytest.mark.parametrize(
    ("name", "gone"), [("service-a", "series.parquet"), ("study-a", "results.parquet"), ("run", "spans.parquet")]
)
def test_a_broken_folder_is_refused(results_folder, tmp_path, name, gone):
    shutil.copytree(results_folder / name, tmp_path / name)
    (tmp_path / name / gone).write_bytes(b"PAR1 no more")
    with pytest.raises(ConfigError):
        page_of([str(tmp_path / name)])
    (tmp_path / name / gone).unlink()
    with pytest.raises(ConfigError):
        page_of([str(tmp_path / name)])


def test_equal_folders_give_equal_pages(results_folder):
    for name in ("service-a", "study-a"):
        assert render(page_of([str(results_folder / name)])) == render(page_of([str(results_folder / name)]))
