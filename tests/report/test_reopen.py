"""A saved folder is the same Result again, as far as findings go."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest

from distsim import simulate
from distsim.analysis.summary import summarise
from distsim.cli.shipped import shipped
from distsim.errors import ConfigError
from distsim.report.document import document
from distsim.report.folder import load, save
from distsim.report.reopen import reopen, result_of
from distsim.training import train


@pytest.mark.parametrize("name", ["moe_all_to_all", "pipeline_send_recv", "dp_overlapped_buckets"])
def test_findings_of_a_reopened_run_are_those_of_the_run(name, tmp_path):
    result = simulate(shipped()[name], "fat_tree")
    again = reopen(save(result, tmp_path / "out"))
    assert document(again, summarise(again)) == document(result, summarise(result))
    for column in ("rank", "node", "bytes", "ready", "start", "end", "released_by"):
        assert np.array_equal(getattr(result.spans(), column), getattr(again.spans(), column)), column


def test_a_folded_training_step_too(tmp_path):
    result = train(model="llama3-8b", cluster="dgx_h100:gpus=8", tp=2, global_batch=32, seq=8192).result
    again = reopen(save(result, tmp_path / "out"))
    assert np.array_equal(again.representative, result.representative)
    assert np.array_equal(again.spans().multiplicity, result.spans().multiplicity)
    assert document(again, summarise(again)) == document(result, summarise(result))


def test_steps_and_events_come_back(tmp_path):
    result = simulate(shipped()["pipeline_send_recv"], "fat_tree")
    spans = result.spans()
    step = (np.arange(len(spans)) % 3 - 1).astype(np.int32)
    marked = dataclasses.replace(spans, step=step, steps=("ProfilerStep#4", "ProfilerStep#5"))
    told = dataclasses.replace(result, make_spans=lambda: marked, events={"changes": 2})
    again = reopen(save(told, tmp_path / "out"))
    assert again.events == {"changes": 2}
    found = again.spans()
    names = [found.steps[k] if k >= 0 else "" for k in found.step]
    assert names == [marked.steps[k] if k >= 0 else "" for k in step]


def test_a_topology_that_has_changed_is_refused(tmp_path):
    saved = load(save(simulate(shipped()["moe_all_to_all"], "fat_tree"), tmp_path / "out"))
    fewer = dataclasses.replace(saved, links=saved.links.slice(1))
    with pytest.raises(ConfigError, match="links now"):
        result_of(fewer, "out")


def test_a_loggops_run_too(tmp_path):
    """Its topology is no specification: ranks and their NICs."""
    result = simulate(shipped()["pipeline_send_recv"], network="loggops")
    again = reopen(save(result, tmp_path / "out"))
    assert document(again, summarise(again)) == document(result, summarise(result))
    assert again.topology.links == result.topology.links


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(simulate(shipped()["pipeline_send_recv"], "ring"), tmp_path_factory.mktemp("whole") / "out")


@pytest.mark.parametrize(("change", "says"), [
    ({"ranks": 3}, "no end for each of its ranks"), ({"ranks": "4"}, "no usable ranks"), ({"makespan_ps": 0}, "ends at"),
    ({"makespan_ps": "x"}, "no usable makespan_ps"), ({"spec": [1]}, "no usable spec"), ({"finish_ns": [1]}, "no end for each"),
    ({"spec": {"topo": "ring", "network": 7}}, "no usable network"), ({"schema": None}, "has schema None"),
    ({"spec": {"topo": "ring", "trace": [1]}}, "no usable trace"),
])  # fmt: skip
def test_a_summary_that_cannot_be_of_its_tables_is_refused(folder, change, says, tmp_path):
    shutil.copytree(folder, tmp_path / "out")
    summary = json.loads((folder / "summary.json").read_text())
    (tmp_path / "out" / "summary.json").write_text(json.dumps(summary | change))
    with pytest.raises(ConfigError, match=says):
        reopen(tmp_path / "out")


@pytest.mark.parametrize(("name", "source", "says"), [
    ("spans", "links", "no usable column rank"), ("collectives", "spans", "no usable column first_ps"),
    ("spans", "", "is of rank 15"),
])  # fmt: skip
def test_tables_of_another_run_are_refused(folder, name, source, says, tmp_path):
    shutil.copytree(folder, tmp_path / "out")
    other = folder if source else save(simulate(shipped()["moe_all_to_all"], network="analytic"), tmp_path / "other")
    shutil.copy(other / f"{source or name}.parquet", tmp_path / "out" / f"{name}.parquet")
    with pytest.raises(ConfigError, match=says):
        reopen(tmp_path / "out")
