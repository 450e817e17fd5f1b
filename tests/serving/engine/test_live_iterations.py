"""A replica's iterations as task graphs: alone they take what is remembered of them, beside others they contend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distsim.engine.communication import Communication
from distsim.engine.executor import Executor
from distsim.engine.placement import CollectiveOptions, Placer
from distsim.engine.task import CollectiveCall, Kind, Tasks
from distsim.errors import ConfigError, UnknownNameError
from distsim.kernel.clock import Clock
from distsim.network.spec import build_network
from distsim.record import Recorder
from distsim.serve import ServeSpec, ServiceRun, serve
from distsim.serving.deployment import Deployment
from distsim.serving.iteration import Shape
from distsim.serving.lanes import GroupShape
from distsim.serving.network.live import Alone, Engine, LevelTimes, LiveIterations
from distsim.serving.network.program import Programs
from distsim.serving.network.stage_graph import Ranks
from distsim.serving.requests.table import requests_of
from distsim.serving.times.model import ModelTimes
from distsim.topology.spec import build

BOXES = build("dgx_h100:gpus=16", None)
TREE = build("fat_tree:tiers=2,k=2,pods=2,hosts_per_leaf=8,bandwidth=100Gbps", None)
DEPLOYMENTS = {
    "tp": Deployment.of(model="llama3-8b", gpu="h100", tp=4),
    "pp": Deployment.of(model="llama3-8b", gpu="h100", tp=2, pp=3),
    "moe": Deployment.of(model="qwen3-30b-a3b", gpu="h100", tp=2, dp=4, ep=8),
    "moe_tp": Deployment.of(model="qwen3-30b-a3b", gpu="h100", tp=1, dp=4, ep=1, moe_tp=4),
}
TIMES = {name: ModelTimes(one, BOXES) for name, one in DEPLOYMENTS.items()}
PROGRAMS = {name: Programs(times) for name, times in TIMES.items()}
SHAPES = [
    Shape((), 1, 100, 100, 1), Shape((), 300, 90_000, 2_000, 300), Shape(((2_000, 0), (100, 500)), 20, 9_000, 800, 21),
    Shape(((7, 0),), 0, 0, 0, 1), Shape(((512, 1_000),), 0, 0, 0, 0),
]  # fmt: skip


def run_live(topology, level, name, shapes, sent, gap=0):
    """Ends of iterations that are handed over at once, or ``gap`` ps after one another."""
    deployment, programs = DEPLOYMENTS[name], PROGRAMS[name]
    engine = Engine(topology, range(topology.hosts), level)
    alone = Alone(topology, range(deployment.ranks), level, programs, "direct")
    live = LiveIterations(engine, Ranks(deployment), programs, alone, "direct", [sent] * deployment.pp, "r")
    ends = []

    def ended(_):
        ends.append(engine.clock.now)

    for number, shape in enumerate(shapes):
        engine.clock.call_at(number * gap, lambda _, shape=shape: live.run(shape, 1.0, ended))
    engine.clock.run()
    engine.executor.check_finished()
    return ends, LevelTimes(TIMES[name], programs, alone)


@pytest.mark.parametrize("name", DEPLOYMENTS)
@pytest.mark.parametrize("topology", [BOXES, TREE])
@pytest.mark.parametrize("level", ["fluid", "cut_through"])
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3), everything=st.booleans())
def test_law_5_live_on_idle_links_is_what_is_remembered(name, topology, level, shapes, everything):
    sent = {"tp", "dp", "ep", "pp"} if everything else {"pp", "ep"}
    # one after the other: the stages of a pipeline may share links with each other
    ends, level_times = run_live(topology, level, name, shapes, sent, gap=1 << 42)
    for number, (end, shape) in enumerate(zip(ends, shapes, strict=True)):
        assert end - (number << 42) == sum(level_times.times(shape))


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_stages_take_batches_in_order(name):
    """The recursion of a pipeline: a stage begins when it is free and the stage before is done."""
    shapes = [SHAPES[at] for at in (2, 0, 1, 3, 0)]
    ends, level_times = run_live(BOXES, "ideal", name, shapes, {"tp", "ep", "dp", "pp"})
    free = [0] * DEPLOYMENTS[name].pp
    for end, shape in zip(ends, shapes, strict=True):
        at = 0
        for stage, ps in enumerate(level_times.times(shape)):
            at = free[stage] = max(at, free[stage]) + ps
        assert end == at


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_nothing_on_the_network_leaves_the_closed_form(name):
    alone = Alone(BOXES, range(DEPLOYMENTS[name].ranks), "ideal", PROGRAMS[name], "direct")
    level = LevelTimes(TIMES[name], PROGRAMS[name], alone)
    for shape in SHAPES:
        assert level.times(shape) == TIMES[name].times(shape)
        if shape.sequences and not shape.prefills:
            assert level.steady(*shape[1:4]) == TIMES[name].steady(*shape[1:4])


def test_lanes_of_different_shapes():
    shape = GroupShape((SHAPES[1], None, SHAPES[2], SHAPES[0]))
    ends, level = run_live(BOXES, "ideal", "moe", [shape], {"tp", "ep"})
    assert ends == [sum(TIMES["moe"].group_times(shape.lanes))] == [sum(level.group_times(shape.lanes))]
    lanes = [(3, 300, 120), None, (1, 50, 50), None]
    assert level.group_steady(lanes) == TIMES["moe"].group_steady(lanes)


def test_a_slower_network_is_never_faster_than_its_links():
    """16 ranks over one 12.5 GB/s cable each: an all-reduce moves at least 2(n-1)/n of its bytes through every port."""
    times = LevelTimes(TIMES["tp"], PROGRAMS["tp"], Alone(TREE, range(4), "fluid", PROGRAMS["tp"], "direct"))
    shape = SHAPES[2]
    (line,) = PROGRAMS["tp"].lines(PROGRAMS["tp"].works(shape), 0)
    moved = sum(talk.bytes * (1.5 if talk.operation == "all_reduce" else 3) for talk in line.talks)
    bound = sum(line.blocks) + moved / 12.5e9 * 1e12
    assert bound <= times.times(shape)[0] < 1.3 * bound
    assert times.times(shape)[0] > TIMES["tp"].times(shape)[0]


def test_one_member_stands_for_ranks_in_lockstep():
    def end(members, ranks):
        clock, recorder = Clock(), Recorder()
        network = build_network("fluid", BOXES)
        communication = Communication(clock, network, Placer(BOXES, range(16)), CollectiveOptions(), recorder)
        executor = Executor(clock, communication, recorder)
        call = CollectiveCall(("g", 0), "all_reduce", 10**6, members, ranks=ranks, algorithm="direct")
        n = len(members)
        executor.submit(Tasks(
            np.full(n, Kind.COLLECTIVE, np.int8), np.array([executor.stream(m, "comm") for m in members], np.int32),
            np.zeros(n, np.int64), np.zeros(n, np.int32), np.zeros(n + 1, np.int64), np.zeros(0, np.int32), (call,),
        ))  # fmt: skip
        clock.run()
        executor.check_finished()
        return clock.now, network.usage().bytes.tolist()

    assert end((0,), (0, 1, 2, 3)) == end((0, 1, 2, 3), ()) != end((0, 1), ())


# --- services ---------------------------------------------------------------------------------------------------------------

SMALL = {
    "model": "llama3-8b", "gpu": "h100", "requests": "poisson:qps=40", "lengths": "fixed:prompt=300,output=6", "n": 8,
}  # fmt: skip


def completions(**point):
    result = serve(**{**SMALL, **point})
    return result, result.requests.completed.tolist()


@pytest.mark.parametrize("point", [
    {"cluster": "dgx_h100:gpus=8", "tp": 4}, {"cluster": "dgx_h100:gpus=8", "tp": 2, "pp": 2, "live": "never"},
])  # fmt: skip
def test_law_5_a_service_whose_links_are_its_own(point):
    closed, ends = completions(**point, network="closed", stepped=False)
    remembered, same = completions(**point, network="fluid")
    assert ends == same
    assert "alone on fluid" in " ".join(remembered.provenance["iterations"])
    assert closed.provenance["iterations"] == ["iterations: closed forms of the provider"]
    assert not closed.warnings
    if "live" not in point:
        live, again = completions(**point, network="fluid", live="always")
        assert again == ends
        assert "live on fluid, traffic of tp: asked for" in live.provenance["iterations"][0]
        assert live.counts["iterations"] == sum(live.iterations["count"])


def across(live, count):
    """``count`` equal requests at once, to replicas of two ranks that all lie across the one cable between two leaves."""
    spec = ServeSpec.of({
        "model": "llama3-8b", "gpu": "h100", "cluster": TREE.spec, "tp": 2, "replicas": 2, "network": "fluid", "live": live,
        "requests": "static",
    })  # fmt: skip
    table = requests_of(np.zeros(count, np.int64), np.full(count, 3000), np.full(count, 3))
    hosts = (0, 8, 1, 9)
    run = ServiceRun(spec, table, engine=Engine(TREE, hosts, "fluid"), hosts=hosts)
    run.connect()
    run.start()
    run.clock.run()
    return run.result()


def test_replicas_that_share_a_cable_run_live_and_slow_each_other():
    one, both, blind = across("auto", 1), across("auto", 2), across("never", 2)
    (alone,) = one.requests.completed
    assert blind.requests.completed.tolist() == [alone, alone]
    assert any("live=never" in text and "leaf0->spine0" in text for text in blind.warnings)
    assert both.requests.completed.min() > 1.2 * alone
    assert both.requests.completed.max() < 2 * alone
    assert "live on fluid, traffic of tp" in both.provenance["iterations"][0]
    assert not both.warnings


def test_what_shares_links_is_told_where_it_is_not_simulated():
    point = {"cluster": "fat_tree:tiers=2,k=2,pods=2,hosts_per_leaf=4,bandwidth=100Gbps", "n": 2}
    spec = {**SMALL, **point, "disaggregate": "prefill=1,decode=1,prefill_tp=2,decode_tp=4"}
    result = serve(**spec, network="closed")
    assert any("--network fluid simulates it" in text for text in result.warnings)
    fluid = serve(**spec, network="fluid")
    assert not any("take what they take alone" in text for text in fluid.warnings)
    assert "live on fluid" in " ".join(fluid.provenance["iterations"])


def test_law_5_holds_through_failures():
    """A replica that fails leaves its iteration on the devices: it does not count, and the next one waits for its end."""
    point = {
        "cluster": "dgx_h100:gpus=4", "tp": 2, "n": 6, "network": "cut_through", "requests": "static",
        "failures": "down:at=10ms,replica=0,repair=5ms;policy:startup=0", "lengths": "fixed:prompt=100,output=6",
    }  # fmt: skip
    remembered, ends = completions(**point)
    live, same = completions(**point, live="always")
    assert live.requests.done.all()
    assert live.counts["failures"] == remembered.counts["failures"] == 1
    assert live.counts["rerouted"] == remembered.counts["rerouted"] > 0
    assert same == ends


def test_a_slow_replica_computes_slower_and_sends_as_fast():
    deployment = DEPLOYMENTS["tp"]
    engine = Engine(TREE, range(16), "fluid")
    alone = Alone(TREE, range(4), "fluid", PROGRAMS["tp"], "direct")
    live = LiveIterations(engine, Ranks(deployment), PROGRAMS["tp"], alone, "direct", [{"tp"}], "r")
    took = []
    live.run(SHAPES[2], 3.0, took.append)
    engine.clock.run()
    (line,) = PROGRAMS["tp"].lines(PROGRAMS["tp"].works(SHAPES[2]), 0)
    sent = sum(alone.talk(talk, 0)[0] for talk in line.talks)
    normal = LevelTimes(TIMES["tp"], PROGRAMS["tp"], alone).times(SHAPES[2])[0]
    assert took[0] == pytest.approx(3 * normal - 2 * sent, rel=1e-3)


@pytest.mark.parametrize(("wrong", "error", "words"), [
    ({"network": "fluidd"}, UnknownNameError, "fluid"),
    ({"network": "fluid:mtuu=3"}, ConfigError, "mtu"),
    ({"network": "fluid", "collectives": "rign"}, UnknownNameError, "ring"),
    ({"network": "fluid", "live": "sometimes"}, ConfigError, "live"),
])  # fmt: skip
def test_wrong_options_are_refused(wrong, error, words):
    with pytest.raises(error, match=words):
        serve(**{**SMALL, "cluster": "dgx_h100:gpus=8", "tp": 2, **wrong})


def test_a_provider_without_operations_cannot_go_on_the_network(tmp_path):
    spec = ServeSpec.of({**SMALL, "cluster": "dgx_h100:gpus=8", "tp": 2, "network": "fluid"})

    class Plain:
        stages = 1

        def times(self, shape):
            return (1,)

        def steady(self, sequences, kv, longest):
            return 1, 1

    with pytest.raises(ConfigError, match="knows no operations"):
        serve(spec, providers=[Plain()])
    alone = ServeSpec.of({**SMALL, "cluster": "dgx_h100:gpus=8", "tp": 1, "network": "fluid"})
    assert serve(alone, providers=[Plain()]).requests.done.all()


def test_live_always_needs_a_network_level():
    with pytest.raises(ConfigError, match="closed forms"):
        serve(
            model="llama3-8b", cluster="h100:gpus=1", requests="poisson:qps=5", n=5, lengths="fixed:prompt=64,output=8",
            live="always",
        )  # fmt: skip
