"""What communicating kernels do: told by their args, by the operation around the launch, by their names."""

from __future__ import annotations

import json

import numpy as np
import pytest
from kineto_jobs import moe_job

from distsim.trace.graph import CollectiveType
from distsim.trace.kineto.comms import identify
from distsim.trace.kineto.facts import facts_of_args, facts_of_op, item_size, operation_of, parse_ranks
from distsim.trace.kineto.reading import read_capture

ARGS = {
    "Collective name": "allreduce", "In msg nelems": 100, "Out msg nelems": 100, "dtype": "BFloat16", "Group size": 2,
    "In split size": "[]", "Process Group Name": "3", "Process Group Ranks": "[4, 5]", "Seq": 9,
}  # fmt: skip


def capture_of(*events, **distributed):
    return read_capture(json.dumps({
        "distributedInfo": {"rank": 0, "world_size": 8, **distributed}, "traceEvents": list(events),
    }).encode(), "made")  # fmt: skip


def event(cat, name, ts, dur, tid, **args):
    pid = 0 if cat == "kernel" else 1
    return {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args}


def nccl(name, correlation, ts=100, stream=9, **args):
    return event("kernel", name, ts, 5, stream, device=0, stream=stream, correlation=correlation, **args)


def call(ts, correlation):
    return event("cuda_runtime", "cudaLaunchKernel", ts, 2, 1, correlation=correlation)


@pytest.mark.parametrize(("text", "size", "ranks"), [
    ("[0, 1]", 2, (0, 1)), ("", 0, ()), (None, 4, ()), ([3, 4], 2, (3, 4)), ("[7]", 1, (7,)),
    ("[0, 1, 2, ..., 63]", 64, tuple(range(64))), ("[0, 8, 16, ..., 504]", 64, tuple(range(0, 512, 8))),
    ("[0, 1, 2, ..., 62]", 64, ()), ("[0, 1, 3, ..., 63]", 64, ()), ("[0, 1, 2, ..., 63]", 0, ()),
])  # fmt: skip
def test_ranks_are_read_from_lists_long_ones_only_where_they_can_be_known(text, size, ranks):
    assert parse_ranks(text, size) == ranks


@pytest.mark.parametrize(("name", "size"), [
    ("Float", 4), ("BFloat16", 2), ("c10::BFloat16", 2), ("long int", 8), ("int64_t", 8), ("Float8_e4m3fn", 1), ("Half", 2),
    ("c10::complex<float>", 8), ("QInt4", 0), ("", 0), ("Byte", 1), ("bool", 1),
])  # fmt: skip
def test_item_sizes(name, size):
    assert item_size(name) == size


@pytest.mark.parametrize(("name", "kind"), [
    ("nccl:all_reduce", CollectiveType.ALL_REDUCE), ("_reduce_oop", CollectiveType.REDUCE), ("barrier", CollectiveType.BARRIER),
    ("nccl:all_reduce_barrier", CollectiveType.BARRIER), ("_reduce_scatter_base", CollectiveType.REDUCE_SCATTER),
    ("reduce_scatter_tensor_coalesced", CollectiveType.REDUCE_SCATTER), ("send", "send"), ("nccl:recv 0<-1", "recv"),
    ("allgather_into_tensor_coalesced", CollectiveType.ALL_GATHER), ("gather", CollectiveType.GATHER), ("wait", None),
    ("all_to_allv", CollectiveType.ALL_TO_ALL), ("c10d::alltoall_base_", CollectiveType.ALL_TO_ALL),
    ("c10d::broadcast_", CollectiveType.BROADCAST),
])  # fmt: skip
def test_operations_by_name(name, kind):
    assert operation_of(name) == kind


def test_args_tell_all():
    assert facts_of_args(ARGS) == {
        "operation": "allreduce", "in_bytes": 200, "out_bytes": 200, "size": 2, "name": "3", "sequence": "9", "ranks": (4, 5),
    }  # fmt: skip


def test_start_and_stride_tell_the_ranks_of_a_group_too_long_to_list():
    args = ARGS | {"Process Group Ranks": "[0, 1, ..., 5]", "Group size": 4, "Global rank start": 2, "Global rank stride": 3}
    assert facts_of_args(args)["ranks"] == (2, 5, 8, 11)


def test_dims_tell_bytes_and_the_ratio_of_input_to_output_the_size():
    facts = facts_of_op("c10d::_reduce_scatter_base_", {
        "Input Dims": [[8192, 64], [65536, 64], [], []], "Input type": ["float", "float", "", ""],
    })  # fmt: skip
    assert (facts["in_bytes"], facts["size"]) == (65536 * 64 * 4, 8)
    facts = facts_of_op("nccl:all_reduce", {"Input Dims": [[[3, 5], [7]]], "Input type": ["c10::Half"]})
    assert facts["in_bytes"] == 2 * (15 + 7)
    assert "in_bytes" not in facts_of_op("nccl:all_reduce", {"Input Dims": [[]], "Input type": ["TensorList"]})


@pytest.mark.parametrize(("style", "source"), [("new", "kernel"), ("old", "host operation"), ("bare", "host operation")])
def test_sources(style, source):
    made = moe_job(1, 1, 4, style=style, pipeline=False)
    found = identify(read_capture(made.files[1], "rank 1"))
    truth = sorted(made.kernels[1], key=lambda one: one.start)
    assert found.told_by == {source: len(truth)}
    assert [operation_of(one.operation) for one in truth] == found.operation.tolist()
    assert (found.bytes == (-1 if style == "bare" else np.array([one.bytes for one in truth]))).all()
    if style == "new":
        assert [found.communicators[c].ranks for c in found.communicator] == [one.communicator for one in truth]
    else:
        assert {one.kind for one in found.communicators} == {"stream"}


def test_messages_are_of_a_pair_and_know_their_source():
    made = moe_job(2, 2, 2)
    for rank, other in ((0, 2), (3, 1)):
        found = identify(read_capture(made.files[rank], ""))
        at = [k for k, c in enumerate(found.communicator.tolist()) if found.communicators[c].kind == "pair"]
        assert at
        assert {found.communicators[found.communicator[k]].ranks for k in at} == {tuple(sorted((rank, other)))}
        assert set(found.root[at].tolist()) == {min(rank, other)}


def test_a_kernel_without_launch_takes_the_communicator_of_its_stream():
    first = nccl("ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)", 1, ts=10)
    told = nccl("ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)", 2, ts=100, **ARGS)
    found = identify(capture_of(first, call(90, 2), told))
    assert found.told_by == {"name of the kernel": 1, "kernel": 1}
    assert found.guessed.tolist() == [True, False]
    assert found.bytes.tolist() == [-1, 200]
    assert [one.name for one in found.communicators] == ["pg 3"]


def test_a_batch_of_messages_takes_its_peers_from_the_operations_before():
    def message(ts, name, **args):
        return event("cpu_op", "record_param_comms", ts, 1, 1, **(ARGS | {"Collective name": name} | args))

    kernel = call(60, 1), nccl("ncclDevKernel_SendRecv(x)", 1)
    one = [message(50, "send", **{"Dst Rank": 3}), message(52, "recv", **{"Src Rank": 3}), *kernel]
    found = identify(capture_of(*one))
    assert [c.ranks for c in found.communicators] == [(0, 3)]
    assert found.bytes.tolist() == [400]
    both = [message(50, "send", **{"Dst Rank": 3}), message(52, "recv", **{"Src Rank": 5}), *kernel]
    assert [c.kind for c in identify(capture_of(*both)).communicators] == ["batch"]


def test_configured_groups_complete_what_a_kernel_leaves_out():
    args = {key: value for key, value in ARGS.items() if key not in ("Process Group Ranks", "Group size")}
    found = identify(capture_of(call(90, 2), nccl("ncclDevKernel_AllReduce(x)", 2, **args), pg_config=[
        {"pg_name": "3", "pg_size": 8, "ranks": []}, {"pg_name": "4", "pg_size": 2, "ranks": [0, 1]}, "odd", {"pg_name": "5"},
    ]))  # fmt: skip
    assert [one.ranks for one in found.communicators] == [tuple(range(8))]


def test_reference_captures_are_identified(traces_reference):
    found = identify(read_capture(traces_reference / "hta_ddp_2xA100" / "kineto_rank0.json.gz"))
    assert found.told_by == {"kernel": 21}
    assert found.communicators[0].ranks == (0, 1)
    assert (found.operation == CollectiveType.BROADCAST).sum() == 6
    assert found.bytes[0] == 53120 * 4
    found = identify(read_capture(traces_reference / "hta_rec_16xA100" / "kineto_rank0.json.gz"))
    assert found.told_by == {"host operation": 75, "name of the kernel": 5}
    assert (found.bytes < 0).sum() == 5
    assert sorted(one.size for one in found.communicators) == [0, 0, 8]  # reduce-scatters of 8 ranks, by their sizes
