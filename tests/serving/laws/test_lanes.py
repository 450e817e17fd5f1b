"""Attention data parallelism: lanes that step together keep the laws, stepped and fast-forwarded alike."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.kernel.clock import Clock
from distsim.serving.deployment import Deployment
from distsim.serving.fleet import Pool, make_replicas, make_times
from distsim.serving.log import IterationLog
from distsim.serving.requests.table import requests_of
from distsim.serving.routers.round_robin import RoundRobin
from distsim.serving.service import Service

DEPLOYMENT = Deployment(model="qwen3-30b-a3b", gpu="h100_sxm", tp=1, dp=2, ep=2)
TIMES = make_times(Pool(deployment=DEPLOYMENT), None)


def run(rows, stepped, blocks=40):
    pool = Pool(deployment=DEPLOYMENT, kv_blocks=blocks, scheduler="vllm_v1:max_num_batched_tokens=64,max_num_seqs=4")
    gaps, prompts, outputs = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    table = requests_of(np.cumsum(gaps) * 1_000_000_000, prompts, outputs)
    clock, log = Clock(), IterationLog()
    service = Service(clock, table, RoundRobin(RoundRobin.Params(), np.random.default_rng(0)))
    replicas = make_replicas(pool, 2, 0, clock, log, service.ended, TIMES, stepped=stepped)
    service.start(replicas)
    clock.run()
    return service, replicas


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 200), st.integers(1, 120)), min_size=1, max_size=24))
def test_law_5_fast_forwarded_equals_stepped(rows):
    fast, replicas = run(rows, False)
    slow, _ = run(rows, True)
    assert fast.finished == len(rows)
    for a, b in zip(fast.requests, slow.requests, strict=True):
        assert (a.scheduled, a.first, a.completed) == (b.scheduled, b.first, b.completed)
        assert (a.restarts, a.lane) == (b.restarts, b.lane)
    for replica in replicas:
        assert replica.scheduler.kv.free == replica.scheduler.kv.total
        assert replica.outstanding == 0


def test_an_idle_lane_takes_an_arrival_while_the_other_generates():
    service, (first, _) = run([(0, 16, 100), (0, 16, 100), (5, 16, 100)], False)
    assert [r.lane for r in service.requests] == [0, 0, 1]
    assert service.requests[0].replica == service.requests[2].replica == first.number
    assert service.requests[2].first < service.requests[0].completed


def test_ranks_that_step_together_take_as_long_as_the_slowest():
    alone = TIMES.group_steady([(8, 8000, 1000), None])[0]
    both = TIMES.group_steady([(8, 8000, 1000), (1, 100, 100)])[0]
    even = TIMES.group_steady([(8, 8000, 1000), (8, 8000, 1000)])[0]
    assert alone <= both <= even
