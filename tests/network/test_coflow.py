"""Coflows: closed forms, exact times where nothing meets, capacity, the order of equals, classes as their sums."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.network.coflow import FULL, LINK, Coflow, Coflows, demands_of
from distsim.network.model import NEVER


def ends(links, *started):
    """End of each of (at, coflow), started in order of time."""
    network, found, numbers = Coflows(links), {}, {}
    waiting = sorted(enumerate(started), key=lambda one: one[1][0])
    while True:
        limit = waiting[0][1][0] if waiting else NEVER - 1
        at, finished = network.run_until(limit)
        for number in finished:
            found[numbers[number]] = at
        if not finished:
            if not waiting:
                return [found[i] for i in range(len(started))]
            while waiting and waiting[0][1][0] == limit:
                i, (_, coflow) = waiting.pop(0)
                numbers[network.start(coflow, limit)] = i


def whole(alone, *links):
    return Coflow(alone, tuple((link, LINK) for link in links))


def test_one_alone_takes_its_time():
    assert ends(1, (7, whole(1_000_003, 0))) == [1_000_010]
    assert ends(0, (5, Coflow(0)), (5, Coflow(9))) == [5, 14]


def test_two_on_one_link_are_halved():
    assert ends(1, (0, whole(1000, 0)), (0, whole(1000, 0))) == [2000, 2000]
    # the shorter is done at 600; by then the longer has done 300 of 1000, and goes on at full speed
    assert ends(1, (0, whole(300, 0)), (0, whole(1000, 0))) == [600, 1300]


def test_one_that_comes_later_takes_half_from_then_on():
    assert ends(1, (0, whole(1000, 0)), (600, whole(1000, 0))) == [1400, 2000]


def test_what_leaves_room_slows_nobody():
    half = Coflow(1001, ((0, LINK // 2),))
    assert ends(1, (0, half), (0, half)) == [1001, 1001]
    assert ends(1, (0, half), (0, half), (0, half)) == [1502, 1502, 1502]  # 3/2 of the link: 1501.5


def test_all_on_a_full_link_are_slowed_alike():
    # 0.2 + 1.0 of a link: both at 1 / 1.2
    assert ends(1, (0, Coflow(1000, ((0, LINK // 5),))), (0, whole(1000, 0))) == [1200, 1200]


def test_filling_goes_on_where_there_is_room():
    # two on link 0; one of them and a third, which takes what is left, on link 1
    a, b, c = whole(1000, 0), whole(1000, 0, 1), whole(1500, 1)
    network = Coflows(2)
    for one in (a, b, c):
        network.start(one, 0)
    assert list(network.speeds().values()) == pytest.approx([0.5, 0.5, 0.5])
    thin = Coflow(1000, ((1, LINK // 4),))
    network = Coflows(2)
    for one in (a, b, thin):
        network.start(one, 0)
    assert list(network.speeds().values()) == [0.5, 0.5, 1.0]


def test_a_class_that_is_more_than_its_link_is_slowed_by_itself():
    assert ends(1, (0, Coflow(1000, ((0, 3 * LINK),)))) == [3000]


def test_demands():
    assert demands_of([500.0, 0.0], [1e9, 1e9], 1_000_000) == ((0, LINK // 2),)
    assert demands_of([2000.0, 1000.0], [1e9, 1e9], 1_000_000) == ((0, LINK), (1, LINK // 2))  # faster than its links: scaled


def test_bad_times_are_refused():
    network = Coflows(1)
    network.run_until(100)
    with pytest.raises(ConfigError, match="cannot start at 99 ps"):
        network.start(whole(1, 0), 99)
    with pytest.raises(ConfigError, match="cannot start"):
        network.start(Coflow(NEVER), 100)


LINKS = 4
coflows = st.builds(
    lambda alone, parts: Coflow(alone, tuple((link, LINK * part // 8) for link, part in parts.items())),
    st.integers(0, 10_000), st.dictionaries(st.integers(0, LINKS - 1), st.integers(1, 8), max_size=3),
)  # fmt: skip
started = st.lists(st.tuples(st.integers(0, 8000), coflows), min_size=1, max_size=12)


@given(jobs=started)
@settings(max_examples=150)
def test_law_3_no_link_carries_more_than_it_can_and_no_coflow_is_faster_than_alone(jobs):
    network = Coflows(LINKS)
    for _, one in jobs:
        network.start(one, 0)
    assert max(network.load()) <= 1 + 1e-12
    speeds = network.speeds()
    assert all(0 < speed <= 1 for speed in speeds.values())
    load = network.load()
    for number, (_, one) in enumerate(jobs):  # max-min: who is slowed crosses a full link on which nobody is faster
        if speeds[number] < 1:
            assert any(
                load[link] > 1 - 1e-6
                and speeds[number] >= max(speeds[i] for i, (_, c) in enumerate(jobs) if link in dict(c.demands)) - 1e-9
                for link, _ in one.demands
            )


@given(jobs=started)
@settings(max_examples=150)
def test_law_3_ends_lie_between_alone_and_all_one_after_the_other(jobs):
    found = ends(LINKS, *jobs)
    last = max(at for at, _ in jobs) + sum(one.alone for _, one in jobs)
    for (at, one), end in zip(jobs, found, strict=True):
        assert at + one.alone <= end <= last + len(jobs) + 1


@given(jobs=started, order=st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_law_4_the_order_of_starts_at_one_instant_does_not_matter(jobs, order):
    shuffled = list(range(len(jobs)))
    order.shuffle(shuffled)
    again = ends(LINKS, *(jobs[i] for i in shuffled))
    assert [again[shuffled.index(i)] for i in range(len(jobs))] == ends(LINKS, *jobs)


@given(
    jobs=st.lists(st.tuples(st.integers(0, 8000), coflows, st.integers(1, 5)), min_size=1, max_size=6),
)
@settings(max_examples=100)
def test_law_5_a_class_is_the_sum_of_its_members(jobs):
    """k equal coflows started together on the same links are one with k times the demand."""
    single, summed = [], []
    for at, one, count in jobs:
        single += [(at, one)] * count
        summed.append((at, Coflow(one.alone, tuple((link, count * part) for link, part in one.demands))))
    found = iter(ends(LINKS, *single))
    for (_, _, count), end in zip(jobs, ends(LINKS, *summed), strict=True):
        assert {next(found) for _ in range(count)} == {end}


def test_full_speed_is_exact():
    assert FULL == 1 << 30
    alone = 123_456_789_012_345
    assert ends(1, (17, whole(alone, 0))) == [17 + alone]
