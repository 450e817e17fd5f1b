"""Folder, page and timeline of a service: whole or not at all, equal bytes, readable by others."""

from __future__ import annotations

import gzip
import itertools
import json
import re
from collections import defaultdict
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from served_results import MS, Linear, served, workload

from distsim.analysis.serving_findings import findings
from distsim.analysis.serving_slo import Slo
from distsim.errors import ConfigError
from distsim.report import serving_folder
from distsim.report.serving import answer, text
from distsim.report.serving_document import document
from distsim.report.serving_page import page
from distsim.report.serving_timeline import check_timeline, write_timeline
from distsim.serving.requests.table import requests_of

FILES = {"requests.parquet", "iterations.parquet", "replicas.parquet", "series.parquet", "summary.json", "page.html"}


def a_run(seed=0, **options):
    result = served(workload(50, seed), replicas=2, kv_blocks=80, provenance={"seed": seed}, **options)
    return result, findings(result, Slo.parse("ttft=100ms,tpot=20ms"), 2.0)


def test_equal_results_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        result, found = a_run()
        serving_folder.save(result, tmp_path / name, found)
        write_timeline(tmp_path / f"{name}.json.gz", result)
    assert {path.name for path in (tmp_path / "a").iterdir()} == FILES
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_tables_hold_what_the_result_holds_with_units_in_their_names(tmp_path):
    result, found = a_run()
    serving_folder.save(result, tmp_path / "out", found)
    saved = serving_folder.load(tmp_path / "out")
    rows = saved.requests.to_pydict()
    assert rows["latency_ps"] == result.requests.latency.tolist()
    assert rows["ttft_ps"] == result.requests.ttft.tolist()
    assert set(rows["status"]) == {"finished"}
    assert set(rows["reason"]) == {""}
    log = saved.iterations.to_pydict()
    assert log["start_ps"] == sorted(log["start_ps"])
    assert sum(a * b for a, b in zip(log["each_ps"], log["count"], strict=True)) == sum(row.busy for row in result.replicas)
    assert saved.replicas.num_rows == 2
    assert saved.series.num_rows == len(found.series)
    metadata = pq.read_schema(tmp_path / "out" / "requests.parquet").metadata
    assert json.loads(metadata[b"distsim.provenance"]) == {"seed": 0}
    assert metadata[b"distsim.schema"] == b"1"
    assert saved.summary == json.loads(json.dumps(document(result, found)))
    for name in (*saved.requests.column_names, *saved.iterations.column_names, *saved.series.column_names):
        assert not re.search(r"(time|latency|start|bytes)$", name), f"{name} has no unit"


def test_a_folder_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    result, found = a_run()
    serving_folder.save(result, tmp_path / "out", found)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serving_folder, "page", full)
    with pytest.raises(ConfigError, match="No space left"):
        serving_folder.save(*a_run(seed=1)[:1], tmp_path / "out", found)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="something else"):
        serving_folder.check_target(tmp_path)
    with pytest.raises(ConfigError, match="distsim serve"):
        serving_folder.load(tmp_path)


def test_the_page_is_self_contained_and_its_charts_are_well_formed():
    result, found = a_run()
    html = page(result, found)
    charts = re.findall(r"<svg.*?</svg>", html, re.S)
    assert len(charts) == 10
    for one in charts:
        assert ElementTree.fromstring(one).tag == "svg"
    assert not re.search(r"<script|https?://|src=", html)
    assert answer(result, found).replace("&", "&amp;") in html


def test_the_page_of_a_run_without_a_finished_request_is_still_a_page():
    result = served(requests_of(np.array([5]), np.array([10_000]), np.array([5])), kv_blocks=4)
    html = page(result, findings(result))
    assert "nothing to draw" in html
    assert "longer than the KV cache" in html


@pytest.mark.parametrize("stages", [1, 2])
def test_the_timeline_holds_every_iteration_and_request(tmp_path, stages):
    result, _ = a_run(times=Linear(stages=stages))
    write_timeline(tmp_path / "t.json", result)
    write_timeline(tmp_path / "t.json.gz", result)
    made = json.loads((tmp_path / "t.json").read_text())
    assert json.loads(gzip.decompress((tmp_path / "t.json.gz").read_bytes())) == made
    slices = [event for event in made["traceEvents"] if event["ph"] == "X"]
    total = int((result.iterations["ps"] * result.iterations["count"]).sum())
    assert sum(event["dur"] for event in slices) == pytest.approx(total / 1e6)
    lanes = defaultdict(list)
    for event in slices:
        lanes[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for spans in lanes.values():
        spans.sort()
        assert all(b[0] >= a[1] - 1e-6 for a, b in itertools.pairwise(spans))
    begun = [event for event in made["traceEvents"] if event["ph"] == "b" and event["name"].startswith("request")]
    ended = [event for event in made["traceEvents"] if event["ph"] == "e" and event["name"].startswith("request")]
    assert len(begun) == len(ended) == 50
    assert begun[7]["ts"] == pytest.approx(result.requests.arrival[7] / 1e6)


def test_a_timeline_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    for path in (tmp_path / "no" / "t.json", tmp_path):
        with pytest.raises(ConfigError):
            check_timeline(str(path))


def test_drops_and_warnings_are_on_the_first_screen():
    arrival = np.array([0, MS, 2 * MS, 3 * MS])
    table = requests_of(arrival, np.array([10, 9000, 9000, 10]), np.array([5, 5, 5, 5]))
    result = served(table, kv_blocks=20, warnings=("3 kernels extrapolated",))
    lines = text(result, findings(result)).splitlines()
    assert "2 of 4 requests not served" in lines[0]
    assert any("dropped: 2 of 4 requests: longer than the KV cache" in line for line in lines[:8])
    assert any("1 warning" in line for line in lines[:8])
    assert lines[-1].strip() == "warning: 3 kernels extrapolated"
