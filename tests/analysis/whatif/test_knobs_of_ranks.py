"""Host and start of one captured rank as knobs: estimates, simulations, levers, refusals; names that are misspelt."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim import simulate
from distsim.analysis.whatif.estimate import Recorded
from distsim.analysis.whatif.levers import lever_knobs, levers
from distsim.analysis.whatif.outcome import outcome
from distsim.cost.speeds import Speeds, starts_of
from distsim.errors import ConfigError, UnknownNameError
from distsim.report.whatif import answer
from distsim.scenario import scenario_of

KERNEL_US, LATE_US = 100.0, 300.0


def event(cat, name, ts, dur, tid, **args):
    return {"ph": "X", "pid": 1, "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


def capture(rank, world, late, host_us):
    """Two steps of a kernel and an all-reduce: the host works, launches both, and the last rank to come sets the end."""
    events, zero = [], 1000.0 + late
    for step in range(2):
        begin = zero + step * 2000.0
        call = begin + host_us
        args = {"device": 0, "stream": 7, "correlation": 10 * step + 1}
        start = call + 10.0
        meet = max(1000.0 + LATE_US + step * 2000.0 + host_us + 10.0 + KERNEL_US, start + KERNEL_US)
        told = {
            "Collective name": "allreduce", "In msg nelems": 1024, "Out msg nelems": 1024, "dtype": "Float",
            "Group size": world, "Process Group Name": "0", "Process Group Ranks": str(list(range(world))), "device": 0,
            "stream": 9, "correlation": 10 * step + 2,
        }  # fmt: skip
        events += [
            event("user_annotation", f"ProfilerStep#{step}", begin, 1900.0, 1),
            event("cpu_op", "aten::work", begin, host_us, 1),
            event("cuda_runtime", "cudaLaunchKernel", call, 4.0, 1, correlation=10 * step + 1),
            event("cuda_runtime", "cudaLaunchKernel", call + 5, 4.0, 1, correlation=10 * step + 2),
            event("kernel", "gemm", start, KERNEL_US, 7, **args),
            event("kernel", "ncclDevKernel_AllReduce_Sum", call + 20.0, meet + 30.0 - call, 9, **told),
        ]
    return {"traceEvents": events, "distributedInfo": {"rank": rank, "world_size": world}}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Rank 0 begins first, rank 1 300 us later: it is the straggler."""
    folder = tmp_path_factory.mktemp("late")
    for rank, late in enumerate((0.0, LATE_US)):
        (folder / f"kineto_rank{rank}.json").write_text(json.dumps(capture(rank, 2, late, 200.0)))
    result = simulate(str(folder))
    return Recorded(scenario_of(result.spec), result)


def test_the_knobs_are_listed_with_their_values(recorded):
    found = {one.name: one for one in recorded.scenario.knobs()}
    assert found["rank.N.start"].value == "300 us"
    assert found["rank.N.host"].value == "1x"
    assert starts_of(recorded.scenario.trace) == {1: 300_000_000}


@settings(max_examples=15, deadline=None)
@given(host=st.floats(0.3, 4.0), start=st.integers(0, 900), rank=st.integers(0, 1))
def test_law_estimate_and_simulation_agree(recorded, host, start, rank):
    changed = recorded.scenario.changed({f"rank.{rank}.host": f"{host:.3f}x", "rank.1.start": f"{start}us"})
    assert recorded.estimate(changed).makespan == changed.run().makespan


def test_closed_form_a_straggler_that_starts_with_the_first(recorded):
    mended = recorded.scenario.changed({"rank.1.start": "0ms"})
    assert recorded.result.makespan - mended.run().makespan == pytest.approx(300_000_000, abs=20_000_000)
    assert mended.spec.speeds == "rank.1.start=0ps"
    assert mended.changed({"rank.1.start": "300us"}).spec.speeds is None  # as it was captured: no trace of it
    twice = recorded.scenario.changed({"rank.1.start": "2x"})
    assert starts_of(twice.graph) == {1: 600_000_000}


def test_only_the_rank_that_is_named_changes(recorded):
    before, after = recorded.scenario.graph, recorded.scenario.changed({"rank.1.host": "2x"}).graph
    assert (before.program(0).duration_ps == after.program(0).duration_ps).all()
    on_host = before.program(1).cpu & (before.program(1).duration_ps > 0)
    one, two = before.program(1).duration_ps, after.program(1).duration_ps
    assert two[on_host].sum() == pytest.approx(one[on_host].sum() / 2, rel=1e-6)
    assert (one == two)[~on_host].all()


def test_levers_hold_them_and_agree_with_simulations(recorded):
    names = {one.name: one.value for one in lever_knobs(recorded)}
    assert names["rank.1.start"] == "300 us"
    assert "rank.1.host" in names
    found = {one.knob.name: one for one in levers(recorded)}
    assert found["rank.1.start"].saved == pytest.approx(30_000_000, rel=0.01)
    assert found["rank.1.start"].error == pytest.approx(0, abs=1e-6)
    assert found["rank.1.host"].saved > 0


def test_the_answer_is_of_the_whole_capture_and_of_its_steps(recorded):
    change = {"rank.1.host": "2x"}
    changed = recorded.scenario.changed(change)
    told = outcome(recorded, recorded.estimate(changed), changed.run())
    assert told.iterations == 2
    assert ": whole capture " in answer(change, told)
    assert "; step (median of 2) " in answer(change, told)


@pytest.mark.parametrize(("name", "value", "says"), [
    ("rank.0.start", "0ms", "rank 0 is the first to begin"),
    ("rank.7.start", "0ms", "rank 7 is not there"),
    ("rank.1.start", "soon", "not a time"),
    ("rank.1.start", "-200%", "no factor of a time"),
    ("rank.7.host", "2x", "there is no rank 7"),
    ("rank.1.host", "0x", "no factor of a speed"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(recorded, name, value, says):
    with pytest.raises(ConfigError, match=says):
        recorded.scenario.changed({name: value})


def test_a_misspelt_knob_names_the_near_one_not_all(recorded):
    with pytest.raises(UnknownNameError) as refused:
        recorded.scenario.changed({"rank.1.hots": "2x"})
    assert refused.value.near[0] == "rank.1.host"
    assert "one of" not in str(refused.value)
    simulated = recorded.scenario.changed({"communication": "simulated", "topo": "fat_tree"})
    with pytest.raises(UnknownNameError) as refused:
        simulated.changed({"link.*.bandwith": "2x"})
    assert refused.value.near[0] == "link.*.bandwidth"
    with pytest.raises(ConfigError, match="400Gbps"):
        simulated.changed({"link.*.bandwidth": "400G"})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("link.*.bandwith", "link.*.bandwidth"), ("link.hots.latency", "link.host.latency"),
        ("collective.algoritm", "collective.algorithm"),
    ],
)  # fmt: skip
def test_spelling_comes_before_there_is_no_network(recorded, name, near):
    with pytest.raises(UnknownNameError) as refused:
        recorded.scenario.changed({name: "2x"})
    assert refused.value.near[0] == near
    with pytest.raises(ConfigError, match="no network to change"):
        recorded.scenario.changed({near: "2x"})


def test_an_algorithm_that_is_none_is_refused_even_without_collectives(tmp_path):
    trace = tmp_path / "t.json"
    nodes = [{"op": "compute", "duration": "1ms"}]
    trace.write_text(json.dumps({"format": "distsim-trace/1", "ranks": 2, "programs": [{"ranks": "all", "nodes": nodes}]}))
    with pytest.raises(UnknownNameError, match=r"--algorithm.*frob"):
        simulate(str(trace), algorithm="frob")
    scenario = scenario_of(simulate(str(trace)).spec)
    with pytest.raises(UnknownNameError, match=r"--algorithm.*frob"):
        scenario.changed({"collective.algorithm": "frob"}).check()
    scenario.changed({"collective.algorithm": "all_reduce=direct4"}).check()


def test_speeds_are_text_and_back():
    text = "rank.2.host=0.5x,rank.3.start=7000000ps"
    made = Speeds.parse(text)
    assert made.text == text
    assert made.ranks == (2, 3)
    with pytest.raises(ConfigError, match="twice"):
        Speeds.parse("rank.3.start=0ms,rank.3.start=1ms")


def test_traces_without_them_refuse_them():
    scenario = scenario_of(simulate("traces/pipeline_send_recv.json", topo="dgx_h100:gpus=8").spec)
    with pytest.raises(UnknownNameError):
        scenario.changed({"rank.1.start": "0ms"})
    with pytest.raises(ConfigError, match="has no effect"):
        Speeds.parse("rank.1.start=0ms").on(scenario.trace)
    with pytest.raises(ConfigError, match="no host nodes"):
        Speeds.parse("rank.1.host=2x").on(scenario.trace)
