"""The results folder: whole or not at all, byte-identical, readable again."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distsim import simulate
from distsim.analysis.summary import summarise
from distsim.cli.shipped import shipped
from distsim.errors import ConfigError
from distsim.report import folder as module
from distsim.report.folder import check_target, load, save
from distsim.report.html import timeline as page_timeline
from distsim.report.html.shown import chosen
from distsim.report.timeline import write_timeline

FILES = ["collectives.parquet", "links.parquet", "spans.parquet", "summary.json", "timeline.json.gz"]


def run(name="pipeline_send_recv"):
    return simulate(shipped()[name], "fat_tree", network="analytic")


def test_it_is_read_back_as_it_was(tmp_path):
    result = run("dp_overlapped_buckets")
    saved = load(save(result, tmp_path / "deep" / "out"))
    spans = result.spans()
    assert sorted(os.listdir(tmp_path / "deep")) == ["out"]
    assert sorted(os.listdir(tmp_path / "deep" / "out")) == FILES
    for column, expected in (("rank", spans.rank), ("start_ps", spans.start), ("end_ps", spans.end), ("ready_ps", spans.ready),
                             ("released_by", spans.released_by), ("bytes", spans.bytes), ("node", spans.node)):  # fmt: skip
        assert np.array_equal(saved.spans[column].to_numpy(), expected), column
    assert saved.spans["kind"].to_pylist() == [spans.kinds[k] for k in spans.kind]
    assert saved.spans["name"].to_pylist() == [spans.names[k] for k in spans.name]
    assert saved.spans["multiplicity"].to_pylist() == [1] * len(spans)
    assert saved.spans.schema.metadata[b"distsim.schema"] == b"1"
    assert saved.collectives.num_rows == len(result.collectives)
    assert saved.collectives["members"].to_pylist()[0] == list(result.collectives[0].members)
    assert np.array_equal(saved.links["busy_ps"].to_numpy(), result.links.busy)
    assert saved.links["src"].to_pylist()[0] == result.topology.node_names[result.topology.link_src[0]]
    assert saved.summary["makespan_ps"] == result.makespan


def test_law_equal_runs_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        save(run("moe_all_to_all"), tmp_path / name)
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_the_summary_has_provenance(tmp_path):
    summary = json.loads((save(run(), tmp_path / "out") / "summary.json").read_text())
    assert summary["schema"] == 1
    assert len(next(iter(summary["provenance"]["inputs"].values()))) == 64
    assert summary["provenance"]["network"] == summary["spec"]["network"] == "analytic"
    assert summary["command"].startswith("distsim run ")
    assert "--network analytic" in summary["command"]


def test_earlier_results_are_replaced(tmp_path):
    save(run("dp_overlapped_buckets"), tmp_path / "out")
    save(run(), tmp_path / "out")
    assert load(tmp_path / "out").summary["ranks"] == 4
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        save(run(), tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        check_target(tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match="cannot be written"):
        check_target(tmp_path / "notes.txt" / "out")
    with pytest.raises(ConfigError, match="is no results folder"):
        load(tmp_path)
    assert os.listdir(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("earlier", [True, False])
def test_a_run_that_is_cut_off_leaves_everything_as_it_was(tmp_path, monkeypatch, earlier):
    out = tmp_path / "out"
    if earlier:
        save(run(), out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def interrupted(path: Path, *rest: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_timeline", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(run("dp_overlapped_buckets"), out)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_full_disk_is_a_clear_refusal(tmp_path, monkeypatch):
    def full(path: Path, *rest: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_timeline", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        save(run(), tmp_path / "out")
    assert os.listdir(tmp_path) == []


def test_the_timeline_has_a_process_per_rank_and_slices_that_do_not_overlap(tmp_path):
    result = run()
    write_timeline(tmp_path / "t.gz", result, summarise(result))
    made = json.loads(gzip.decompress((tmp_path / "t.gz").read_bytes()))
    slices = [event for event in made["traceEvents"] if event["ph"] == "X"]
    assert len(slices) == len(result.spans())
    assert {e["args"]["name"] for e in made["traceEvents"] if e["name"] == "process_name"} == {f"rank {r}" for r in range(4)}
    last: dict[tuple[int, int], float] = {}
    for event in sorted(slices, key=lambda e: (e["pid"], e["tid"], e["ts"], e["dur"])):
        at = event["pid"], event["tid"]
        assert event["ts"] >= last.get(at, 0.0) - 1e-6
        last[at] = event["ts"] + event["dur"]
    assert max(last.values()) == pytest.approx(result.makespan / 1e6)
    send = next(event for event in slices if event["cat"] == "send")
    assert send["args"]["bytes"] == 33554432


def _with_latencies(result):
    """The run with latencies of two streams among its tasks: every third task, of no stream, then every third of a stream."""
    spans = result.spans()
    number = np.arange(len(spans))
    kind = np.where(number % 3 == 0, spans.kind, len(spans.kinds)).astype(np.int8)
    stream = np.select([number % 3 == 1, number % 3 == 2], [-1, 0], spans.stream).astype(np.int32)
    made = replace(spans, kind=kind, kinds=(*spans.kinds, "delay"), stream=stream)
    return replace(result, make_spans=lambda: made), number


def test_latencies_beside_streams_take_no_stream_of_others(tmp_path):
    result, number = _with_latencies(run())
    summary = summarise(result)
    write_timeline(tmp_path / "t.gz", result, summary)
    made = json.loads(gzip.decompress((tmp_path / "t.gz").read_bytes()))
    slices = [event for event in made["traceEvents"] if event["ph"] == "X"]
    assert {event["args"]["row"] for event in slices} == set(np.flatnonzero(number % 3 != 1).tolist())
    spans, shown = result.spans(), chosen(result, summary)
    drawn = page_timeline.columns(result, summary, shown, page_timeline.arrange(result, summary, shown))["rows"]
    beside = [row for row in drawn if row["title"].startswith("latencies")]
    took = spans.end > spans.start
    assert sum(row["tasks"] for row in beside) == int(np.count_nonzero((number % 3 == 1) & took))
    for rank in range(result.ranks):  # latencies come last
        titles = [row["title"].startswith("latencies") for row in drawn if row["rank"] == rank]
        assert titles == sorted(titles)


def test_a_large_run_shows_the_slowest_rank_first_and_says_what_is_left_out(tmp_path):
    result = run()
    summary = summarise(result)
    slowest = summary.slowest
    size = int((result.spans().rank == slowest).sum())
    for ranks, spans, shown in ((1, 10_000, size), (4, size, size), (4, 10, 10)):
        write_timeline(tmp_path / "t.gz", result, summary, ranks, spans)
        made = json.loads(gzip.decompress((tmp_path / "t.gz").read_bytes()))
        slices = [event for event in made["traceEvents"] if event["ph"] == "X"]
        assert len(slices) == shown
        assert {event["pid"] for event in slices} == {slowest}
        assert made["otherData"]["shown"] == f"ranks 1 of 4, {shown} of {len(result.spans())} tasks"
