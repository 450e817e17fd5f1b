"""The longest path through a recorded run: it is the run, and it knows which task decides."""

from __future__ import annotations

import json

import numpy as np
import pytest
from whatif_cases import recorded_run

from distsim import simulate
from distsim.analysis.activity import activities
from distsim.analysis.source import source_of, told_by
from distsim.analysis.underway import under_way
from distsim.scenario import scenario_of
from distsim.training import train


def network_of(result, graph):
    told = None if graph is None else told_by(result, source_of(result, graph))
    return activities(result, under_way(result), told)


def path_of(network):
    return network.path(network.ends())


@pytest.mark.parametrize("seed", range(12))
def test_recorded_durations_give_the_recorded_makespan(seed, tmp_path):
    recorded = recorded_run(seed, tmp_path)[1]
    assert recorded.activities.complete
    assert recorded.path.makespan == recorded.result.makespan
    assert not recorded.activities.lag.any()
    assert recorded.path.spent.sum() == pytest.approx(recorded.result.makespan)


@pytest.mark.parametrize("seed", range(4))
def test_without_the_trace_the_binding_edges_give_it_too(seed, tmp_path):
    result = recorded_run(seed, tmp_path)[1].result
    found = network_of(result, None)
    assert not found.complete
    assert path_of(found).makespan == result.makespan


def test_another_trace_is_not_taken_for_the_one_that_ran(tmp_path):
    one, other = recorded_run(1, tmp_path)[1], recorded_run(2, tmp_path)[1]
    assert not network_of(one.result, other.scenario.graph).complete


def test_folded_training_step():
    result = train(model="llama3-8b", cluster="dgx_h100:gpus=16", tp=2, pp=2, global_batch=32, seq=4096).result
    found = network_of(result, scenario_of(result.spec).graph)
    assert found.complete
    assert path_of(found).makespan == result.makespan
    assert found.spans < result.counts["nodes"]


def test_a_straggler_is_on_the_path(tmp_path):
    nodes = [{"op": "compute", "duration": "1ms"}, {"op": "all_reduce", "bytes": "1MiB"}, {"op": "compute", "duration": "1ms"}]
    slow = [{"op": "compute", "duration": "3ms"}, *nodes[1:]]
    programs = [{"name": "a", "ranks": [0, 1, 3], "nodes": nodes}, {"name": "b", "ranks": [2], "nodes": slow}]
    file = tmp_path / "t.json"
    file.write_text(json.dumps({"format": "distsim-trace/1", "ranks": 4, "programs": programs}))
    result = simulate(str(file), "switch")
    path = path_of(network_of(result, scenario_of(result.spec).graph))
    first = path.rows[0]
    assert result.spans().rank[first] == 2
    assert path.spent[0] == 3e9
    assert path.spent.sum() == result.makespan


def test_longer_durations_never_shorten_it(tmp_path):
    recorded = recorded_run(3, tmp_path)[1]
    network, rng = recorded.activities, np.random.default_rng(0)
    base = network.length[: network.spans]
    for _ in range(20):
        longer = np.rint(base * rng.uniform(1, 2, len(base))).astype(np.int64)
        makespan = network.path(network.ends(network.lengths(longer))).makespan
        assert recorded.path.makespan <= makespan <= 2 * recorded.path.makespan


@pytest.mark.parametrize("seed", range(8))
def test_the_path_is_an_unbroken_chain(seed, tmp_path):
    recorded = recorded_run(seed, tmp_path)[1]
    spans, path = recorded.result.spans(), recorded.path
    ends = spans.end[path.rows]
    assert (ends == np.cumsum(path.spent)).all()
