"""The astra profile on traces: issue rules, deadlocks, ASTRA-sim's own files, parity with its LLM replays."""

from __future__ import annotations

import json

import numpy as np
import pytest
from building import graph, program

from distsim.errors import DistsimError, TopologyError, TraceError
from distsim.profiles.astra.config import AstraConfig, NetworkDim
from distsim.profiles.astra.lower import job_of_trace
from distsim.profiles.astra.replay import simulate
from distsim.profiles.astra.run import simulate_files
from distsim.trace.graph import CollectiveType, Group, NodeType, TaskGraph

COMP, SEND, RECV, COLL = NodeType.COMP, NodeType.COMM_SEND, NodeType.COMM_RECV, NodeType.COMM_COLL
TWO = AstraConfig((NetworkDim("switch", 2, 50.0, 500.0),)).checked()


def us(n):
    return {"duration_ps": n * 1_000_000}


def run(g, config=TWO):
    return simulate(job_of_trace(g, config), config)


def test_one_compute_at_a_time_in_id_order_and_zero_becomes_one_nanosecond():
    p = program([(5, COMP, [], us(3)), (2, COMP, [], us(2)), (9, COMP, [], us(0))])
    done = run(graph(p, program([])))
    assert done.start[0].tolist() == [0, 2000, 5000]  # ids 2, 5, 9
    assert done.finish.tolist() == [5001, 0]
    assert done.exposed.tolist() == [0, 0]


def test_host_and_device_compute_overlap_and_roofline_truncates():
    config = AstraConfig(TWO.dims, roofline=True, local_memory_gbps=1000.0, peak_tflops=1.0).checked()
    p = program([
        (0, COMP, [], {"num_ops": 3_333_333, "tensor_size": 100, **us(9)}),
        (1, COMP, [], {"num_ops": 100, "tensor_size": 1_234_567}),
        (2, COMP, [], {"cpu": True, **us(4)}),
    ])  # fmt: skip
    done = run(graph(p, program([])), config)
    assert (done.end[0] - done.start[0]).tolist() == [3333, 1234, 4000]
    assert done.start[0].tolist() == [0, 3333, 0]
    with pytest.raises(TraceError, match="tensor_size of 0"):
        run(graph(program([(0, COMP, [], {"num_ops": 5, "tensor_size": 0})]), program([])), config)


def test_send_holds_the_communication_until_arrival_and_late_receives_end_at_once():
    message = {"bytes": 1 << 20, "tag": 3}
    trip = int(2 * 500 + (1 << 20) / (50 * 2**30 / 1e9))
    sender = program([(0, SEND, [], {**message, "peer": 1}), (1, SEND, [], {**message, "peer": 1})])
    receiver = program([(0, RECV, [], {**message, "peer": 0}), (1, COMP, [], us(100)), (2, RECV, [1], {**message, "peer": 0})])
    done = run(graph(sender, receiver))
    assert done.end[0].tolist() == [trip, 2 * trip]
    assert done.end[1].tolist() == [trip, 100_000, 100_000]


def test_ranks_that_never_meet_are_a_deadlock_that_names_them():
    coll = {"bytes": 4096, "collective": CollectiveType.ALL_REDUCE}
    with pytest.raises(
        DistsimError, match=r"rank 0 and 0 more wait in all_reduce of 4096 bytes \(node 0\), where ranks 1 never came"
    ):
        from distsim.profiles.astra.blame import blame

        g = graph(program([(0, COLL, [], coll)]), program([(0, COMP, [], us(1))]))
        job = job_of_trace(g, TWO)
        simulate(job, TWO, blame=lambda stuck: blame(g, job, stuck))
    g = graph(program([(0, SEND, [], {"bytes": 8, "peer": 1})]), program([(0, RECV, [], {"bytes": 9, "peer": 0})]))
    job = job_of_trace(g, TWO)
    with pytest.raises(DistsimError, match="rank 1 waits for a message from rank 0, 9 bytes"):
        simulate(job, TWO, blame=lambda stuck: blame(g, job, stuck))


def test_inputs_that_cannot_be_replayed():
    coll = {"bytes": 4096, "collective": CollectiveType.REDUCE}
    with pytest.raises(DistsimError, match="ASTRA-sim has no reduce"):
        run(graph(*[program([(0, COLL, [], coll)])] * 2))
    one = Group("1", {0: (0,)})
    with pytest.raises(DistsimError, match="group of one rank"):
        run(graph(program([(0, COLL, [], {**coll, "collective": 0, "group": 0})]), program([]), groups=[one]))
    with pytest.raises(TopologyError, match="trace has 3 ranks but the network has 2"):
        run(graph(*[program([])] * 3))
    with pytest.raises(TraceError, match="moves 0 bytes"):
        run(graph(program([(0, SEND, [], {"bytes": 0, "peer": 1})]), program([])))


def test_law_5_a_folded_replay_equals_the_unfolded_one():
    halves = [
        Group("a", {0: (0, 1), 1: (0, 1), 2: (2, 3), 3: (2, 3)}),
        Group("b", {0: (0, 2), 2: (0, 2), 1: (1, 3), 3: (1, 3)}),
    ]
    p = program([
        (0, COMP, [], us(5)), (1, COLL, [0], {"bytes": 1 << 20, "collective": 0, "group": 0}),
        (2, COLL, [0], {"bytes": 1 << 18, "collective": 2, "group": 1}), (3, COMP, [1], us(2)),
        (4, COLL, [3], {"bytes": 1 << 16, "collective": 7}),
    ])  # fmt: skip
    g = TaskGraph((p,), np.zeros(4, np.int32), tuple(halves), names=("",), source="test")
    for aware in (False, True):
        c = AstraConfig((NetworkDim("switch", 4, 50.0, 500.0),), aware, splits=2).checked()
        job = job_of_trace(g, c)
        folded, whole = simulate(job, c), simulate(job, c, allow_fold=False)
        assert folded.folded
        assert not whole.folded
        assert folded.finish.tolist() == whole.finish.tolist()
        assert folded.exposed.tolist() == whole.exposed.tolist()
        assert folded.messages == whole.messages
        assert all(np.array_equal(folded.start[0], start) for start in whole.start)


def test_astra_sims_own_files_and_parity(astra_reference, tmp_path):
    folder = astra_reference / "llm" / "gpt8_dp2tp2pp2"
    reference = json.loads((folder / "result_sw1d_aware.json").read_text())
    network = tmp_path / "network.yml"
    network.write_text(
        "".join(f"{key}: {json.dumps(reference[key])}\n" for key in ("topology", "npus_count", "bandwidth", "latency"))
    )
    system = tmp_path / "system.json"
    system.write_text(json.dumps({
        "scheduling-policy": "LIFO", "endpoint-delay": 10, "active-chunks-per-dimension": 1, "preferred-dataset-splits": 4,
        "all-reduce-implementation": ["ring"], "all-gather-implementation": ["ring"], "reduce-scatter-implementation": ["ring"],
        "all-to-all-implementation": ["ring"], "collective-optimization": "localBWAware", "local-mem-bw": 3350,
        "peak-perf": 989, "roofline-enabled": 1, "boost-mode": 0,
    }))  # fmt: skip
    result = simulate_files(str(folder / "et.tar.gz"), str(network), str(system), level="chunk")
    assert result.profile_figures["finish_ns"] == [reference["per_rank"][str(r)] for r in range(8)]
    assert result.profile_figures["exposed_ns"] == [reference["exposed"][str(r)] for r in range(8)]
    assert any("boost-mode" in warning for warning in result.warnings)
    spans = result.spans()
    assert np.all(spans.start >= spans.ready)
    assert np.all(spans.end >= spans.start)
    assert result.links.bytes.sum() > 0
    assert np.all(result.links.busy <= result.makespan)


def test_progress_is_told_as_a_fraction(monkeypatch):
    from distsim.profiles.astra import replay

    monkeypatch.setattr(replay, "_SLICE", 5)
    told = []
    p = program([(i, COMP, [i - 1] if i else [], us(1)) for i in range(40)])
    simulate(job_of_trace(graph(p, program([])), TWO), TWO, progress=told.append)
    assert len(told) > 3
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] <= 1
