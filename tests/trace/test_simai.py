"""SimAI (AICB) workloads: what is read, in which order the layers run, on which ranks, and what is refused."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.api import simulate
from distsim.errors import ConfigError, TraceError
from distsim.trace import simai_text
from distsim.trace.graph import CollectiveType, NodeType, TaskGraph
from distsim.trace.read import load, read_trace
from distsim.trace.simai import lower

FULL = (
    "HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 2 ep: 2 pp: 1 vpp: 1 ga: 1 all_gpus: 8 "
    "checkpoints: 0 checkpoint_initiates: 0"
)
NONE = "NONE 0"


def text(header: str, *lines: str) -> str:
    return "\n".join([header, str(len(lines)), *lines]) + "\n"


def line(name: str, forward: str = f"0 {NONE}", ig: str = f"0 {NONE}", wg: str = f"0 {NONE}", process: int = 0) -> str:
    return f"{name}\t-1\t{forward}  {ig}  {wg}\t{process}"


@pytest.fixture
def file(tmp_path: Path):
    def write(content: str) -> str:
        path = tmp_path / "workload.txt"
        path.write_text(content)
        return str(path)

    return write


def graph_of(content: str, ranks: int | None = None, room: int | None = None) -> TaskGraph:
    return lower(simai_text.parse(content.encode(), "w"), ranks, room)[0]


def warnings_of(content: str, ranks: int | None = None, room: int | None = None) -> str:
    return "; ".join(defect.what for defect in lower(simai_text.parse(content.encode(), "w"), ranks, room)[1])


def told(graph: TaskGraph, rank: int = 0) -> list[str]:
    """A program in words: computations by name, collectives by operation, group and bytes."""
    program, said = graph.program(rank), []
    for row in range(len(program)):
        group = int(program.group[row])
        name = graph.names[program.name[row]]
        if program.type[row] == NodeType.COMM_COLL:
            kind = CollectiveType(int(program.collective[row])).name.lower()
            said.append(f"{kind} {graph.groups[group].name if group >= 0 else 'all'} {program.bytes[row]}")
        else:
            said.append(name)
    return said


def test_a_transformer_goes_forward_then_back_and_weight_gradients_overlap():
    layer = line("mlp", "10 ALLREDUCE 800", "20 ALLGATHER 801", "30 REDUCESCATTER 400", 7)
    graph = graph_of(text(FULL, line("emb", "5 NONE 0"), layer))
    assert told(graph) == [
        "emb forward", "mlp forward", "all_reduce tp 800", "mlp forward process", "mlp input gradient", "all_gather tp 401",
        "mlp input gradient process", "mlp weight gradient", "reduce_scatter dp 400", "mlp weight gradient process",
    ]  # fmt: skip
    program = graph.program(0)
    deps = [program.dep[a:b].tolist() for a, b in zip(program.dep_ptr, program.dep_ptr[1:], strict=False)]
    assert deps == [[], [0], [1], [2], [3], [4], [5], [6], [7], [8]]
    assert program.duration_ps.tolist() == [5000, 10000, -1, 7000, 20000, -1, 7000, 30000, -1, 7000]
    assert program.cpu.tolist() == [name.endswith("process") for name in told(graph)]
    back = graph_of(text(FULL, line("a", wg=f"3 {NONE}"), line("b", wg="4 ALLREDUCE 9")))
    # the computation of a waits for that of b (row 0), not for its collective (row 1)
    assert told(back) == ["b weight gradient", "all_reduce dp 9", "a weight gradient"]
    assert back.program(0).dep.tolist() == [0, 0]


def test_groups_follow_from_the_layout_of_ranks():
    """Tensor-parallel fastest, experts within data-parallel; all ranks share one program."""
    layer = line("moe", "1 ALLTOALL_EP 64", "1 ALLTOALL 64", "1 ALLREDUCE_DP_EP 64")
    graph = graph_of(text(FULL, layer, line("x", wg="1 ALLREDUCE 64")))
    groups = {group.name: group.members for group in graph.groups}
    assert groups["tp"][5] == (4, 5)
    assert groups["ep"][5] == (5, 7)
    assert groups["dp"][5] == (1, 3, 5, 7)
    assert groups["dp_ep"][5] == (1, 5)
    assert [entry for entry in told(graph) if " 64" in entry] == [
        "all_to_all ep 64", "all_reduce dp 64", "all_to_all tp 64", "all_reduce dp_ep 64"
    ]  # fmt: skip
    assert len(graph.programs) == 1
    assert graph.metadata["parallelism"] == "tp 2, ep 2, dp 4, pp 1"


def test_a_group_of_one_does_not_communicate():
    graph = graph_of(text(FULL.replace("group: 2", "group: 8").replace("ep: 2", "ep: 1"), line("x", wg="1 ALLREDUCE 64")))
    assert told(graph) == ["x weight gradient"]


def test_allreducealltoall_is_one_after_the_other_and_broadcast_is_run():
    graph = graph_of(text(FULL, line("x", "0 ALLREDUCEALLTOALL 8", "0 BROADCAST 16", process=3)))
    assert told(graph) == [
        "all_reduce tp 8", "all_to_all tp 8", "x forward process", "broadcast tp 16", "x input gradient process"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "header",
    [
        "HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 4",
        "HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 4 checkpoints: 0 checkpoint_initiates: 0",
        "HYBRID_TRANSFORMER model_parallel_NPU_group: 4 expert_parallel_npu_group: 1 pp: 1 ga: 1 all_gpus: 8",
        "HYBRID_TRANSFORMER_FWD_IN_BCKWD\tmodel_parallel_NPU_group: 4 ep: 1 pp: 1 vpp: 8 ga: 2 all_gpus: 8 checkpoints: 0 "
        "checkpoint_initiates: 0 pp_comm: 0",
        "HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 4 ep: 1 pp: 1 vpp: 8 ga: 2 all_gpus: 8 checkpoints: 0 "
        "checkpoint_initiates: 0 pp_comm 0",
    ],
)  # fmt: skip
def test_headers_of_every_generation(header):
    graph = graph_of(text(header, line("x", "1 ALLREDUCE 8", wg="1 ALLREDUCE 16")), room=8)
    assert told(graph) == ["x forward", "all_reduce tp 8", "x weight gradient", "all_reduce dp 16"]
    assert {group.name: len(group.members[0]) for group in graph.groups} == {"tp": 4, "dp": 2}


def test_who_says_the_number_of_ranks():
    old = text("HYBRID_TRANSFORMER model_parallel_NPU_group: 2", line("x", "1 ALLREDUCE 8"))
    with pytest.raises(TraceError, match=r"line 1: the header says no number of ranks(?s:.)*--ranks"):
        graph_of(old)
    assert graph_of(old, ranks=4, room=16).ranks == 4
    assert graph_of(old, room=16).ranks == 16
    assert "says no all_gpus: 16 ranks, as the topology has hosts" in warnings_of(old, room=16)
    new = text(FULL, line("x"))
    assert graph_of(new, room=16).ranks == 8
    assert warnings_of(new, room=16) == ""
    assert "16 ranks, as given, not the header's all_gpus: 8" in warnings_of(new, ranks=16)
    with pytest.raises(TraceError, match="line 1: names 1,000,000,000 ranks"):
        graph_of(text(FULL.replace("all_gpus: 8", "all_gpus: 1000000000"), line("x")))


def test_without_a_tensor_parallel_size_all_ranks_are_one_group():
    content = text("HYBRID_TRANSFORMER", line("x", "1 ALLREDUCE 8"))
    assert told(graph_of(content, 4)) == ["x forward", "all_reduce tp 8"]
    assert "all ranks of a stage are one" in warnings_of(content, 4)


def test_micro_runs_one_line_after_the_other():
    graph = graph_of(text("MICRO", line("a", wg="1 ALLREDUCE 8", process=2), line("b", "1 ALLTOALL 16")), 4)
    assert told(graph) == [
        "a weight gradient", "all_reduce all 8", "a weight gradient process", "b forward", "all_to_all all 16"
    ]  # fmt: skip
    assert graph.program(0).dep.tolist() == [0, 1, 2, 3]


def test_data_parallel_overlaps_and_the_first_layer_has_no_input_gradient():
    layers = [line(name, f"1 {NONE}", "2 ALLREDUCE 8", "3 ALLREDUCE 8") for name in "ab"]
    graph = graph_of(text("DATA", *layers), 4)
    assert told(graph) == [
        "a forward", "b forward", "b weight gradient", "all_reduce all 8", "b input gradient", "a weight gradient",
        "all_reduce all 8",
    ]  # fmt: skip
    assert graph.program(0).dep.tolist() == [0, 1, 2, 2, 4, 5]
    assert "2 collectives are in passes that policy DATA does not communicate in" in warnings_of(text("DATA", *layers), 4)


def test_model_parallel_input_gradients_overlap_with_the_weight_gradient_of_their_layer():
    layers = [line(name, "1 ALLGATHER 8", "2 ALLREDUCE 8", "3 NONE 0") for name in "ab"]
    graph = graph_of(text("MODEL", *layers), 4)
    assert told(graph)[4:] == [
        "b input gradient", "all_reduce all 8", "b weight gradient", "a input gradient", "a weight gradient"
    ]  # fmt: skip
    program = graph.program(0)
    assert sorted(program.dep[program.dep_ptr[7] : program.dep_ptr[8]].tolist()) == [5, 6]  # both are waited for


@pytest.mark.parametrize("policy", ["HYBRID_DLRM", "DLRM", "HYBRID_DLRM_ENHANCED"])
def test_dlrm_exchanges_embeddings_beside_the_bottom_layers(policy):
    layers = [line("emb", "1 ALLTOALL 64", "1 ALLTOALL 64"), *(line(n, "1 NONE 0", "1 NONE 0", "1 ALLREDUCE 8") for n in "xyz")]
    graph = graph_of(text(f"{policy} DLRM_LAST_BOTTOM_LAYER: 2", *layers), 4)
    said, program = told(graph), graph.program(0)
    assert said[:5] == ["emb forward", "all_to_all all 64", "x forward", "y forward", "z forward"]
    deps = [program.dep[a:b].tolist() for a, b in zip(program.dep_ptr, program.dep_ptr[1:], strict=False)]
    assert deps[2:5] == [[0], [2], [3, 1]]  # z, the first top layer, waits for the exchange
    assert said.index("all_to_all all 64", 2) == said.index("z input gradient") + 1
    with pytest.raises(TraceError, match="DLRM_LAST_BOTTOM_LAYER: N"):
        graph_of(text(policy, *layers), 4)


def test_inference_is_forward_only():
    content = text("DISTRIBUTED_INFERENCE", line("a", "1 ALLREDUCE 8", "5 NONE 0", "5 ALLREDUCE 8"))
    assert told(graph_of(content, 4)) == ["a forward", "all_reduce all 8"]
    assert "1 collectives are in passes" in warnings_of(content, 4)


def test_recomputation_starts_from_the_nearest_checkpoint():
    layers = [line(name, f"1 {NONE}", f"2 {NONE}") for name in "abcd"]
    header = FULL.replace("checkpoints: 0 checkpoint_initiates: 0", "checkpoints: 2 0 1 checkpoint_initiates: 1 3")
    assert told(graph_of(text(header, *layers)))[4:8] == ["b forward", "c forward", "d input gradient", "c input gradient"]
    plain = header.replace("_FWD_IN_BCKWD", "")
    assert "b forward" not in told(graph_of(text(plain, *layers)))[4:]
    with pytest.raises(TraceError, match="layer 3 is in checkpoint_initiates, but no layer before it"):
        graph_of(text(header.replace("2 0 1", "1 3"), *layers))


def pipeline(stages: int, batches: int, forward: int, backward: int, *, comm: int = 64, head: int = 0) -> str:
    sizes = f"ep: 1 pp: {stages} vpp: 1 ga: {batches} all_gpus: {stages * 2} pp_comm: {comm}"
    header = f"HYBRID_TRANSFORMER model_parallel_NPU_group: 1 {sizes}"
    batch = [line("embedding", f"{forward} {NONE}"), line("mlp", f"0 {NONE}", f"{backward} {NONE}")]
    return text(header, *([line("first", f"{head} {NONE}")] if head else []), *batch * batches)


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 5), st.integers(1, 6), st.integers(1, 50), st.integers(1, 50))
def test_the_bubble_of_a_pipeline_comes_about_by_waiting(tmp_path_factory, stages, batches, forward, backward):
    """With an infinite network, pp stages and ga micro-batches take (ga + pp - 1) micro-batches: a bubble of (pp - 1) / ga."""
    path = tmp_path_factory.mktemp("pp") / "w.txt"
    path.write_text(pipeline(stages, batches, forward * 1000, backward * 1000))
    result = simulate(str(path), topology="switch", network="ideal")
    assert result.makespan == (batches + stages - 1) * (forward + backward) * 1_000_000


def test_stages_hand_on_to_ranks_of_the_next_stage():
    graph = graph_of(pipeline(3, 2, 10, 20, head=5))
    assert len(graph.programs) == 3
    assert graph.rank_program.tolist() == [0, 0, 1, 1, 2, 2]
    assert told(graph, 0) == [
        "first forward", *["embedding forward", "send activation"] * 2, *["receive gradient", "mlp input gradient"] * 2
    ]  # fmt: skip
    program = graph.program(2)
    sends, receives = np.flatnonzero(program.type == NodeType.COMM_SEND), np.flatnonzero(program.type == NodeType.COMM_RECV)
    assert [graph.peer(3, row) for row in sends] == [5, 5, 1, 1]
    assert [graph.peer(2, row) for row in receives] == [0, 0, 4, 4]
    assert set(program.bytes[sends]) == {64}
    assert {group.name: group.members[3] for group in graph.groups} == {"dp": (2, 3)}


def test_what_a_pipeline_takes_for_granted_is_said():
    assert "no pp_comm" in warnings_of(pipeline(2, 2, 1, 1, comm=0))
    assert "vpp 4: the chunks of a stage are not interleaved" in warnings_of(pipeline(2, 2, 1, 1).replace("vpp: 1", "vpp: 4"))
    uneven = text("HYBRID_TRANSFORMER pp: 2 ga: 2 all_gpus: 2 pp_comm: 1 model_parallel_NPU_group: 1", line("a"), line("b"))
    assert "not 2 equal micro-batches" in warnings_of(uneven)
    with pytest.raises(TraceError, match="policy MICRO has no pipeline"):
        graph_of(text("MICRO pp: 2 all_gpus: 4", line("a")))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_compute_is_the_sum_of_the_compute_columns(data):
    """Law: a transformer computes what its file says, no more, no less, on every rank; nothing is cyclic."""
    times, comms = st.integers(0, 10**6), st.sampled_from(["NONE", "ALLREDUCE", "ALLGATHER_EP", "ALLTOALL_DP_EP"])
    layers, total = [], 0
    for _ in range(data.draw(st.integers(1, 8))):
        passes = [(data.draw(times), data.draw(comms), data.draw(st.integers(0, 99))) for _ in range(3)]
        total += sum(ns for ns, _, _ in passes)
        layers.append(line("x", *(" ".join(map(str, one)) for one in passes), data.draw(st.integers(0, 9))))
    graph = graph_of(text(FULL, *layers))
    program = graph.program(7)
    assert int(program.duration_ps[(program.type == NodeType.COMP) & ~program.cpu].sum()) == total * 1000
    row = np.repeat(np.arange(len(program)), np.diff(program.dep_ptr))
    assert (program.dep < row).all()


def test_nine_thousand_ranks_share_one_program(file):
    header = FULL.replace("group: 2 ep: 2", "group: 8 ep: 1").replace("all_gpus: 8", "all_gpus: 9216")
    began = time.process_time()
    graph = read_trace(file(text(header, *[line("x", "1 ALLREDUCE 8", "1 ALLREDUCE 8", "1 ALLREDUCE 8", 1)] * 1000)))
    assert time.process_time() - began < 3
    assert (graph.ranks, len(graph.programs), len(graph.programs[0])) == (9216, 1, 9000)
    assert graph.groups[1].members[9215] == tuple(range(7, 9216, 8))


GOOD = text(FULL, line("x", "1 ALLREDUCE 8"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("HYBRID_TRANSFORMER_FWD", "HYBRID_TRANSFORMERS_FWD", r"line 1: unknown policy(?s:.)*Nearest: HYBRID_TRANSFORMER"),
        ("ep: 2", "epp: 2", r"line 1: unknown key 'epp:'(?s:.)*Nearest: .*ep:"),
        ("ep: 2", "ep: two", "line 1: ep: is 'two'"),
        ("ep: 2", "ep: 0", "line 1: ep: 0 is none"),
        ("ep: 2", "ep: 3", "ep 3 does not divide 4 data-parallel ranks"),
        ("all_gpus: 8", "all_gpus: 9", "model_parallel_NPU_group x pp 2 does not divide 9 ranks"),
        ("checkpoints: 0", "checkpoints: 1", "checkpoints is 'checkpoint_initiates:'"),
        ("checkpoints: 0", "checkpoints: 1 1", "checkpoints names layer 1, but there are 1 layers"),
        ("\n1\n", "\n2\n", "line 2 promises 2 layers, but 1 follow"),
        ("\n1\n", "\none\n", "line 2: 'one' is not the number of layers"),
        ("\n1\n", "\n", "line 2: .* is not the number of layers"),
        ("ALLREDUCE 8", "ALLREDUC 8", r"line 3: fwd_comm is 'ALLREDUC'(?s:.)*Nearest: ALLREDUCE"),
        ("ALLREDUCE 8", "ALLREDUCE_TP 8", r"line 3: fwd_comm is 'ALLREDUCE_TP'(?s:.)*Nearest: ALLREDUCE_"),
        ("ALLREDUCE 8", "ALLREDUCE -8", "line 3: fwd_bytes is '-8'"),
        ("ALLREDUCE 8", "ALLREDUCE 1e9", "line 3: fwd_bytes is '1e9'"),
        ("ALLREDUCE 8", "ALLREDUCE", "line 3: has 11 columns(?s:.)*Expected 12: name dependency fwd_compute"),
        ("\t-1\t", "\tx\t", "line 3: dependency is 'x'"),
        ("\t-1\t1 ", "\t-1\t1.5 ", "line 3: fwd_compute is '1.5'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_line(file, old, new, words):
    assert old in GOOD
    with pytest.raises(TraceError, match=words):
        read_trace(file(GOOD.replace(old, new, 1)))


def test_dependencies_are_counted_and_strict_refuses_what_is_odd(file):
    path = file(GOOD.replace("\t-1\t", "\t0\t"))
    assert read_trace(path).defects == ("simai: 1 lines name a dependency: not used (nor does SimAI use it)",)
    with pytest.raises(TraceError, match="name a dependency"):
        read_trace(path, strict=True)


def test_it_is_told_by_its_content(tmp_path):
    for name in ("workload", "workload.json", "w.txt.gz"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(GOOD.encode()) if name.endswith("gz") else GOOD.encode())
        assert read_trace(path).metadata["format"] == "SimAI workload"
    for other in (b"", b"hello world\n", b"num_ranks 2\n", b"\xff\xfe\n1\n", b"{}"):
        assert not simai_text.recognises(other)


def test_other_traces_have_the_ranks_they_have(file, tmp_path):
    native = tmp_path / "t.json"
    native.write_text('{"format": "distsim-trace/1", "ranks": 2, "programs": [{"ranks": "all", "nodes": []}]}')
    assert load(native, ranks=2)[0].ranks == 2
    with pytest.raises(ConfigError, match="the trace has 2 ranks, not 3"):
        read_trace(native, ranks=3)
    with pytest.raises(ConfigError, match="has 8 ranks, not 3"):
        simulate(read_trace(file(GOOD)), topology="switch", ranks=3)
    with pytest.raises(ConfigError, match="holds its own groups"):
        read_trace(file(GOOD), groups="g.json")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOD)), st.integers(0, 12), st.text("0 1-9.\n\tA_N:é", max_size=6))
def test_damaged_text_is_read_or_refused(at, cut, put):
    """No damage ends in anything but a refusal that names the file."""
    damaged, said = GOOD[:at] + put + GOOD[at + cut :], "w:"
    if simai_text.recognises(damaged.encode()):
        try:
            graph_of(damaged, room=4)
        except TraceError as error:
            said = str(error)
    assert said.startswith("w:")
