"""Captures of several ranks: clocks, meetings, waiting and transfer, against jobs whose truth is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kineto_jobs import moe_job

from distsim.api import simulate
from distsim.trace.kineto.align import History, clock_shifts, pair
from distsim.trace.kineto.ranks import match
from distsim.trace.kineto.read import graph_of_captures
from distsim.trace.kineto.reading import read_capture

PS = 1000  # of a ns


def read(job):
    return [read_capture(file, f"rank {k}") for k, file in enumerate(job.files)]


def true_zero(job, captures):
    """Own zero of each capture on the true clock, ps, from the earliest."""
    base = [capture.base_ps - offset * PS for capture, offset in zip(captures, job.offset_ns, strict=True)]
    return [one - min(base) for one in base]


jobs = st.builds(
    moe_job, st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([2, 4]), steps=st.integers(1, 2),
    layers=st.integers(1, 2), numbered=st.booleans(),
    clock_us=st.sampled_from([0.0, 30.0, 5e3, 4e6]), jitter_us=st.sampled_from([0.0, 1.0, 4.0]),
)  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(job=jobs)
def test_law_planted_clocks_waits_and_transfers_are_recovered(job):
    captures = read(job)
    found = match(captures)
    zeros, wide = true_zero(job, captures), 5_000 * PS
    shifts = np.array(found.shift_ps) - np.array(zeros)
    assert np.abs(shifts - shifts[0]).max() <= wide
    for own, truth in zip(found.ranks, job.kernels, strict=True):
        truth = sorted(truth, key=lambda one: one.start)
        duration = np.array([one.end - one.start for one in truth]) * PS
        together = own.transfer_ps + own.waiting_ps
        assert (together == duration).all()  # waiting + transfer = recorded
        assert (own.transfer_ps >= 0).all()
        assert (own.waiting_ps >= 0).all()
        assert np.abs(own.transfer_ps - np.array([one.end - one.last for one in truth]) * PS).max() <= 2 * wide
        assert [found.groups[g].members for g in own.group] == [
            dict.fromkeys(one.communicator, one.communicator) for one in truth
        ]
    assert sum(len(own.row) for own in found.ranks) == sum(map(len, job.kernels))


@settings(max_examples=8, deadline=None)
@given(job=jobs)
def test_law_a_replay_ends_every_collective_where_it_was_recorded(job):
    captures = read(job)
    graph, _ = graph_of_captures(captures, range(len(captures)), "made")
    shifts = match(captures).shift_ps
    spans = simulate(graph, communication="recorded").spans()
    for rank, capture in enumerate(captures):
        rows = np.flatnonzero((spans.rank == rank) & np.isin(spans.kind, [
            k for k, kind in enumerate(spans.kinds) if kind not in ("host", "delay", "none")
        ]))  # fmt: skip
        rows = rows[np.lexsort((spans.end[rows], spans.start[rows]))]
        order = np.lexsort((capture.kernels.end_ps, capture.kernels.start_ps))
        assert (spans.start[rows] - shifts[rank] == capture.kernels.start_ps[order]).all()
        assert (spans.end[rows] - shifts[rank] == capture.kernels.end_ps[order]).all()


def test_64_ranks_with_truncated_lists_of_ranks():
    job = moe_job(5, 8, 8, steps=1, layers=1, jitter_us=2)
    captures = read(job)
    found = match(captures)
    assert {len(next(iter(g.members.values()))) for g in found.groups} == {2, 8, 64}
    assert [d.kind for d in found.defects] == ["clock", "collective"]
    waits = [sum(one.last - one.start for one in made) * PS for made in job.kernels]
    told = json.loads(found.metadata["kineto.waiting_ps"])
    assert np.abs(np.array(told) - np.array(waits)).max() <= 20 * 5_000 * PS


@pytest.mark.parametrize("style", ["old", "bare"])
def test_communicators_that_nothing_names_are_told_apart_by_their_ends(style):
    job = moe_job(3, 2, 4, steps=3, layers=3, style=style, pipeline=False, jitter_us=2)
    found = match(read(job))
    assert sorted(sorted({m for m in g.members.values()}) for g in found.groups) == sorted(
        [one] for one in [*job.groups["ep"], *job.groups["tp"], *job.groups["dp"]]
    )
    sizes = np.concatenate([own.bytes for own in found.ranks])
    assert (sizes < 0).all() if style == "bare" else (sizes > 0).all()
    assert any(d.kind == "size" for d in found.defects) == (style == "bare")


@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("late", [{2: 1}, {0: 3, 5: 4}])
def test_captures_that_begin_later_are_matched_from_where_all_are_there(late, numbered):
    whole, job = moe_job(7, 2, 4, late=None), moe_job(7, 2, 4, late=late, numbered=numbered)
    captures = read(job)
    found = match(captures)
    zeros = true_zero(job, captures)
    shifts = np.array(found.shift_ps) - np.array(zeros)
    assert np.abs(shifts - shifts[0]).max() <= 1000 * PS
    assert any("no counterpart" in d.what for d in found.defects)
    last = {(k.communicator, k.end): k.last for made in whole.kernels for k in made}
    for own, truth in zip(found.ranks, job.kernels, strict=True):
        truth = sorted(truth, key=lambda one: one.start)
        for k, one in enumerate(truth):
            name = found.groups[own.group[k]].name
            if "unmatched" not in name:
                assert abs(own.transfer_ps[k] - (one.end - last[one.communicator, one.end]) * PS) <= 2000 * PS
            else:
                assert own.transfer_ps[k] == (one.end - one.start) * PS


def test_one_rank_alone_keeps_its_durations():
    job = moe_job(4, 2, 2)
    found = match(read(job)[:1])
    truth = sorted(job.kernels[0], key=lambda one: one.start)
    assert found.ranks[0].transfer_ps.tolist() == [(one.end - one.start) * PS for one in truth]
    assert all(group.members == {0: (0,)} for group in found.groups)
    assert any("files of the peers" in d.what for d in found.defects)


def test_some_ranks_wait_for_those_that_are_there():
    job = moe_job(4, 2, 4)
    captures = read(job)
    found = match([captures[0], captures[5]])
    assert {tuple(g.members) for g in found.groups} >= {(0, 1), (0,), (1,)}
    assert any("lack the files" in d.what for d in found.defects)
    assert (found.ranks[0].transfer_ps >= 0).all()


def test_the_source_of_a_broadcast_may_leave_before_the_others_come():
    """Rank 0 has sent before rank 1 has come: it waits for nobody, and a replay keeps its end."""
    told = {"device": 0, "stream": 9, "Collective name": "broadcast", "In msg nelems": 4, "dtype": "Float",
            "Process Group Name": "0", "Process Group Ranks": "[0, 1]", "Group size": 2, "Rank": 0}  # fmt: skip

    def kernel(name, start, end, **args):
        return {"ph": "X", "cat": "kernel", "name": f"ncclDevKernel_{name}(x)", "pid": 0, "tid": 9, "ts": start,
                "dur": end - start, "args": told | args}  # fmt: skip

    def file(rank, start, end):
        return read_capture(json.dumps({
            "distributedInfo": {"rank": rank, "world_size": 2}, "baseTimeNanoseconds": 0, "traceEvents": [
                {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": 0, "dur": 1,
                 "args": {"correlation": 1}},
                kernel("Broadcast", start, end, correlation=1),
                kernel("AllReduce", 1000, 1010, correlation=2, **{"Collective name": "allreduce"}),
            ],
        }).encode(), str(rank))  # fmt: skip

    captures = [file(0, 10, 30), file(1, 500, 520)]
    found = match(captures)
    assert [found.groups[g].name for g in found.ranks[0].group] == ["pg 0, left early", "pg 0"]
    assert [found.groups[g].name for g in found.ranks[1].group] == ["pg 0, the others", "pg 0"]
    assert found.ranks[0].transfer_ps.tolist() == [20_000_000, 10_000_000]
    assert any("before the last member had come" in d.what for d in found.defects)
    graph, _ = graph_of_captures(captures, (0, 1), "made")
    assert simulate(graph, communication="recorded").makespan == 1010 * 10**6
    operations = [(c.operation, c.members) for c in simulate(graph, communication="simulated").collectives]
    assert operations == [("broadcast", (0, 1)), ("all_reduce", (0, 1))]


def test_ranks_that_say_different_operations_are_not_matched():
    job = moe_job(6, 1, 2, pipeline=False, steps=1, layers=1)
    one = job.files[1].replace(b'"allreduce"', b'"reduce"')
    found = match([read_capture(job.files[0], "0"), read_capture(one, "1")])
    assert any("no counterpart" in d.what for d in found.defects)


def test_clocks_that_count_from_different_times():
    job = moe_job(8, 2, 2)
    captures = [read_capture(file, "") for file in job.files[:2]] + [
        read_capture(file.replace(b"1700000000000000000", b"5000000000"), "") for file in job.files[2:]
    ]
    found = match(captures)
    zeros = true_zero(job, read(job))
    shifts = np.array(found.shift_ps) - np.array(zeros)
    assert np.abs(shifts - shifts[0]).max() <= 1000 * PS
    assert any("do not count from the same time" in d.what for d in found.defects)


def test_kernels_of_cuda_graphs_are_matched_by_their_stream():
    """One launch, one correlation, nothing told of what runs in the graph: two all-reduces, 10 and 20 us after the last."""

    def file(rank, starts, clock):
        return read_capture(json.dumps({
            "distributedInfo": {"rank": rank, "world_size": 2}, "traceEvents": [
                {"ph": "X", "cat": "cuda_runtime", "name": "cudaGraphLaunch", "pid": 1, "tid": 1, "ts": clock, "dur": 1,
                 "args": {"correlation": 1}},
            ] + [
                {"ph": "X", "cat": "kernel", "name": "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)", "pid": 0, "tid": 9,
                 "ts": clock + start, "dur": end - start, "args": {"device": 0, "stream": 9, "correlation": 1}}
                for start, end in zip(starts, (110, 220), strict=True)
            ],
        }).encode(), str(rank))  # fmt: skip

    found = match([file(0, (50, 200), 5), file(1, (100, 150), 900)])
    assert [own.transfer_ps.tolist() for own in found.ranks] == [[10_000_000, 20_000_000]] * 2
    assert [own.waiting_ps.tolist() for own in found.ranks] == [[50_000_000, 0], [0, 50_000_000]]
    assert (found.ranks[0].bytes == -1).all()


def test_no_captures_and_no_communication():
    assert match([]).ranks == ()
    lone = read_capture(json.dumps({"traceEvents": [
        {"ph": "X", "cat": "kernel", "name": "gemm", "pid": 0, "tid": 7, "ts": 1, "dur": 2, "args": {"device": 0, "stream": 7}},
    ]}).encode(), "lone")  # fmt: skip
    found = match([lone])
    assert (len(found.ranks[0].row), found.groups, found.defects, found.shift_ps) == (0, (), (), (0,))


# --- matching by itself -------------------------------------------------------------------------------------------------------


def history(kinds, sizes=None, numbers=None, steps=None, ends=None):
    n = len(kinds)
    return History(
        np.array(kinds, np.int64), np.array([-1] * n if sizes is None else sizes, np.int64),
        np.array([-1] * n if numbers is None else numbers, np.int64), tuple(steps or ("s",) * n),
        np.array(range(0, 100 * n, 100) if ends is None else ends, np.int64),
    )  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 50)), min_size=2, max_size=40), st.data())
def test_law_a_window_of_a_history_is_found_in_it(rows, data):
    low = data.draw(st.integers(0, len(rows) - 1))
    high = data.draw(st.integers(low + 1, len(rows)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    ends = np.cumsum(rng.integers(1000, 10**6, len(rows)))
    first = history([k for k, _ in rows], [s for _, s in rows], ends=ends)
    window = history([k for k, _ in rows[low:high]], [s for _, s in rows[low:high]], ends=ends[low:high] + 12345)
    found = pair(first, window)
    assert (np.diff(found[found >= 0]) > 0).all()
    assert all(rows[at] == rows[low + k] for k, at in enumerate(found.tolist()) if at >= 0)
    if high - low > 2:  # one or two operations may as well be others of the same kind and distance
        assert found.tolist() == list(range(low, high))


def test_numbers_decide_where_the_communicator_gives_them():
    first, other = history([0] * 4, numbers=[4, 5, 6, 7]), history([0] * 3, numbers=[6, 7, 8])
    assert pair(first, other).tolist() == [2, 3, -1]


def test_steps_decide_and_what_was_under_way_is_counted_from_its_end():
    first = history([0] * 5, steps=("", "", "a", "a", "b"))
    other = history([0] * 4, steps=("", "a", "a", "b"))
    assert pair(first, other).tolist() == [1, 2, 3, 4]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.integers(1, 30), st.integers(0, 10**6))
def test_law_clocks_are_recovered_over_chains_of_pairs(ranks, meetings, seed):
    rng = np.random.default_rng(seed)
    clock = rng.integers(-(10**12), 10**12, ranks)
    rank, meeting, end = [], [], []
    for a in range(ranks - 1):
        for k in range(meetings):
            at = int(rng.integers(0, 10**12))
            for r in (a, a + 1):
                rank.append(r)
                meeting.append(a * meetings + k)
                end.append(at - clock[r] + int(rng.integers(-100, 100)))
    shifts = clock_shifts(*(np.array(x, np.int64) for x in (rank, meeting, end)), ranks, [0] * ranks)
    apart = np.array(shifts) - clock
    assert np.abs(apart - apart[0]).max() <= 200 * ranks


def test_dlrm_members_end_within_microseconds_on_one_clock(traces_reference):
    folder = traces_reference / "param_dlrm_8xV100"
    captures = [read_capture(folder / f"kineto_rank{k}.json.gz") for k in range(8)]
    found = match(captures)
    ends = np.array([c.kernels.end_ps[own.row] + s for c, own, s in zip(captures, found.ranks, found.shift_ps, strict=True)])
    assert np.ptp(ends, axis=0).max() <= 8_000_000
    # the last to come has nothing to wait for; the others wait as long as their starts differ (up to 7.6 ms)
    waits = np.array([own.waiting_ps for own in found.ranks])
    assert (waits.min(axis=0) <= 1_000_000).all()
    assert 7_500_000_000 < waits.max() < 7_700_000_000
    assert all((own.bytes > 0).all() for own in found.ranks)


def lone(kernels):
    """A capture of rank 0 of two with so many all-reduces; its peer's file is missing."""
    told = {"Collective name": "allreduce", "In msg nelems": 8, "dtype": "Float", "Group size": 2,
            "Process Group Name": "0", "Process Group Ranks": "[0, 1]", "device": 0, "stream": 7}  # fmt: skip
    events = [
        {"ph": "X", "cat": "kernel", "name": "ncclDevKernel_AllReduce", "tid": 7, "ts": 10 * k, "dur": 5, "args": told}
        for k in range(kernels)
    ]
    document = {"distributedInfo": {"rank": 0, "world_size": 2}, "traceEvents": events}
    return read_capture(json.dumps(document).encode(), "rank 0")


@pytest.mark.parametrize(("kernels", "says"), [(1, "1 collective (1 communicator) are not there: replayed, it keeps its"),
                                               (2, "2 collectives (1 communicator) are not there: replayed, they keep their")])
def test_defects_of_one_and_of_several_are_told_in_grammar(kernels, says):
    assert any(says in defect.line() for defect in match([lone(kernels)]).defects)
