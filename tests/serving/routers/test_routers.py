"""Routers: what each is for, and that all see replicas as they are at the instant of an arrival."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError, UnknownNameError
from distsim.kernel.clock import LATE, Clock
from distsim.registry import lookup
from distsim.serve import router_of
from distsim.serving.fleet import make_scheduler
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.request import Request
from distsim.serving.requests.table import requests_of
from distsim.serving.service import Service


class Steps:
    """An iteration takes 10 ps, and 1 ps for every token of a prompt."""

    stages = 1

    def times(self, shape):
        return (10 + sum(new for new, _ in shape.prefills),)

    def steady(self, sequences, kv, longest):
        return 10, 1 << 40


def router(text, seed=0):
    return router_of(text, np.random.default_rng(seed))


def served(text, arrival, prompt, output, *, replicas=2, blocks=1000, scheduler="vllm_v1", stepped=False, **columns):
    """Requests by row, and the replicas."""
    table = requests_of(np.array(arrival), np.array(prompt), np.array(output), **columns)
    clock, log = Clock(), IterationLog()
    service = Service(clock, table, router(text))
    hash_block = 16 if table.hashes else 0
    made = [
        Replica(n, clock, make_scheduler(scheduler, blocks, 1, hash_block), Steps(), log, service.ended, stepped)
        for n in range(replicas)
    ]  # fmt: skip
    service.start(made)
    clock.run()
    return service.requests, made


def where(*arguments, **options):
    return [request.replica for request in served(*arguments, **options)[0]]


def test_lor_counts_only_the_queue_and_least_outstanding_everybody():
    arrival, ones = [0, 100, 200, 300], [1] * 4
    assert where("lor", arrival, ones, [500] * 4) == [0, 0, 0, 0]
    assert where("least_outstanding", arrival, ones, [500] * 4) == [0, 1, 0, 1]


def test_power_of_two_takes_the_less_loaded_of_those_it_draws():
    requests = (list(range(400)), [1] * 400, [1000] * 400)
    loads, alone = (where(name, *requests, replicas=8, blocks=4000) for name in ("power_of_two", "random"))
    counts, random = np.bincount(loads, minlength=8), np.bincount(alone, minlength=8)
    assert counts.sum() == random.sum() == 400
    assert np.ptp(counts) <= 4 < np.ptp(random)  # log log n against sqrt(n) (Mitzenmacher)
    everybody = where("power_of_two:choices=8", *requests, replicas=8, blocks=4000)
    assert everybody == where("least_outstanding", *requests, replicas=8, blocks=4000) == [row % 8 for row in range(400)]


def test_kv_aware_weighs_requests_by_their_length():
    arrival, prompt = [0, 100, 20_000, 20_100], [1600, 16, 16, 16]
    assert where("kv_aware", arrival, prompt, [5000] * 4, scheduler="vllm_v1:max_num_batched_tokens=2048") == [0, 1, 1, 1]


def test_sticky_sessions_stay_unless_their_replica_takes_nobody():
    arrival, session = [0, 1, 2, 3, 4, 5], np.array([7, 8, 7, 7, -1, 8])
    assert where("sticky", arrival, [1] * 6, [900] * 6, session=session) == [0, 1, 0, 0, 1, 1]
    one, two = (SimpleNamespace(scheduler=SimpleNamespace(outstanding=count)) for count in (0, 5))
    made = router("sticky")
    assert made.route(Request(0, 0, 1, 1, session=3), [one, two]) is one
    assert made.route(Request(1, 0, 1, 1, session=3), [two]) is two  # the first has failed
    assert made.route(Request(2, 0, 1, 1, session=3), [one, two]) is two  # and is back: the session has moved


def test_prefix_aware_goes_where_the_prompt_is_cached_until_load_forbids_it():
    n = 12
    hashes = {row: [100 + block for block in range(4)] for row in range(n)}
    arrival = [0, *range(1000, 1000 + n - 1)]
    options = {"arrival": arrival, "prompt": [70] * n, "output": [1] + [5000] * (n - 1), "hashes": hashes, "hash_block": 16}
    assert where("prefix_aware", **options) == [0] * n
    spread = where("prefix_aware:absolute=3,relative=1", **options)
    assert spread[:5] == [0] * 5
    assert 1 in spread[5:]
    assert np.ptp(np.bincount(spread[1:])) <= 4
    options["hashes"] = {}
    assert sorted(where("prefix_aware", **options)[:3]) == [0, 0, 1]  # nothing to find: by load


def test_prefix_aware_asks_for_more_than_its_threshold():
    hashes = {row: [7, 8] + [100 * row + block for block in range(2)] for row in range(2)}
    options = {"arrival": [0, 1000], "prompt": [65] * 2, "output": [200] * 2, "hashes": hashes, "hash_block": 16}
    assert where("prefix_aware:threshold=0.49", **options) == [0, 0]  # 32 of 65 tokens are there
    assert where("prefix_aware:threshold=0.5", **options) == [0, 1]


def test_slo_aware_predicts_what_an_idle_replica_does_and_keeps_the_promise_where_it_can():
    made = router("slo_aware:ttft=1ns,chunk=2048")
    table, replicas = served("round_robin", [0], [100], [1], replicas=1)
    assert made.predicted(Request(0, 0, 100, 1), replicas[0]) == 110 == table[0].first
    # one long prompt at replica 0: short ones go where they need not wait for it, though it has more requests
    arrival, prompt = [0, 1, 2, 3], [4000, 10, 10, 10]
    assert where("slo_aware:ttft=200ps,chunk=64", arrival, prompt, [1] * 4, scheduler="vllm_v1:max_num_batched_tokens=64") == [
        0, 1, 1, 1
    ]  # fmt: skip
    # where nobody can, the least bad
    assert where("slo_aware:ttft=1ps", arrival, prompt, [1] * 4, scheduler="vllm_v1:max_num_batched_tokens=64")[1:] == [1, 1, 1]


@pytest.mark.parametrize("text", ["least_outstanding", "lor", "kv_aware"])
@pytest.mark.parametrize("stepped", [True, False])
def test_an_arrival_sees_what_ends_at_its_instant(text, stepped):
    """The first request is done at 10 + 1 + 3 * 10 ps: whoever comes then finds an empty replica, at 1 ps less a busy one."""
    end = 41
    options = {"prompt": [1, 1], "output": [4, 4], "stepped": stepped}
    assert where("least_outstanding", [0, end], **options) == [0, 0]
    assert where("least_outstanding", [0, end - 1], **options) == [0, 1]
    requests, _ = served(text, [0, end], **options)
    assert requests[0].completed == end


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.integers(16, 60), min_size=2, max_size=6),
    outputs=st.lists(st.integers(1, 120), min_size=6, max_size=6),
    instants=st.lists(st.integers(0, 1500), min_size=1, max_size=30),
)  # fmt: skip
def test_what_routers_look_at_is_exact_within_a_stretch(prompts, outputs, instants):
    """Cached prefixes are evicted, blocks taken, tokens come out while one event covers many iterations."""
    n = len(prompts)
    hashes = {row: [10 * row + block for block in range(prompt // 16)] for row, prompt in enumerate(prompts)}

    def seen(stepped):
        clock, log, found = Clock(), IterationLog(), []
        table = requests_of(np.arange(n) * 130, np.array(prompts), np.array(outputs[:n]), hashes=hashes, hash_block=16)
        service = Service(clock, table, router("round_robin"))
        replica = Replica(0, clock, make_scheduler("vllm_v1:max_num_seqs=3", 12, 1, 16), Steps(), log, service.ended, stepped)

        def look(_):
            asked = [Request(n + row, 0, prompt + 1, 1, hashes=hashes[row]) for row, prompt in enumerate(prompts)]
            found.append((
                clock.now, replica.outstanding, replica.queued, replica.used, replica.unread, replica.scheduler.seated,
                [replica.match(request) for request in asked], replica.used,
            ))  # fmt: skip

        for at in instants:
            clock.call_at(at, look, priority=LATE)
        service.start([replica])
        clock.run()
        return found, [(r.first, r.completed, r.cached, r.restarts) for r in service.requests], replica.busy, replica.iterations

    assert seen(stepped=True) == seen(stepped=False)


def test_bad_routers_are_refused_in_words():
    with pytest.raises(UnknownNameError, match=r"unknown router 'least_outstandin'.*\n.*least_outstanding"):
        router("least_outstandin")
    with pytest.raises(ConfigError, match="unknown key 'choice'"):
        router("power_of_two:choice=2")
    with pytest.raises(ConfigError, match="choices=0"):
        router("power_of_two:choices=0")
    with pytest.raises(ConfigError, match="no unit"):
        router("slo_aware:ttft=5")
    assert lookup("router", "round_robin")
