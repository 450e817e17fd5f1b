"""Laws that hold for every policy, whatever is added to it: no block is lost, every token is computed once, everybody ends."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import crowds, drive, held, scheduler_of

from distsim.serving.request import Request

PLAIN = ("vllm_v0", "vllm_v1", "sglang", "sglang:policy=fcfs,mixed=true", "priority:preempt=true", "priority:aging=20us",
         "fair_share")  # fmt: skip


def spec(text, **options):
    name, _, rest = text.partition(":")
    return name + ":" + ",".join(filter(None, [rest, *(f"{key}={value}" for key, value in options.items())]))


def check(scheduler, make):
    """Blocks at every iteration; tokens, restarts and an end for everybody."""
    requests, kv = make(), scheduler.kv
    accepted = [one for one in requests if not scheduler.refusal(one)]
    for batch, planned, done in drive(scheduler, accepted):
        assert kv.used == held(scheduler)
        assert 0 <= kv.free <= kv.total
        assert min(batch.wait, batch.behind) >= 0
        assert len(done) <= len(planned)
        for request in done:
            assert (request.left, request.computed) == (0, request.prompt + request.output - 1)
        if scheduler.swap is not None:
            assert scheduler.swap.used == sum(kv.need(one.computed) for one in scheduler.swapped)
        for tier in kv.tiers.tiers if getattr(kv, "tiers", None) else ():
            assert len(tier) == tier.written - tier.dropped <= tier.room
    assert kv.used == 0
    assert scheduler.idle
    assert scheduler.preemptions >= sum(one.restarts for one in accepted)
    if scheduler.swap is not None:
        assert scheduler.swap.used == 0
        assert scheduler.swap.out == scheduler.swap.back
    return accepted


@pytest.mark.parametrize("text", PLAIN)
@settings(max_examples=30, deadline=None)
@given(
    make=crowds(), blocks=st.integers(11, 30), seats=st.sampled_from([2, 5, 64]), tiers=st.booleans(),
    draft=st.sampled_from([0, 0, 3]),
)  # fmt: skip
def test_no_block_is_lost(text, make, blocks, seats, tiers, draft):
    tiers = tiers and not text.startswith("vllm_v0")
    text = spec(text, max_num_seqs=seats)
    check(scheduler_of(text, blocks, tiers=tiers, draft=draft), make)


@pytest.mark.parametrize("name", ["vllm_v0", "vllm_v1", "fair_share"])
@settings(max_examples=30, deadline=None)
@given(make=crowds(), blocks=st.integers(11, 24), room=st.sampled_from([1, 6, 1000]), draft=st.sampled_from([0, 0, 3]))
def test_no_block_is_lost_on_the_host(name, make, blocks, room, draft):
    check(scheduler_of(f"{name}:preemption=swap", blocks, swap_room=room, draft=draft), make)


@pytest.mark.parametrize("name", ["sarathi", "orca", "static"])
@settings(max_examples=30, deadline=None)
@given(make=crowds(), blocks=st.integers(20, 40))
def test_speculation_under_other_policies(name, make, blocks):
    text = {"sarathi": "sarathi:chunk=64"}.get(name, f"{name}:max_len=160")
    scheduler = scheduler_of(text, blocks, hashed=False, draft=4)
    accepted = [one for one in make() if not scheduler.refusal(one)]
    for _ in drive(scheduler, accepted):
        assert 0 <= scheduler.kv.used <= scheduler.kv.total
    assert scheduler.kv.used == 0


@pytest.mark.parametrize(
    ("name", "option"),
    [(name, "recompute") for name in ("vllm_v0", "vllm_v1", "fair_share", "priority", "sglang")]
    + [(name, "swap") for name in ("vllm_v0", "vllm_v1", "fair_share")],
)
@settings(max_examples=20, deadline=None)
@given(make=crowds(), blocks=st.integers(11, 20))
def test_tokens_are_computed_once_or_lost(name, option, make, blocks):
    """Swapping loses nothing of those that generate, recomputing all that they had."""
    text = name if option == "recompute" else f"{name}:preemption=swap"
    scheduler = scheduler_of(text, blocks, hashed=False, swap_room=10_000 if option == "swap" else 0)
    lost, preempt = [0], scheduler.preempt

    def preempted(request):
        generating = request.cohort is not None
        had = request.cohort.computed(request) if generating else request.computed
        preempt(request)
        lost[0] += 0 if generating and option == "swap" else had

    scheduler.preempt = preempted
    requests = [one for one in make() if not scheduler.refusal(one)]
    computed = sum(new for _, planned, _ in drive(scheduler, requests) for new, _ in planned.values())
    assert computed == sum(one.prompt + one.output - 1 for one in requests) + lost[0]
    if option == "swap" and name == "vllm_v0":
        assert lost[0] == 0


def test_a_swapped_request_comes_back_as_it_was():
    scheduler = scheduler_of("vllm_v1:preemption=swap", 6, hashed=False, swap_room=100)
    first, second = Request(0, 0, 40, 40), Request(1, 0, 32, 30)
    seen = [(sorted(planned), batch.wait) for batch, planned, _ in drive(scheduler, [first, second])]
    assert (first.restarts, second.restarts, scheduler.preemptions) == (0, 0, 1)
    assert scheduler.swap.out == scheduler.swap.back == 3
    waits = [(at, wait) for at, (_, wait) in enumerate(seen) if wait]
    assert [wait for _, wait in waits] == [15, 15]  # three blocks out, three back, 5 ps each
    (out, _), (back, _) = waits
    assert seen[out - 1][0] == [0, 1]
    assert all(rows == [0] for rows, _ in seen[out:back])
    assert all(rows == [1] for rows, _ in seen[back:])


def test_where_the_host_is_full_requests_are_computed_anew():
    scheduler = scheduler_of("vllm_v1:preemption=swap", 6, hashed=False, swap_room=2)
    second = Request(1, 0, 32, 30)
    assert not any(batch.wait for batch, _, _ in drive(scheduler, [Request(0, 0, 40, 40), second]))
    assert second.restarts == 1
