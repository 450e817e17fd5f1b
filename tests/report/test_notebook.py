"""Notebook comfort: HTML of results, Arrow tables without copies, and the worked scripts of docs/notebooks."""

from __future__ import annotations

import html.parser
import importlib.util
import runpy
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from building import ROOT

from distsim import simulate
from distsim.cli.shipped import shipped
from distsim.report.notebook.fragment import bar, fragment, notes, rows
from distsim.serve import serve
from distsim.sweep.evaluator import Outcome
from distsim.sweep.findings import findings
from distsim.sweep.points import Numbered, Tally
from distsim.sweep.runner import Task
from distsim.sweep.study import study
from distsim.training import train

VOID = {"br", "hr", "img", "meta"}


class Reader(html.parser.HTMLParser):
    """Text, and tags that are balanced."""

    def __init__(self):
        super().__init__()
        self.open, self.said, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs), "no script, no file"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


def read(text):
    """What a reader sees."""
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    assert not {"script", "link", "iframe"} & set(reader.tags)
    return " ".join(reader.said)


@pytest.fixture(scope="module")
def result():
    return simulate(shipped()["pipeline_send_recv"], "fat_tree", network="analytic")


def test_a_run(result):
    said = read(result._repr_html_())
    assert said.startswith("step 1.266 s on 4 ranks: 65 % compute")
    assert "idle 34 %" in said
    assert "recv" in said
    assert len(result._repr_html_()) < 20_000
    warned = read(replace(result, warnings=("<b>two & two</b>",) * 7)._repr_html_())
    assert "warning: <b>two & two</b>" in warned
    assert "and 2 more" in warned


def test_a_training_step():
    step = train(model="llama3-8b", cluster="dgx_h100:gpus=8", tp=2, global_batch=32, seq=8192)
    said = read(step._repr_html_())
    assert "MFU" in said
    assert "matrix products" in said
    assert "optimizer" in said


def test_a_service():
    service = serve(
        model="llama3-8b", cluster="h100:gpus=1", requests="poisson:qps=4", n=20, lengths="fixed:prompt=100,output=10"
    )
    said = read(service._repr_html_())
    assert "requests/s" in said
    assert "time to first token" in said


def test_a_sweep():
    made = study({"kind": "run", "name": "mine", "base": {"trace": "x"}, "grid": {"splits": [1, 2]}})
    tasks = [Task(Numbered(k, {"trace": "x", "splits": k + 1}, {}), str(k), {}) for k in range(2)]
    outcomes = {str(k): Outcome({"t_ps": 10**9 * (2 - k)}) for k in range(2)}
    found = findings(made, ("trace", "splits"), 2, {"t_ps": "min"}, tasks, outcomes, Tally())
    assert "best t 1 ms at splits=2" in read(found._repr_html_())


def test_pieces_of_nothing_are_nothing():
    assert bar([("a", 0.0, "")]) == rows(("a",), []) == notes(()) == ""
    assert read(fragment("a < b", "")) == "a < b"
    assert "width:100.00%" in bar([("all", 1.0, "100 %")])


def test_spans_go_to_arrow_without_a_copy(result):
    spans = result.spans()
    for table in (result.spans_table(), pa.table(spans)):
        assert table.num_rows == len(spans)
        for name, column in (
            ("start_ps", spans.start), ("end_ps", spans.end), ("rank", spans.rank), ("node", spans.node),
            ("bytes", spans.bytes), ("ready_ps", spans.ready), ("released_by", spans.released_by),
        ):  # fmt: skip
            (chunk,) = table[name].chunks
            assert chunk.buffers()[1].address == column.ctypes.data, name
    assert result.spans_table()["kind"].to_pylist() == [spans.kinds[k] for k in spans.kind]
    for name in ("name", "kind", "stream", "group"):
        told = result.spans_table()[name].chunk(0).dictionary.to_pylist()
        assert len(set(told)) == len(told), "pandas takes no category twice"


def test_links_and_collectives():
    result = simulate(shipped()["dp_overlapped_buckets"], "fat_tree", network="analytic")
    links, collectives = result.links_table(), result.collectives_table()
    assert np.array_equal(links["bytes"].to_numpy(), result.links.bytes)
    assert links["utilisation"].to_numpy() == pytest.approx(result.links.busy / result.makespan)
    assert collectives.num_rows == len(result.collectives)
    assert collectives["members"].to_pylist()[0] == list(result.collectives[0].members)
    assert collectives["ranks"].to_pylist() == [row.ranks for row in result.collectives]


def test_data_frames_take_them(result):
    found = [name for name in ("pandas", "polars", "duckdb") if importlib.util.find_spec(name)]
    if not found:
        pytest.skip("none of pandas, polars and DuckDB is installed")
    total = int((result.spans().end - result.spans().start).sum())
    if "pandas" in found:
        frame = result.spans_table().to_pandas()
        assert int((frame.end_ps - frame.start_ps).sum()) == total
    if "polars" in found:
        import polars

        frame = polars.DataFrame(result.spans())
        assert frame.select((polars.col("end_ps") - polars.col("start_ps")).sum()).item() == total
    if "duckdb" in found:
        import duckdb

        spans = result.spans_table()  # noqa: F841 (found by its name)
        assert duckdb.sql("select sum(end_ps - start_ps) from spans").fetchall()[0][0] == total


def run(name):
    """The names that a worked script leaves behind."""
    return runpy.run_path(str(ROOT / "docs" / "notebooks" / f"{name}.py"))


def test_the_parallelism_notebook(capsys):
    left = run("parallelism")
    steps = {(row["tp"], row["pp"]): row["step_ps"] for row in left["found"].rows}
    assert len(steps) >= 6
    assert left["best"]["step_ps"] == min(steps.values())
    assert left["step"].seconds == pytest.approx(left["best"]["step_ps"] / 1e12)
    assert 0.3 < left["mfu"][128] < left["mfu"][256] < left["mfu"][512] < 0.6  # a fuller pipeline
    assert left["busy"]["compute"] > left["busy"]["reduce_scatter"] > 0
    assert "MFU" in capsys.readouterr().out


def test_the_topology_notebook(capsys):
    left = run("topology")
    time = {key: result.makespan for key, result in left["results"].items()}
    assert time["rails, 400 Gbit/s", "fluid"] < time["rails, 100 Gbit/s", "fluid"] < time["fat tree, no NVLink", "fluid"]
    assert all(time[name, "fluid"] >= time[name, "analytic"] * 0.999 for name in left["FABRICS"])
    assert left["steps"]["rails, 400 Gbit/s", 4] == left["steps"]["rails, 400 Gbit/s", 1]  # the spine is idle
    assert left["steps"]["fat tree, no NVLink", 4] > 1.1 * left["steps"]["fat tree, no NVLink", 1]
    assert {row["domain"] for row in left["by_domain"].to_pylist()} == {"host", "leaf", "spine"}
    assert "exposed" in capsys.readouterr().out


def test_the_serving_notebook(capsys):
    left = run("serving_capacity")
    capacity = left["capacities"]
    assert capacity[1] < capacity[2] < capacity[4]
    shares = [share for *_, share in left["curve"]]
    assert shares[0] > 0.98
    assert shares[-1] < 0.95
    first, each = (column[1:3] for column in (left["curve"][0], left["curve"][-1]))
    assert first[0] < each[0]
    assert first[1] < each[1]
    assert left["kept"] > 0.98
    assert "replicas of" in capsys.readouterr().out
