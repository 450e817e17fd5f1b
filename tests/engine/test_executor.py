"""The executor: streams, runs and their cuts, tasks that arrive while it runs, meetings, deadlocks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.engine.communication import Communication
from distsim.engine.executor import Executor
from distsim.engine.placement import CollectiveOptions, Placer
from distsim.engine.task import CollectiveCall, Kind, MessageCall, Tasks
from distsim.errors import CollectiveError, DeadlockError, TraceError
from distsim.kernel.clock import Clock
from distsim.network.analytic import Analytic
from distsim.record import Recorder
from distsim.topology.spec import build


class Bench:
    """An executor on a small switch."""

    def __init__(self, hosts: int = 4) -> None:
        topology = build(f"switch:hosts={hosts},bandwidth=1GB/s,latency=1us")
        self.clock, self.recorder = Clock(), Recorder()
        communication = Communication(
            self.clock, Analytic(topology), Placer(topology, range(hosts)), CollectiveOptions(), self.recorder
        )
        self.executor = Executor(self.clock, communication, self.recorder)
        self.durations: list[int] = []

    def submit(self, rows, calls=(), on_done=None) -> int:
        """rows: (kind, stream number, duration, call, [dependencies])."""
        self.durations += [row[2] for row in rows]
        degree = [len(row[4]) for row in rows]
        return self.executor.submit(
            Tasks(
                kind=np.array([row[0] for row in rows], np.int8),
                stream=np.array([row[1] for row in rows], np.int32),
                duration=np.array([row[2] for row in rows], np.int64),
                call=np.array([row[3] for row in rows], np.int32),
                dep_ptr=np.concatenate(([0], np.cumsum(degree))).astype(np.int64),
                dep=np.array([d for row in rows for d in row[4]], np.int32),
                calls=tuple(calls),
            ),
            on_done,
        )

    def finish(self):
        self.clock.run()
        self.executor.check_finished()
        return self.recorder.spans(np.array(self.durations, dtype=np.int64))


def test_a_chain_runs_as_one_run_and_is_recorded_task_by_task():
    bench = Bench()
    s = bench.executor.stream(0, "compute")
    bench.submit([(Kind.TIMED, s, 10, -1, [])] + [(Kind.TIMED, s, 10 + i, -1, [i]) for i in range(5)])
    spans = bench.finish()
    assert spans.start.tolist() == [0, 10, 20, 31, 43, 56]
    assert spans.end.tolist() == [10, 20, 31, 43, 56, 70]
    assert spans.released_by.tolist() == [-1, 0, 1, 2, 3, 4]
    assert bench.clock.events <= 3


def test_a_run_is_cut_at_the_next_boundary_for_a_task_that_goes_first():
    """Task 0 (other stream) releases task 1, which goes before the chain 2-5 that is already running on its stream."""
    bench = Bench()
    s, other = bench.executor.stream(0, "compute"), bench.executor.stream(0, "copy")
    rows = [(Kind.TIMED, other, 25, -1, []), (Kind.TIMED, s, 100, -1, [0])]
    rows += [(Kind.TIMED, s, 10, -1, [])] + [(Kind.TIMED, s, 10, -1, [i]) for i in (2, 3, 4)]
    bench.submit(rows)
    spans = bench.finish()
    assert spans.start.tolist() == [0, 30, 0, 10, 20, 130]
    assert spans.end.tolist() == [25, 130, 10, 20, 30, 140]


@st.composite
def graphs(draw):
    """Timed tasks on two streams with random earlier dependencies."""
    n = draw(st.integers(1, 25))
    rows = []
    for i in range(n):
        deps = sorted(draw(st.sets(st.integers(0, i - 1), max_size=2))) if i else []
        if i and draw(st.booleans()):
            deps = [i - 1]
        rows.append((Kind.TIMED, draw(st.integers(0, 1)), draw(st.integers(0, 5)), -1, deps))
    return rows


@given(graphs())
@settings(max_examples=150, deadline=None)
def test_law_5_runs_equal_stepping(rows):
    """Merged runs give what task-by-task execution gives (a batch with an on_done hook is never merged)."""
    results = []
    for hook in (None, lambda task: None):
        bench = Bench()
        for name in ("compute", "copy"):
            bench.executor.stream(0, name)
        bench.submit(rows, on_done=hook)
        spans = bench.finish()
        results.append((spans.start.tolist(), spans.end.tolist(), spans.ready.tolist()))
    assert results[0] == results[1]


@given(graphs())
@settings(max_examples=100, deadline=None)
def test_law_2_nothing_starts_before_its_dependencies_nor_overlaps_on_a_stream(rows):
    bench = Bench()
    for name in ("compute", "copy"):
        bench.executor.stream(0, name)
    bench.submit(rows)
    spans = bench.finish()
    for i, row in enumerate(rows):
        assert spans.end[i] == spans.start[i] + row[2]
        assert spans.start[i] >= spans.ready[i] == max((spans.end[d] for d in row[4]), default=0)
    for stream in (0, 1):
        mine = sorted((spans.start[i], spans.end[i]) for i, row in enumerate(rows) if row[1] == stream)
        assert all(a[1] <= b[0] for a, b in pairwise(mine))


def test_tasks_that_arrive_while_it_runs():
    """A server beside a replay: each end of its task submits the next; law 6: the other workload does not notice."""

    def replay(bench):
        s = bench.executor.stream(0, "compute")
        return bench.submit([(Kind.TIMED, s, 7, -1, [])] + [(Kind.TIMED, s, 7, -1, [i]) for i in range(9)])

    alone = Bench()
    replay(alone)
    expected = alone.finish()
    bench = Bench()
    first = replay(bench)
    server = bench.executor.stream(1, "compute")
    served = []

    def serve(task):
        served.append(bench.clock.now)
        if len(served) < 4:
            bench.submit([(Kind.TIMED, server, 11, -1, [])], on_done=serve)

    bench.submit([(Kind.TIMED, server, 11, -1, [])], on_done=serve)
    spans = bench.finish()
    assert served == [11, 22, 33, 44]
    assert spans.start[first : first + 10].tolist() == expected.start.tolist()
    assert spans.end[first : first + 10].tolist() == expected.end.tolist()


def _collective_rows(bench, members, size=1000, key=0, operation="all_reduce"):
    call = CollectiveCall(("g", key), operation, size, members)
    return [(Kind.COLLECTIVE, bench.executor.stream(m, "comm", in_order=True), 0, i, []) for i, m in enumerate(members)], [
        call
    ] * len(members)


def test_a_collective_starts_when_the_last_member_has_come():
    bench = Bench()
    rows, calls = _collective_rows(bench, (0, 1, 2))
    late = [(Kind.TIMED, bench.executor.stream(2, "compute"), 5_000_000, -1, [])]
    rows[2] = (*rows[2][:4], [3])
    bench.submit(rows + late, calls)
    spans = bench.finish()
    assert spans.start.tolist()[:3] == [0, 0, 5_000_000]
    assert len(set(spans.end.tolist()[:3])) == 1
    only = bench.recorder.collectives[0]
    assert (only.first_ps, only.start_ps, only.end_ps) == (0, 5_000_000, int(spans.end[0]))


def test_in_order_streams_hold_back_what_is_behind():
    bench = Bench()
    s, other = bench.executor.stream(0, "named", in_order=True), bench.executor.stream(0, "compute")
    bench.submit([(Kind.TIMED, other, 50, -1, []), (Kind.TIMED, s, 10, -1, [0]), (Kind.TIMED, s, 10, -1, [])])
    spans = bench.finish()
    assert spans.start.tolist() == [0, 50, 60]


def test_messages_pair_in_order_and_late_receives_end_at_once():
    bench = Bench()
    send, calls = bench.executor.stream(0, "send to 1"), [MessageCall(0, 1, 7, 1000)]
    wait = bench.executor.stream(1, "compute")
    rows = [(Kind.SEND, send, 0, 0, []), (Kind.RECEIVE, -1, 0, 0, []), (Kind.SEND, send, 0, 0, [0]),
            (Kind.TIMED, wait, 10**9, -1, []), (Kind.RECEIVE, -1, 0, 0, [3])]  # fmt: skip
    bench.submit(rows, calls)
    spans = bench.finish()
    trip = 2_000_000 + 1_000_000  # two hops of 1 us, 1000 B at 1 GB/s
    assert spans.end[0] == spans.end[1] == trip
    assert spans.end[4] == spans.start[4] == 10**9


def test_deadlock_names_who_waits_and_who_never_came():
    bench = Bench()
    rows, calls = _collective_rows(bench, (0, 1, 2))
    bench.submit(rows[:2], calls[:2])
    with pytest.raises(DeadlockError, match=r"ranks 0, 1 wait in all_reduce.*rank 2 never came"):
        bench.finish()
    bench = Bench()
    bench.submit([(Kind.RECEIVE, -1, 0, 0, [])], [MessageCall(0, 1, 7, 1000)])
    with pytest.raises(DeadlockError, match="rank 1 waits for a message of 1000 bytes from rank 0 with tag 7"):
        bench.finish()


def test_members_must_agree():
    bench = Bench()
    rows, _ = _collective_rows(bench, (0, 1))
    calls = [CollectiveCall(("g", 0), "all_reduce", 1000, (0, 1)), CollectiveCall(("g", 0), "all_reduce", 999, (0, 1))]
    with pytest.raises(CollectiveError, match=r"bytes 1000.*bytes 999"):
        bench.submit(rows, calls)
        bench.finish()
    bench = Bench()
    send = bench.executor.stream(0, "send")
    with pytest.raises(TraceError, match=r"1000 bytes .* wants 999 bytes"):
        bench.submit(
            [(Kind.SEND, send, 0, 0, []), (Kind.RECEIVE, -1, 0, 1, [])], [MessageCall(0, 1, 0, 1000), MessageCall(0, 1, 0, 999)]
        )
        bench.finish()


def test_a_dependency_cycle_of_two_communicators_is_a_deadlock():
    """Rank 0 enters a then b, rank 1 enters b then a, each pair on one in-order stream."""
    bench = Bench()
    a, b = CollectiveCall(("g", 0), "all_reduce", 8, (0, 1)), CollectiveCall(("h", 0), "all_reduce", 8, (0, 1))
    s0, s1 = bench.executor.stream(0, "comm", in_order=True), bench.executor.stream(1, "comm", in_order=True)
    bench.submit(
        [
            (Kind.COLLECTIVE, s0, 0, 0, []),
            (Kind.COLLECTIVE, s0, 0, 1, []),
            (Kind.COLLECTIVE, s1, 0, 1, []),
            (Kind.COLLECTIVE, s1, 0, 0, []),
        ],
        [a, b],
    )
    with pytest.raises(DeadlockError, match="4 tasks can never finish"):
        bench.finish()


def test_durations_may_add_up_beyond_the_clock_over_all_ranks():
    """40 devices with 10 days each: no device comes near 2^62 ps, their sum does."""
    bench = Bench()
    day = 86_400 * 10**12
    rows = []
    for device in range(40):
        s = bench.executor.stream(device, "compute")
        rows += [(Kind.TIMED, s, 5 * day, -1, []), (Kind.TIMED, s, 5 * day, -1, [len(rows)])]
    bench.submit(rows)
    spans = bench.finish()
    assert set(spans.end.tolist()) == {5 * day, 10 * day}
