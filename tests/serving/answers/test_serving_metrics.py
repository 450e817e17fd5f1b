"""Figures of a service: closed forms, conservation, and percentiles that are those of the requests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served_results import MS, Linear, emissions, served, workload

from distsim.analysis.serving import steady_rates, summary
from distsim.analysis.serving_cost import IDLE, energy, price
from distsim.analysis.serving_findings import findings
from distsim.analysis.serving_gaps import gaps
from distsim.analysis.serving_series import batch_sizes, series
from distsim.analysis.serving_slo import Slo
from distsim.errors import ConfigError
from distsim.serving.deployment import Deployment
from distsim.serving.requests.table import requests_of


def one_request(prompt=100, output=11, arrival=0):
    return requests_of(np.array([arrival]), np.array([prompt]), np.array([output]))


def test_a_single_request_takes_its_prefill_and_then_its_iterations():
    found = summary(served(one_request()), Slo.parse("ttft=11ms,tpot=10.1ms"))
    ttft, tpot = 10 * MS + 100 * MS // 100, 10 * MS + MS // 10
    assert found.latencies.ttft.p50 == found.latencies.ttft.most == ttft
    assert found.latencies.tpot.p99 == tpot
    assert found.latencies.latency.mean == ttft + 10 * tpot
    assert found.latencies.queueing.most == 0
    assert found.latencies.normalised.mean == pytest.approx((ttft + 10 * tpot) / 11)
    assert found.rates.output_tokens == pytest.approx(11 / ((ttft + 10 * tpot) / 1e12))
    assert (found.busy, found.batch, found.iterations) == (1.0, 1.0, 11)
    assert found.goodput.met
    assert found.goodput.share == 1.0
    assert summary(served(one_request()), Slo.parse("ttft=10.9ms")).goodput.share == 0.0
    assert steady_rates(served(one_request()).requests) is None


def test_a_request_of_one_token_has_no_time_per_token():
    found = summary(served(one_request(output=1)))
    assert found.latencies.tpot.count == 0
    assert math.isnan(found.latencies.tpot.mean)
    assert found.latencies.ttft.count == 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), replicas=st.integers(1, 3), blocks=st.sampled_from([30, 60, 4096]), stages=st.integers(1, 2))
def test_law_1_what_comes_in_goes_out_and_the_series_hold_all_of_it(seed, replicas, blocks, stages):
    result = served(workload(60, seed), replicas=replicas, kv_blocks=blocks, times=Linear(stages=stages))
    found, over_time, requests = summary(result), series(result), result.requests
    assert found.finished + found.dropped + found.unfinished == found.requests == 60
    assert sum(found.drops.values()) == found.dropped
    seconds = over_time.width / 1e12
    done = requests.done
    assert over_time.completions.sum() * seconds == pytest.approx(found.finished)
    assert over_time.arrivals.sum() * seconds == pytest.approx(60)
    assert over_time.prompt_tokens.sum() * seconds == pytest.approx(found.computed)
    # Little's law, exactly: the time that requests spend is what the series integrate to
    waited = (requests.scheduled - requests.arrival)[done].sum() / 1e12
    assert over_time.queued.sum() * seconds == pytest.approx(waited, abs=1e-6)
    assert over_time.running.sum() * seconds == pytest.approx((requests.completed - requests.scheduled)[done].sum() / 1e12)
    assert over_time.busy.max() <= 1 + 1e-9
    assert over_time.kv.max() <= found.kv_peak + 1e-9
    assert float((over_time.kv * over_time.width).sum()) / result.end == pytest.approx(found.kv_mean, rel=1e-2, abs=1e-6)
    sizes, shares = batch_sizes(result)
    assert shares.sum() == pytest.approx(1)
    assert float((sizes * shares).sum()) == pytest.approx(found.batch)
    if not found.preemptions and stages == 1:
        assert found.recomputed == 0
        assert over_time.output_tokens.sum() * seconds == pytest.approx(requests.output[done].sum())


def test_recomputed_tokens_are_what_preemptions_cost():
    result = served(workload(60, 3), kv_blocks=40)
    found = summary(result)
    assert found.preemptions > 0
    assert found.restarted > 0
    needed = int(result.requests.prompt[result.requests.done].sum())
    assert found.recomputed == found.computed - needed > 0


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000), blocks=st.sampled_from([40, 60, 4096]), seats=st.sampled_from([4, 64]),
    budget=st.sampled_from([64, 2048]),
)  # fmt: skip
def test_times_between_tokens_are_those_of_single_steps(seed, blocks, seats, budget):
    table = workload(40, seed, prompt=(1, 300))
    options = {"kv_blocks": blocks, "seats": seats, "budget": budget}
    result = served(table, **options)
    told, emitted = gaps(result), emissions(table, **options)
    found, known = told.longest, [np.zeros(0)]
    for row in np.flatnonzero(result.requests.done).tolist():
        own = np.diff(emitted[row])
        if found[row] >= 0:
            assert found[row] == (own.max() if len(own) else 0)
            known.append(own)
        else:
            assert result.requests.restarts[row] or result.requests.output[row] != len(emitted[row])
    every = np.concatenate(known)
    spread = told.spread()
    assert spread.count == len(every)
    if len(every):
        expected = [every.mean(), *np.percentile(every, (50, 90, 95, 99, 100))]
        assert [spread.mean, spread.p50, spread.p90, spread.p95, spread.p99, spread.most] == pytest.approx(expected)
    if blocks == 4096 and budget == 2048:
        assert (found[result.requests.done] >= 0).all()


def test_tenants_add_up_to_the_whole():
    tenant = (np.arange(40) % 3).astype(np.int32)
    result = served(workload(40, 1, tenant=tenant, names=("a", "b", "c")))
    found = summary(result, Slo.parse("latency=200ms"))
    assert [one.name for one in found.tenants] == ["a", "b", "c"]
    assert sum(one.requests for one in found.tenants) == 40
    assert sum(one.goodput.share * one.requests for one in found.tenants) == pytest.approx(found.goodput.share * 40)
    rows = result.requests.tenant == 1
    assert found.tenants[1].latencies.ttft.p99 == pytest.approx(np.percentile(result.requests.ttft[rows], 99))


def test_dropped_requests_keep_no_objective():
    table = requests_of(np.array([0, 1, 2]), np.array([10, 10_000, 10]), np.array([5, 5, 5]))
    found = summary(served(table, kv_blocks=20), Slo.parse("latency=1h,percentile=90"))
    assert found.drops == {"longer than the KV cache": 1}
    assert found.goodput.share == pytest.approx(2 / 3)
    assert not found.goodput.met


def test_a_run_of_nothing_but_drops_says_so():
    result = served(requests_of(np.array([5]), np.array([10_000]), np.array([5])), kv_blocks=4)
    found = findings(result)
    assert found.limit.by == "nothing"
    assert math.isnan(found.summary.latencies.ttft.p50)
    assert found.summary.rates.requests == 0.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "bounds nothing"), ("percentile=99", "bounds nothing"), ("ttff=2s", "ttft"), ("ttft", "no objective"),
        ("ttft=2parsec", "--slo ttft"), ("ttft=-1s", "negative"), ("ttft=1s,ttft=2s", "twice"),
        ("ttft=1s,percentile=0", "share"), ("ttft=1s,percentile=101", "share"), ("ttft=1s,percentile=x", "share"),
    ],
)  # fmt: skip
def test_an_objective_that_is_none_is_refused_in_words(text, said):
    with pytest.raises(ConfigError, match=said):
        Slo.parse(text)


def test_an_objective_reads_back_in_units():
    slo = Slo.parse("ttft=2s, tpot=50ms, percentile=95%")
    assert (slo.ttft, slo.tpot, slo.latency, slo.percentile) == (2 * 10**12, 50 * MS, None, 95.0)
    assert str(slo) == "ttft 2 s, tpot 50 ms for 95 %"


def test_price_and_energy_follow_from_time_tokens_and_the_data_sheet():
    deployment = Deployment.of(model="llama3-8b", gpu="h100_sxm", tp=2).model_dump()
    spec = {"pools": [{"name": "", "deployment": deployment}]}
    result = served(one_request(arrival=0), replicas=2, spec=spec)
    found = summary(result)
    hours = 2 * 2 * result.end / 1e12 / 3600
    assert price(found, 3.6).total == pytest.approx(3.6 * hours)
    assert price(found, 3.6).per_million_output_tokens == pytest.approx(3.6 * hours / 11 * 1e6)
    told = energy(result, found)
    # the second replica idles all along; the first draws between idle and full power
    idle, seconds = IDLE * 700 * 2, result.end / 1e12
    assert 2 * idle * seconds < told.joules < (700 * 2 + idle) * seconds
    assert told.joules_per_output_token == pytest.approx(told.joules / 11)
    with pytest.raises(ConfigError, match="no price"):
        price(found, 0.0)


def test_energy_grows_with_the_work_of_an_iteration_and_saturates_at_the_data_sheet():
    deployment = Deployment.of(model="llama3-70b", gpu="h100_sxm", tp=2).model_dump()
    spec = {"pools": [{"name": "", "deployment": deployment}]}
    watts = []
    for base in (1, 10 * MS, 100 * MS, 1000 * MS):
        result = served(one_request(prompt=2000, output=1), times=Linear(base=base, token=0), spec=spec)
        watts.append(energy(result, summary(result)).watts_per_gpu)
    assert watts[0] == pytest.approx(700)
    assert watts == sorted(watts, reverse=True)
    assert watts[-1] > IDLE * 700


def test_without_a_deployment_there_is_no_energy():
    result = served(one_request())
    assert energy(result, summary(result)) is None
