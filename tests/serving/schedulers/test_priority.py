"""Classes of priority: order, who gives way, and what aging promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import crowds, drive, run, scheduler_of

from distsim.errors import ConfigError
from distsim.serving.request import Request


def begun(scheduler, requests):
    """Row -> iteration in which it was first computed."""
    first = {}
    for at, (batch, _, _) in enumerate(drive(scheduler, requests)):
        for request, _ in batch.prefills:
            first.setdefault(request.row, at)
    return first


def test_the_smaller_class_goes_first_and_the_earlier_within_it():
    rows = [(0, 0, 0), (1, 1, 2), (2, 1, 1), (3, 2, 1), (4, 3, 0)]
    requests = [Request(row, at, 10, 5, priority=priority) for row, at, priority in rows]
    seen = begun(scheduler_of("priority:max_num_seqs=1", 100), requests)
    assert sorted(seen, key=seen.get) == [0, 4, 2, 3, 1]


def test_the_last_class_gives_way_though_it_came_first():
    """Six blocks; the low one came first and is served first in every iteration, and goes when the high one needs a block."""
    low, high = Request(0, 0, 40, 30, priority=1), Request(1, 1, 44, 30, priority=0)
    scheduler = scheduler_of("priority", 6, hashed=False)
    run(scheduler, [low, high])
    assert (low.restarts, high.restarts) == (1, 0)
    assert high.completed < low.completed
    same = [Request(0, 0, 40, 30), Request(1, 1, 44, 30)]
    run(scheduler_of("vllm_v1", 6, hashed=False), same)
    assert [one.restarts for one in same] == [0, 1]


def test_who_needs_the_blocks_and_is_last_goes_and_ends_the_row():
    """As in vLLM: those behind the victim are not served in that iteration."""
    scheduler = scheduler_of("priority", 7, hashed=False)
    requests = [Request(0, 0, 30, 30, priority=1), Request(1, 0, 33, 30, priority=0), Request(2, 0, 20, 30, priority=0)]
    seen = [sorted(planned) for _, planned, _ in drive(scheduler, requests)]
    gone = next(at for at, rows in enumerate(seen) if at and 0 in seen[at - 1] and 0 not in rows)
    assert requests[0].restarts == 1
    assert seen[gone - 1] == [0, 1, 2]
    assert set(seen[gone]) < {1, 2} or seen[gone] == [1, 2]


@pytest.mark.parametrize(("preempt", "first"), [("false", [0, 1, 2]), ("true", [0, 2, 1])])
def test_lower_classes_make_room_for_the_first_in_line_if_told_to(preempt, first):
    requests = [Request(0, 0, 60, 60, priority=2), Request(1, 1, 40, 20, priority=1), Request(2, 2, 60, 20, priority=0)]
    scheduler = scheduler_of(f"priority:preempt={preempt},max_num_seqs=1", 12, hashed=False)
    seen = begun(scheduler, requests)
    if preempt == "true":  # each in turn puts out the one before it
        assert seen == {0: 0, 1: 1, 2: 2}
        assert [one.restarts for one in requests] == [1, 1, 0]
        assert requests[2].completed < requests[1].completed < requests[0].completed
    else:
        assert seen[1] > seen[2] > seen[0]
        assert scheduler.preemptions == 0


def test_equal_classes_never_make_room():
    requests = [Request(0, 0, 60, 30), Request(1, 1, 60, 30)]
    scheduler = scheduler_of("priority:preempt=true,max_num_seqs=1", 12, hashed=False)
    run(scheduler, requests)
    assert scheduler.preemptions == 0


def test_nobody_is_put_out_in_vain():
    """The low one holds too little: the first in line waits for the middle one of its own class."""
    requests = [Request(0, 0, 100, 20, priority=0), Request(1, 0, 20, 20, priority=1), Request(2, 1, 90, 20, priority=0)]
    scheduler = scheduler_of("priority:preempt=true", 12, hashed=False)
    run(scheduler, requests)
    assert requests[1].restarts == 0


def late(aging):
    """One of class 1 comes at once, and one of class 0 in every iteration."""
    requests = [Request(0, 0, 10, 4, priority=0), Request(1, 0, 10, 4, priority=1)]
    requests += [Request(row, row, 10, 4, priority=0) for row in range(2, 60)]
    scheduler = scheduler_of("priority:max_num_seqs=1", 100)
    scheduler._aging = aging
    seen = begun(scheduler, requests)
    return sorted(seen, key=seen.get).index(1)


def test_strict_classes_starve_and_aging_ends_it():
    assert late(0) == 59
    assert late(10) == 9  # behind row 0, and behind those that came before 10
    assert late(1) == 1


@settings(max_examples=50, deadline=None)
@given(make=crowds(), aging=st.integers(1, 30))
def test_nobody_waits_for_those_that_came_a_class_later(make, aging):
    requests = [one for one in make() if one.prompt + one.output < 160]
    scheduler = scheduler_of("priority:max_num_seqs=1", 20, hashed=False)
    scheduler._aging = aging
    seen = begun(scheduler, requests)
    for one in requests:
        for other in requests:
            if other.arrival > one.arrival + (one.priority - min(other.priority, one.priority)) * aging:
                assert seen[one.row] <= seen[other.row]


def test_swapping_is_refused():
    with pytest.raises(ConfigError, match="knows no classes"):
        scheduler_of("priority:preemption=swap", 10)


def test_a_long_queue_is_kept_in_order():
    rng = np.random.default_rng(3)
    scheduler = scheduler_of("priority:max_num_seqs=1", 100)
    for row, priority in enumerate(rng.integers(0, 5, 500)):
        scheduler.enqueue(Request(row, row, 10, 10, priority=int(priority)))
    ranks = [scheduler.rank(one) for one in scheduler.waiting]
    assert ranks == sorted(ranks)
