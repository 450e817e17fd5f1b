"""Under random loads, of every policy: tokens come out exactly once, nobody is in two batches, blocks and seats are accounted
for, budgets hold, and whoever was accepted is served to the end."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.kernel.clock import Clock
from distsim.registry import lookup, names
from distsim.serving.fleet import make_scheduler
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.requests.table import requests_of
from distsim.serving.service import Service

MANY = 100_000  #: events: more than any of these loads takes
LIMITS = ("max_num_seqs", "max_tokens", "max_num_batched_tokens", "chunk", "max_len")


class Times:
    """As many ps as tokens, and a few."""

    def __init__(self, stages):
        self.stages = stages

    def times(self, shape):
        return (3 + shape.tokens,) * self.stages

    def steady(self, sequences, kv, longest):
        return 3 + sequences, 1 << 40


class Watched:
    """A scheduler whose batches are looked at on their way out and back."""

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.emitted, self.running = Counter(), set()
        self._next, self._finish = scheduler.next_batch, scheduler.finish
        scheduler.next_batch, scheduler.finish = self.next_batch, self.finish

    def next_batch(self):
        batch, scheduler = self._next(), self.scheduler
        assert 0 <= scheduler.kv.free <= scheduler.kv.total
        if batch is None:
            self.nothing_is_lost()
            return None
        rows = [request.row for request in batch.requests]
        assert rows
        assert len(set(rows)) == len(rows)
        assert not self.running & set(rows)
        self.running |= set(rows)
        assert all(0 < new <= request.prefill - request.computed for request, new in batch.prefills)
        assert len(rows) <= getattr(scheduler.params, "max_num_seqs", 1 << 40)
        assert batch.shape().tokens <= getattr(scheduler.params, "max_num_batched_tokens", 1 << 40)
        return batch

    def finish(self, batch, count, now):
        requests = batch.requests
        before = [left_of(request) for request in requests]
        done = self._finish(batch, count, now)
        for request, left in zip(requests, before, strict=True):
            self.emitted[request.row] += left - left_of(request)
        self.running -= {request.row for request in requests}
        return done

    def nothing_is_lost(self):
        """While no batch is in flight, every block and seat belongs to somebody that the scheduler knows."""
        scheduler = self.scheduler
        if self.running or scheduler.reserves or scheduler.kv.shares:
            return
        held = sum(-(-scheduler.pool.computed(one) // scheduler.kv.block) for one in scheduler.pool.members)
        assert scheduler.kv.used == held + sum(one.blocks for one in scheduler.prefilling)
        assert scheduler.in_flight == 0


def left_of(request):
    return request.left if request.cohort is None else request.cohort.left(request)


@st.composite
def loads(draw):
    count = draw(st.integers(1, 16))
    longest, most = draw(st.sampled_from([(1, 1), (5, 70), (90, 5), (200, 60)]))
    gaps, prompts, outputs = (
        draw(st.lists(values, min_size=count, max_size=count))
        for values in (st.sampled_from([0, 0, 1, 4, 40, 3000]), st.integers(1, longest), st.integers(1, most))
    )
    groups = np.array(draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))
    columns = [np.cumsum(gaps), np.array(prompts), np.array(outputs)]
    table = requests_of(*columns, tenant=groups, priority=groups, names=("a", "b", "c"))
    tight = draw(st.sampled_from([1, 2, 6]))  # caches as large as so many of the longest requests
    return table, longest + most, tight


@pytest.mark.parametrize("name", names("scheduler"))
@settings(max_examples=30, deadline=None)
@given(
    load=loads(), stages=st.integers(1, 3), block=st.sampled_from([1, 16, 64]), seats=st.sampled_from([1, 3, 64]),
    budget=st.sampled_from([1, 8, 64, 4096]), whole=st.booleans(), stepped=st.booleans(),
)  # fmt: skip
def test_what_comes_in_comes_out(name, load, stages, block, seats, budget, whole, stepped):
    table, tokens, tight = load
    fields = lookup("scheduler", name).Params.model_fields
    options = {"max_num_seqs": seats, "max_len": tokens + block, "max_tokens": 4 * tokens, "max_num_batched_tokens": budget}
    options["chunk"] = max(budget, block)
    if fields["block"].default == 16:
        options["block"] = block
    if "whole_prompt" in fields:
        options["whole_prompt"] = str(whole).lower()
    text = ",".join(f"{key}={value}" for key, value in options.items() if key in fields)
    stages = 1 if name == "lightllm" else stages
    clock, router = Clock(), lookup("router", "round_robin")
    service = Service(clock, table, router(router.Params(), np.random.default_rng(0)))
    blocks = tight * -(-(tokens + 64) // (block if "block" in options else fields["block"].default))
    scheduler = make_scheduler(f"{name}:{text}", blocks, stages)
    watched = Watched(scheduler)
    service.start([Replica(0, clock, scheduler, Times(stages), IterationLog(), service.ended, stepped)])

    def watch(now):
        assert clock.events < MANY, "it never ends"

    clock.run(watch=watch, every=1000)
    assert service.unfinished == 0
    assert scheduler.idle
    assert scheduler.kv.used == 0
    for request in service.requests:
        assert watched.emitted[request.row] == (0 if request.reason else request.output)
        assert request.reason or request.arrival <= request.scheduled < request.first <= request.completed
