"""Virtual token counters: shares between tenants that always have work, and no credit for those that have none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import crowds, drive, run, scheduler_of

from distsim.errors import ConfigError
from distsim.serving.request import Request


def flood(counts, prompt=20, output=20):
    """So many requests of each tenant, all at once, tenant after tenant."""
    tenants = [tenant for tenant, count in enumerate(counts) for _ in range(count)]
    return [Request(row, 0, prompt, output, tenant=tenant) for row, tenant in enumerate(tenants)]


def served(scheduler, requests, iterations):
    """Tokens that came out for each tenant."""
    left = {}
    for at, _ in enumerate(drive(scheduler, requests)):
        if at == iterations:
            break
    for one in requests:
        out = one.output - (one.left if one.cohort is None else one.cohort.left(one))
        left[one.tenant] = left.get(one.tenant, 0) + out
    return left


def test_tenants_take_turns_whatever_the_queue():
    scheduler = scheduler_of("fair_share:max_num_seqs=1", 100)
    done = [one.tenant for _, _, ended in drive(scheduler, flood([20, 3, 3])) for one in ended]
    assert done[:9] == [0, 1, 2] * 3
    assert set(done[9:]) == {0}


@pytest.mark.parametrize(("weights", "shares"), [("1", [1, 1]), ("1+3", [1, 3]), ("2+1", [2, 1])])
def test_shares_follow_weights(weights, shares):
    scheduler = scheduler_of(f"fair_share:max_num_seqs=4,weights={weights}", 1000)
    out = served(scheduler, flood([300, 300]), 800)
    assert out[1] / out[0] == pytest.approx(shares[1] / shares[0], rel=0.05)


def test_longer_requests_count_more():
    """Equal service is an equal number of weighted tokens: 10 + 2 * 10 for one tenant, 40 + 2 * 40 for the other."""
    requests = [Request(row, 0, 10, 10, tenant=0) for row in range(200)]
    requests += [Request(200 + row, 0, 40, 40, tenant=1) for row in range(200)]
    scheduler = scheduler_of("fair_share:max_num_seqs=1", 100)
    done = {0: 0, 1: 0}
    for at, (_, _, ended) in enumerate(drive(scheduler, requests)):
        for one in ended:
            done[one.tenant] += 1
        if at == 1600:
            break
    assert done[0] == pytest.approx(4 * done[1], rel=0.1)


def test_being_away_earns_no_credit():
    """Tenant 1 comes late: it does not take all seats until it has had what tenant 0 had before."""
    requests = [Request(row, 0, 10, 10, tenant=0) for row in range(60)]
    requests += [Request(60 + row, 300, 10, 10, tenant=1) for row in range(30)]
    scheduler = scheduler_of("fair_share:max_num_seqs=1", 100)
    done = [one.tenant for _, _, ended in drive(scheduler, requests) for one in ended]
    start = done.index(1)
    assert start > 20
    assert done[start : start + 20].count(1) == pytest.approx(10, abs=1)


def test_a_lone_tenant_is_first_come_first_served():
    def ends(text):
        return [[one.row for one in ended] for _, _, ended in run(scheduler_of(text, 30), flood([12]))]

    assert ends("fair_share:max_num_seqs=3") == ends("vllm_v1:max_num_seqs=3")


@settings(max_examples=50, deadline=None)
@given(make=crowds(most=30), seats=st.sampled_from([1, 3]))
def test_service_of_those_that_wait_stays_close(make, seats):
    """Theorem 4.4 of the paper: counters of tenants with waiting requests differ by no more than max(input, output) of what is
    in flight: here at most ``seats`` requests and one of each tenant."""
    requests = make()
    bound = (seats + 2) * max(1.0 * one.prompt + 2.0 * one.output for one in requests)
    scheduler = scheduler_of(f"fair_share:max_num_seqs={seats}", 200, hashed=False)
    for _ in drive(scheduler, requests):
        waiting = {one.tenant for one in scheduler.waiting} - {one.tenant for one in scheduler._late}
        counts = [scheduler.service(tenant) for tenant in waiting]
        assert not counts or max(counts) - min(counts) <= bound


@settings(max_examples=50, deadline=None)
@given(make=crowds())
def test_charges_are_what_was_served(make):
    """Every prompt once, every token once, whatever was preempted; lifts only add."""
    requests = [one for one in make() if one.prompt + one.output <= 160]
    for one in requests:
        one.tenant = 0
    scheduler = scheduler_of("fair_share", 11, hashed=False)
    run(scheduler, requests)
    assert scheduler.service(0) == sum(one.prompt + 2 * one.output for one in requests)


@pytest.mark.parametrize("weights", ["0", "1+x", "-1", "1++2"])
def test_bad_weights_are_refused_in_words(weights):
    with pytest.raises(ConfigError, match="is no weight"):
        scheduler_of(f"fair_share:weights={weights}", 10)
