"""Pipeline timing: bubbles equal to the published formulas, transfers, unequal stages, deadlocks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError, DeadlockError
from distsim.workload.training.schedules import pipeline
from distsim.workload.training.schedules.slot import BW, B, F, Slot, W
from distsim.workload.training.timing import run, schedule_run

durations = {"f": st.integers(0, 50), "b": st.integers(0, 50), "w": st.integers(0, 50)}


def equal(schedule, chunks, f, b, w):
    """Times of chunks that are alike; B is whole where the schedule does not split it."""
    times = {}
    for chunk in range(chunks):
        times |= {(F, chunk): f, (B, chunk): b if schedule.splits_backward else b + w, (W, chunk): w}
    return times


def idle(name, stages, virtual, micro_batches, f, b, w):
    """(simulated idle time, alike on all stages; the formula's). f, b, w: per chunk."""
    schedule = pipeline(name)
    timeline = schedule_run(schedule, stages, virtual, micro_batches, equal(schedule, stages * virtual, f, b, w))
    assert len(set(timeline.idle)) == 1
    return timeline.idle[0], schedule.bubble(stages, virtual, f * virtual, b * virtual, w * virtual)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(("gpipe", "1f1b")), stages=st.integers(1, 12), micro_batches=st.integers(1, 30), **durations)
def test_bubble_of_gpipe_and_1f1b_is_the_formula_always(name, stages, micro_batches, f, b, w):
    simulated, formula = idle(name, stages, 1, micro_batches, f, b, w)
    assert simulated == formula == (stages - 1) * (f + b + w)


@settings(max_examples=60, deadline=None)
@given(stages=st.integers(1, 8), virtual=st.integers(1, 4), more=st.integers(0, 20), **durations)
def test_bubble_of_interleaved_is_the_formula_from_pp_micro_batches_on(stages, virtual, more, f, b, w):
    simulated, formula = idle("interleaved", stages, virtual, stages + more, f, b, w)
    assert simulated == formula == (stages - 1) * (f + b + w)  # of a chunk: 1 / virtual of the stage


@settings(max_examples=60, deadline=None)
@given(stages=st.integers(1, 12), more=st.integers(0, 20), **durations)
def test_bubble_of_zb_h1_is_the_formula_where_w_is_shortest(stages, more, f, b, w):
    w = min(w, b, f)
    simulated, formula = idle("zb_h1", stages, 1, stages + more, f, b, w)
    whole = b + w
    assert simulated == formula == (stages - 1) * (f + whole - 2 * w)


@settings(max_examples=60, deadline=None)
@given(half=st.integers(1, 6), more=st.integers(0, 10), **durations)
def test_bubble_of_dualpipe_is_the_formula_where_b_is_longest(half, more, f, b, w):
    f, w, stages = min(f, b), min(w, b), 2 * half
    simulated, formula = idle("dualpipe", stages, 1, 2 * stages + 2 * more, f, b, w)
    pair, whole = f + b + w, b + w
    assert simulated == formula == (half - 1) * (pair + whole - 3 * w)


def test_bubbles_in_the_order_of_the_papers():
    found = {
        name: idle(name, 8, 2 if name == "interleaved" else 1, 32, *((5, 5, 5) if name == "interleaved" else (10, 10, 10)))[0]
        for name in ("gpipe", "1f1b", "interleaved", "zb_h1", "dualpipe")
    }
    assert found == {"gpipe": 210, "1f1b": 210, "interleaved": 105, "zb_h1": 70, "dualpipe": 60}


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(("gpipe", "1f1b", "zb_h1", "interleaved")),
    stages=st.integers(2, 6), micro_batches=st.integers(1, 16), p2p=st.integers(0, 20), seed=st.integers(0, 99),
)  # fmt: skip
def test_law_3_bounds(name, stages, micro_batches, p2p, seed):
    """Never faster than the busiest stage, nor than one micro-batch from end to end; transfers never help; blocking neither."""
    schedule = pipeline(name)
    times = {key: 1 + (seed * 31 + at * 17) % 13 for at, key in enumerate(sorted(equal(schedule, stages, 1, 1, 1)))}
    quick, late, held = (
        schedule_run(schedule, stages, 1, micro_batches, times, *rest, blocking=blocking)
        for rest, blocking in (((), False), ((p2p,), False), ((p2p,), True))
    )
    assert quick.makespan <= late.makespan <= held.makespan
    chain = sum(times[phase, chunk] for phase in (F, B) for chunk in range(stages)) + 2 * (stages - 1) * p2p
    assert late.makespan >= chain
    for stage in range(stages):
        work = micro_batches * sum(times[p, stage] for p in ((F, B, W) if schedule.splits_backward else (F, B)))
        assert late.idle[stage] == late.makespan - work >= 0


def test_p2p_of_one_micro_batch_is_paid_on_every_hop():
    schedule = pipeline("1f1b")
    assert schedule_run(schedule, 4, 1, 1, equal(schedule, 4, 10, 15, 5), p2p=7).makespan == 4 * 30 + 6 * 7


def test_blocking_sends_hold_up_the_sender():
    orders = [[Slot(F, 0, 0), Slot(F, 1, 0)], [Slot(F, 0, 1), Slot(F, 1, 1)]]
    times = {(F, 0): 10, (F, 1): 10}
    assert run(orders, [(0, 1)] * 2, times, 4).start == [[0, 10], [14, 24]]
    assert run(orders, [(0, 1)] * 2, times, 4, blocking=True).start == [[0, 14], [14, 28]]


def test_a_slow_stage_sets_the_pace():
    schedule = pipeline("1f1b")
    usual = equal(schedule, 4, 10, 10, 10)
    slow = {key: value + value // 10 for key, value in usual.items()}
    timeline = schedule_run(schedule, 4, 1, 64, [usual, usual, slow, usual])
    assert timeline.idle[2] < min(timeline.idle[0], timeline.idle[1], timeline.idle[3])
    assert 64 * 33 < timeline.makespan <= 64 * 33 + 3 * 33  # it never waits once it is fed


def test_whole_backward_may_have_a_time_of_its_own():
    times = {(F, 0): 1, (BW, 0): 7}
    orders = [[Slot(F, 0, 0), Slot(BW, 0, 0)]]
    assert run(orders, [(0,)], times).makespan == 8


def test_a_pair_starts_when_both_can_and_leaves_together():
    # stage 1 runs F of micro-batch 1 beside BW of micro-batch 0, which stage 2 sends late
    orders = [
        [Slot(F, 0, 0), Slot(F, 1, 0)],
        [Slot(F, 0, 1), Slot(F, 1, 1), Slot(BW, 0, 1)],
        [Slot(F, 0, 2), Slot(BW, 0, 2), Slot(F, 1, 2)],
    ]
    times = {(phase, chunk): 10 for phase in (F, B, W) for chunk in range(3)}
    timeline = run(orders, [(0, 1, 2)] * 2, times)
    assert timeline.start[1] == [10, 50, 60]
    assert timeline.start[2] == [20, 30, 80]


class TestRefused:
    TIMES = {(phase, chunk): 1 for phase in (F, B, W) for chunk in range(2)}  # noqa: RUF012

    def test_deadlock_names_stages_and_slots(self):
        orders = [[Slot(F, 0, 0), Slot(B, 1, 0), Slot(F, 1, 0), Slot(B, 0, 0)], [Slot(F, 0, 1), Slot(B, 0, 1)]]
        with pytest.raises(DeadlockError, match=r"1 of 2 .* stage 0 at B of micro-batch 1, chunk 0"):
            run(orders, [(0, 1)] * 2, self.TIMES)

    def test_deadlock_across_stages(self):
        orders = [[Slot(F, 0, 0), Slot(F, 1, 0)], [Slot(F, 1, 1), Slot(F, 0, 1)]]
        run(orders, [(0, 1)] * 2, self.TIMES)
        orders = [[Slot(F, 0, 0), Slot(B, 0, 0), Slot(F, 1, 0)], [Slot(F, 1, 1), Slot(F, 0, 1), Slot(B, 0, 1)]]
        with pytest.raises(DeadlockError, match="2 of 2"):
            run(orders, [(0, 1)] * 2, self.TIMES)

    def test_weights_before_their_backward(self):
        with pytest.raises(DeadlockError, match="W of micro-batch 0"):
            run([[Slot(F, 0, 0), Slot(W, 0, 0), Slot(B, 0, 0)]], [(0,)], self.TIMES)

    @pytest.mark.parametrize(
        ("orders", "what"),
        [
            ([[Slot(F, 0, 0), Slot(F, 0, 0)]], "stage 0 runs F of micro-batch 0, chunk 0 twice"),
            ([[Slot(F, 0, 1)]], "not of stage 0"),
            ([[Slot(F, 9, 0)]], "not of stage 0"),
            ([[Slot("X", 0, 0)]], "unknown phase 'X'"),
        ],
    )
    def test_slots_that_cannot_be(self, orders, what):
        with pytest.raises(ConfigError, match=what):
            run(orders, [(0,)], self.TIMES)

    @pytest.mark.parametrize("times", [{(F, 0): 1}, {(F, 0): 1, (B, 0): -1}])
    def test_no_time_or_a_negative_one(self, times):
        with pytest.raises(ConfigError, match="no time for B of chunk 0"):
            run([[Slot(F, 0, 0), Slot(B, 0, 0)]], [(0,)], times)
