"""A training job and a service on one cluster: isolation where they share no link, contention where they do."""

from __future__ import annotations

import numpy as np
import pytest
from building import graph, program

from distsim.api import simulate
from distsim.corun import corun
from distsim.errors import ConfigError
from distsim.serve import ServeSpec
from distsim.trace.graph import CollectiveType, NodeType
from distsim.training import TrainSpec

#: two leaves of four hosts, one cable each to the spine
TREE = "fat_tree:tiers=2,k=2,pods=2,hosts_per_leaf=4,bandwidth=100Gbps"
SERVICE = {
    "model": "llama3-8b", "gpu": "h100", "cluster": TREE, "requests": "poisson:qps=20", "lengths": "fixed:prompt=1000,output=8",
    "n": 6,
}  # fmt: skip
SPANS = ("start", "end", "ready", "released_by")


def job(ranks, size, layers=1, work=10**9):
    """Computation and an all-reduce of all ranks, by turns."""
    rows = []
    for layer in range(layers):
        rows.append((2 * layer, NodeType.COMP, [2 * layer - 1] if layer else [], {"duration_ps": work}))
        coll = {"collective": CollectiveType.ALL_REDUCE, "bytes": size}
        rows.append((2 * layer + 1, NodeType.COMM_COLL, [2 * layer], coll))
    return graph(*[program(rows) for _ in range(ranks)])


def requests_of(result):
    columns = result.requests
    return [column.tolist() for column in (columns.scheduled, columns.first, columns.completed, columns.replica)]


@pytest.mark.parametrize(("point", "at", "serve_at"), [
    ({"cluster": "dgx_h100:gpus=16", "tp": 2, "replicas": 2, "live": "always", "n": 3}, "8-15", None),
    ({"tp": 2, "replicas": 1, "live": "always", "n": 2}, "0-3", "4-7"),
    ({"disaggregate": "prefill=1,decode=1"}, "0,1,2,3", "4,5"),
    ({"pp": 2, "replicas": 1, "live": "always"}, "4-7", "0-3"),
])  # fmt: skip
@pytest.mark.parametrize("level", ["fluid", "cut_through"])
def test_law_6_neither_changes_the_other_without_a_shared_link(point, at, serve_at, level):
    ranks = 8 if at == "8-15" else 4
    training = job(ranks, 10**8, layers=3)
    both = corun(ServeSpec.of({**SERVICE, **point, "network": level}), training, at=at, serve_at=serve_at)
    assert requests_of(both.service) == requests_of(both.service_alone)
    mine, alone = both.training.spans(), both.training_alone.spans()
    for name in SPANS:
        assert np.array_equal(getattr(mine, name), getattr(alone, name)), name
    assert both.training_slowdown == both.latency_slowdown == both.ttft_slowdown == 1.0
    assert both.service.requests.done.all()


def test_training_alone_is_what_simulate_says():
    training = job(4, 10**8, layers=2)
    both = corun(ServeSpec.of({**SERVICE, "replicas": 1}), training, at="0,1,4,5", serve_at="2")
    plain = simulate(training, both.training.topology, network="fluid")
    placed = both.training_alone
    assert placed.spec["network"] == "fluid"
    assert placed.ranks == 4
    assert len(placed.spans()) == len(plain.spans())
    straight = corun(ServeSpec.of({**SERVICE, "replicas": 1}), training, serve_at="7")
    assert straight.training_alone.makespan == straight.training.makespan == plain.makespan


@pytest.mark.parametrize(("point", "serve_at"), [
    ({"disaggregate": "prefill=1,decode=1"}, "2,6"),
    ({"disaggregate": "prefill=1,decode=1", "kv_transfer": "layerwise:parts=4"}, "2,6"),
    # NOTE: all at once: where batches depend on the order of arrivals and ends, a later end may let somebody in earlier
    ({"pp": 2, "replicas": 1, "requests": "static"}, "2,6"),
    ({"tp": 2, "replicas": 1, "n": 2, "requests": "static"}, "2,6"),
])  # fmt: skip
def test_sharing_a_cable_makes_both_slower_and_nobody_faster(point, serve_at):
    """Keys and values, pipeline messages or all-reduces cross the cable that the training's ring crosses, too."""
    training = job(4, 5 * 10**8)
    both = corun(ServeSpec.of({**SERVICE, **point}), training, at="0,1,4,5", serve_at=serve_at, steps=0)
    assert both.training_slowdown > 1.0
    assert both.latency_slowdown > 1.0
    here, alone = both.service.requests, both.service_alone.requests
    assert (here.completed >= alone.completed).all()
    assert (here.first >= alone.first).all()
    assert min(both.steps) >= both.training_alone.makespan
    assert sum(both.steps) >= here.completed.max()  # steps go on until the service has ended
    if "disaggregate" in point:  # law 1: what is sent arrives, over every link of its way
        prompts = int(here.prompt.sum())
        assert both.service.counts["kv_bytes_sent"] == prompts * 32 * 8 * 128 * 2 * 2
        each = both.training_alone.links.bytes
        kv = both.links.bytes - len(both.steps) * each
        assert sorted(set(kv.tolist())) == [0, both.service.counts["kv_bytes_sent"]]
        assert np.count_nonzero(kv) == 4
    else:
        assert "live on fluid" in both.summary["iterations"][0]
        assert "training" in both.summary["iterations"][0]


def test_a_generated_training_step():
    spec = TrainSpec.of({
        "model": "llama3-8b", "cluster": "dgx_h100:gpus=8", "tp": 4, "dp": 1, "seq": 1024, "global_batch": 2,
        "memory": "ignore",
    })  # fmt: skip
    point = {**SERVICE, "cluster": "dgx_h100:gpus=8", "tp": 2, "replicas": 2, "n": 3}
    both = corun(ServeSpec.of(point), spec, steps=2)
    assert len(both.steps) == 2
    assert both.steps[0] == both.steps[1] == both.training_alone.makespan
    assert both.training.ranks == 4
    assert both.service.requests.done.all()
    assert any("grain=kernel" in text for text in both.warnings)


@pytest.mark.parametrize(("options", "words"), [
    ({"at": "0-4"}, "5 hosts for 4"),
    ({"at": "0-2,9"}, "no host 9"),
    ({"at": "0-2,x"}, "names no hosts"),
    ({"at": "0,0,1,2"}, "named twice"),
    ({"at": "0-3", "serve_at": "3,4"}, "to train and to serve"),
    ({"serve_at": ""}, "names no hosts"),
    ({"serve_at": "4"}, "are left"),
    ({"steps": -1}, "training steps"),
    ({"nonsense": 1}, "nonsense"),
])  # fmt: skip
def test_wrong_options_are_refused(options, words):
    spec = ServeSpec.of({**SERVICE, "tp": 2, "replicas": 1})
    with pytest.raises(ConfigError, match=words):
        corun(spec, job(4, 1000), **options)


def test_slowdowns_need_runs_alone():
    both = corun(ServeSpec.of({**SERVICE, "replicas": 1, "n": 1}), job(4, 1000), alone=False)
    assert "training_slowdown" not in both.summary
    with pytest.raises(ConfigError, match="alone=True"):
        _ = both.latency_slowdown
