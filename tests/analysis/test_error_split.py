"""The error of a prediction by part: closed forms, exact sums, planted errors, refusals, captured traces."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from building import graph, program
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.analysis.error_split import PARTS, Prediction, _rounded, part_of, split_error, with_durations
from distsim.api import simulate
from distsim.cost.recorded import Recorded
from distsim.cost.typical import Typical
from distsim.errors import TraceError
from distsim.trace.graph import NodeType
from distsim.trace.read import read_trace

US = 1_000_000
COMP, LOAD, COLL, DELAY = NodeType.COMP, NodeType.MEM_LOAD, NodeType.COMM_COLL, NodeType.DELAY


def run(mixture, simulated):
    return simulate(mixture, "switch:hosts=2", network="analytic", communication="simulated" if simulated else "recorded")


def world(*rows, ranks=1):
    """A captured graph whose ranks all run these rows: (type, dependencies, ps, more)."""
    made = [(k, kind, deps, {"duration_ps": ps, **more}) for k, (kind, deps, ps, more) in enumerate(rows)]
    return replace(graph(*(program(made) for _ in range(ranks))), captured=True)


def scaled(measured, **factors):
    """The world with the durations of some parts multiplied."""

    def times(p, where):
        found = p.duration_ps.astype(float)
        parts = part_of(p, measured.names)
        for part, factor in factors.items():
            found[parts == PARTS.index(part)] *= factor
        return np.rint(found).astype(np.int64)

    programs = tuple(replace(p, duration_ps=times(p, "")) for p in measured.programs)
    return replace(measured, programs=programs)


CHAIN = (
    (COMP, [], 5 * US, {"cpu": True}), (DELAY, [0], 2 * US, {}), (COMP, [1], 10 * US, {}), (LOAD, [2], 3 * US, {}),
    (COLL, [3], 7 * US, {"collective": 0, "bytes": 1 << 20}), (COMP, [4], 20 * US, {}),
)  # fmt: skip


def test_in_a_chain_every_part_adds_its_own_error():
    measured = world(*CHAIN)
    found = split_error(measured, scaled(measured, compute=1.2, memory=0.5, communication=2, scheduling=3), run)
    assert found.total.measured == 47 * US
    assert found.total.parts == {"compute": 6 * US, "memory": -1_500_000, "communication": 7 * US, "scheduling": 14 * US}
    assert (found.runs, found.differs) == (16, PARTS)
    assert found.composition.kernels == 28_500_000  # compute 6, memory 1.5, communication 7, scheduling 14 us
    assert found.composition.reached == 28_500_000
    assert found.composition.step == 25_500_000


def test_overlapped_parts_share_by_shapley():
    measured = world((COMP, [], 10, {}), (LOAD, [], 8, {}))
    predicted = world((COMP, [], 12, {}), (LOAD, [], 15, {}))
    found = split_error(measured, predicted, run)
    # step with none, compute, memory, both predicted: 10, 12, 15, 15
    assert found.total.parts == {"compute": 1, "memory": 4, "communication": 0, "scheduling": 0}
    assert found.runs == 4


@pytest.mark.parametrize("factor", [1.2, 0.8])
def test_a_planted_compute_error_is_computes(factor):
    measured = world(*CHAIN, *((COMP, [2], 4 * US, {"stream": -1}), (LOAD, [], 9 * US, {})), ranks=2)
    found = split_error(measured, scaled(measured, compute=factor), run)
    assert found.differs == ("compute",)
    assert found.total.error != 0
    assert found.total.parts["compute"] == found.total.error
    assert found.kernels["compute"].mape == pytest.approx(0.2)
    assert found.kernels["compute"].bias == pytest.approx(factor - 1)


def test_host_time_that_the_prediction_leaves_out_is_scheduling():
    measured = world(*CHAIN)
    found = split_error(measured, with_durations(measured, Recorded().durations, host=False), run)
    assert found.total.parts == {"compute": 0, "memory": 0, "communication": 0, "scheduling": -7 * US}


def test_another_order_is_scheduling():
    measured = world((COMP, [], 10, {}), (LOAD, [0], 8, {}))
    loose = world((COMP, [], 10, {}), (LOAD, [], 8, {}))
    found = split_error(measured, loose, run)
    assert found.total.parts == {"compute": 0, "memory": 0, "communication": 0, "scheduling": -8}
    assert "scheduling" not in found.kernels
    with_gap = world((COMP, [], 10, {}), (LOAD, [0], 8, {}), (DELAY, [1], 5, {}))
    assert split_error(measured, with_gap, run).total.parts["scheduling"] == 5


def test_nodes_are_matched_by_id():
    measured = world((COMP, [], 10, {}), (COMP, [0], 20, {}))
    turned = replace(measured, programs=(program([
        (1, COMP, [1], {"duration_ps": 26}), (0, COMP, [], {"duration_ps": 10}),
    ]),))  # fmt: skip
    assert split_error(measured, turned, run).total.parts["compute"] == 6


def test_the_simulated_network_is_communication():
    measured = world(*CHAIN, ranks=2)
    found = split_error(measured, Prediction(measured, simulated=True), run)
    alone = run(measured, True).makespan - run(measured, False).makespan
    assert found.differs == ("communication",)
    assert found.total.parts["communication"] == found.total.error == alone != 0
    assert found.kernels["communication"].net == 2 * alone  # two ranks


def test_kernels_that_move_data_may_count_as_memory():
    both = world((COMP, [], 10, {"name": 1}), (COMP, [0], 20, {"name": 2}))
    measured = replace(both, names=("", "sgemm", "elementwise_kernel"))
    predicted = scaled(measured, compute=2)
    assert split_error(measured, predicted, run).total.parts["compute"] == 30
    found = split_error(measured, predicted, run, moving_kernels=True)
    assert (found.total.parts["compute"], found.total.parts["memory"]) == (10, 20)


def test_steps_and_ranks_are_split_too():
    one = world((COMP, [], 10, {}), (COMP, [0], 20, {}), (COMP, [1], 3, {"cpu": True}))
    programs = (replace(one.programs[0], step=np.array([0, 1, 1], np.int32)),)
    measured = replace(one, programs=programs, steps=("a", "b"))
    found = split_error(measured, scaled(measured, compute=1.5), run)
    assert [(s.what, s.measured, s.parts["compute"]) for s in found.steps] == [("step a", 10, 5), ("step b", 20, 10)]
    assert (found.total.measured, found.total.error, found.run.measured) == (30, 15, 33)
    assert [r.what for r in found.ranks] == ["rank 0"]
    assert [r.what for r in found.step_ranks] == ["rank 0, step a", "rank 0, step b"]


durations = st.integers(1, 50)
nodes = st.tuples(st.sampled_from([COMP, LOAD, DELAY, COLL]), st.booleans(), durations, durations)


@settings(max_examples=25, deadline=None)
@given(st.lists(nodes, min_size=1, max_size=7))
def test_law_parts_sum_exactly(rows):
    def made(column):
        listed = [
            (kind, [k - 1] if chained and k else [], times[column], {"collective": 0, "bytes": 64} if kind == COLL else {})
            for k, (kind, chained, *times) in enumerate(rows)
        ]
        return world(*listed, ranks=2)

    found = split_error(made(0), made(1), run)
    for one in (found.total, found.run, *found.steps, *found.ranks, *found.step_ranks):
        assert sum(one.parts.values()) == one.error
        assert all(one.parts[part] == 0 for part in PARTS if part not in found.differs)
    assert found.run.measured == run(made(0), False).makespan
    assert found.run.predicted == run(made(1), False).makespan
    composed = found.composition
    assert composed.kernels >= composed.parts
    assert composed.reached >= composed.step


@given(st.lists(st.integers(-1000, 1000), min_size=3, max_size=3), st.integers(-100, 100))
def test_law_rounding_keeps_the_sum_and_moves_less_than_one(some, total):
    twelfths = [*some, 12 * total - sum(some)]
    found = _rounded(twelfths)
    assert sum(found.values()) == sum(twelfths) // 12
    assert all(abs(12 * whole - exact) < 12 for whole, exact in zip(found.values(), twelfths, strict=True))


def test_other_nodes_are_refused():
    measured = world(*CHAIN)
    with pytest.raises(TraceError, match="2 ranks, the measurement 1"):
        split_error(measured, world(*CHAIN, ranks=2), run)
    with pytest.raises(TraceError, match=r"compute nodes of the other trace are not here, node 5(.|\n)*by id"):
        split_error(measured, world(*CHAIN[:-1]), run)
    loose = world(*CHAIN[:-1], (COMP, [], 20 * US, {}))
    stepped = replace(loose, programs=(replace(loose.programs[0], step=np.zeros(6, np.int32)),), steps=("a",))
    with pytest.raises(TraceError, match="other steps"):
        split_error(measured, stepped, run)


def test_a_planted_error_in_a_captured_trace_is_computes(traces_reference):
    folder = traces_reference / "param_dlrm_8xV100"
    measured = read_trace(tuple(str(folder / f"kineto_rank{rank}.json.gz") for rank in range(8)))
    found = split_error(measured, scaled(measured, compute=1.2), lambda g, s: simulate(g, communication="recorded"))
    assert found.total.error > 0
    assert abs(found.total.parts["compute"] - found.total.error) <= 0.01 * found.total.error
    mixed = scaled(measured, compute=1.2, communication=0.95, scheduling=1.02)
    alone = split_error(measured, scaled(measured, compute=1.2), lambda g, s: simulate(g, communication="recorded"))
    among = split_error(measured, mixed, lambda g, s: simulate(g, communication="recorded"))
    assert sum(among.total.parts.values()) == among.total.error
    assert among.total.parts["compute"] == pytest.approx(alone.total.error, rel=0.05)


def test_errors_of_kernels_do_not_compose_to_that_of_the_step(traces_reference):
    file = traces_reference / "hta_rec_8xA100" / "kineto_rank3.json.gz"
    measured = read_trace(str(file))
    told = json.loads((traces_reference / "reference_measurements.json").read_text())["hta_rec_8xA100/kineto_rank3.json.gz"]
    predicted = with_durations(measured, Typical(measured).durations)
    found = split_error(measured, predicted, lambda g, s: simulate(g, communication="recorded"))
    for split, step in zip(found.steps, told["steps"], strict=True):
        assert split.measured / 1e6 == pytest.approx(step["gpu_span_us"], rel=0.03)
    assert found.kernels["compute"].mape > 0.5  # every kernel is far off ...
    assert abs(found.kernels["compute"].bias) < 1e-6  # ... in all they are not ...
    assert abs(found.total.error) < 0.02 * found.total.measured  # ... and nor is the step
