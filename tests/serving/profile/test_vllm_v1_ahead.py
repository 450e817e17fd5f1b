"""vLLM V1 as it runs today: iterations decided one ahead, prompts admitted whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_tables import profile

from distsim.kernel.clock import Clock
from distsim.serving.fleet import make_scheduler
from distsim.serving.iteration import Shape
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.requests.table import requests_of
from distsim.serving.routers.round_robin import RoundRobin
from distsim.serving.service import Service
from distsim.serving.times.profile import ProfileTimes


class Ticks:
    """Every iteration takes 100 ps."""

    stages = 1

    def times(self, shape: Shape) -> tuple[int, ...]:
        return (100,)

    def steady(self, sequences: int, kv: int, longest: int) -> tuple[int, int]:
        return 100, 1 << 30


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return ProfileTimes(str(profile(tmp_path_factory.mktemp("profile"))), "llama3-8b")


def run(rows, *, options="", blocks=100, times=None, stepped=False):
    """rows: (arrival, prompt, output) or with hashes. Returns requests and scheduler, all requests served."""
    rows = sorted(rows, key=lambda row: row[0])
    columns = [np.array([row[at] for row in rows], np.int64) for at in range(3)]
    hashes = {at: row[3] for at, row in enumerate(rows) if len(row) > 3}
    clock = Clock()
    scheduler = make_scheduler(f"vllm_v1:max_num_batched_tokens=64,{options}", blocks, 1, 16 if hashes else 0)
    service = Service(clock, requests_of(*columns, hashes=hashes), RoundRobin(RoundRobin.Params(), np.random.default_rng(0)))
    service.start([Replica(0, clock, scheduler, times or Ticks(), IterationLog(), service.ended, stepped)])
    clock.run()
    assert scheduler.kv.used == 0
    assert scheduler.idle
    return service.requests, scheduler


def test_who_comes_during_an_iteration_is_in_the_one_after_the_next():
    rows = [(0, 16, 10), (150, 16, 1)]
    (_, late), _ = run(rows, options="ahead=false")
    assert (late.scheduled, late.first) == (200, 300)
    (_, late), _ = run(rows, options="ahead=true")
    assert (late.scheduled, late.first) == (300, 400)


def test_an_idle_replica_decides_at_once():
    for options in ("ahead=false", "ahead=true"):
        (first, second), _ = run([(0, 16, 2), (1000, 16, 2)], options=options)
        assert (first.first, first.completed) == (100, 200)
        assert (second.first, second.completed) == (1100, 1200)


def test_nobody_waits_where_nothing_was_decided_ahead():
    (_, late), _ = run([(0, 16, 2), (150, 16, 1)], options="ahead=true")  # all are done at 200
    assert late.first == 300


@pytest.mark.parametrize(("options", "blocks"), [("max_num_seqs=2", 100), ("max_num_seqs=8", 5)])
def test_seats_and_blocks_come_free_for_the_iteration_after_the_next(options, blocks):
    """Seats for two, or blocks for two: the third waits for the first, while the second keeps no iteration empty."""
    rows = [(0, 30, 3), (0, 30, 20), (0, 30, 3)]
    (_, _, third), _ = run(rows, options=f"{options},ahead=false", blocks=blocks)
    assert third.scheduled == 300
    (_, _, third), _ = run(rows, options=f"{options},ahead=true", blocks=blocks)
    assert third.scheduled == 400


def test_a_prompt_is_admitted_only_where_all_of_it_fits():
    """Eight blocks: 16 + 30 tokens hold three in the end, a prompt of 112 needs seven, its first chunk of 64 four."""
    rows = [(0, 16, 30), (1, 112, 2)]
    (_, second), scheduler = run(rows, options="whole_prompt=true", blocks=8)
    assert scheduler.preemptions == 0
    whole = second.scheduled
    (_, second), scheduler = run(rows, options="whole_prompt=false", blocks=8)
    assert second.scheduled < whole
    assert scheduler.preemptions > 0


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3000), st.integers(1, 150), st.integers(1, 60), st.lists(st.integers(0, 5), max_size=4)),
        min_size=1, max_size=12,
    ),
    blocks=st.integers(14, 40), seats=st.integers(1, 6), whole=st.booleans(),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_law_5_fast_forwarded_is_stepped(measured, rows, blocks, seats, whole):
    """Numbers of blocks stand for a chain: made one by counting them on."""
    rows = [(at, prompt, output, [10 * level + number for level, number in enumerate(sorted(numbers))][: prompt // 16])
            for at, prompt, output, numbers in rows]  # fmt: skip
    options = f"ahead=true,max_num_seqs={seats},whole_prompt={str(whole).lower()}"
    for times, scale in ((Ticks(), 1), (measured, 10**7)):
        scaled = [(at * scale, *rest) for at, *rest in rows]
        fast, _ = run(scaled, options=options, blocks=blocks, times=times)
        slow, _ = run(scaled, options=options, blocks=blocks, times=times, stepped=True)
        for one, other in zip(fast, slow, strict=True):
            assert (one.scheduled, one.first, one.completed, one.restarts, one.cached) == (
                other.scheduled, other.first, other.completed, other.restarts, other.cached,
            )  # fmt: skip
            assert one.completed >= one.first >= one.scheduled >= one.arrival
