"""The search for the highest load: right within its tolerance, always ends, agrees with M/D/1, counts what stays behind."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ticks import ticks

from distsim.analysis.serving_slo import Slo
from distsim.errors import ConfigError, TopologyError
from distsim.sweep.capacity import Trial, capacity, student
from distsim.sweep.kinds.capacity import found
from distsim.sweep.load import bounds, random, trial
from distsim.sweep.replicas import enlarged, fleet, least

ALONE = {"scheduler": "vllm_v1:max_num_seqs=1"}  # one request at a time
IDLE = Trial(0.0, 0, True, throughput=1.0)


def judged(passes):
    """A run that passes or not, and the loads that were tried."""
    tried = []

    def run(load: float, seed: int) -> Trial:
        tried.append((seed, load))
        return Trial(load, seed, passes(load, seed), throughput=min(load, 3.0), requests=7)

    return run, tried


@given(
    limits=st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=6), tolerance=st.floats(1e-3, 0.5),
    floor=st.floats(1e-6, 1e-4), ceiling=st.floats(1e7, 1e9),
)  # fmt: skip
def test_the_border_is_met_within_the_tolerance_wherever_it_is(limits, tolerance, floor, ceiling):
    run, tried = judged(lambda load, seed: load <= limits[seed])
    answer = capacity(run, IDLE, floor, ceiling, range(len(limits)), tolerance)
    for limit, border in zip(limits, answer.borders, strict=True):
        assert border.passing.load <= limit < border.failing.load <= border.passing.load * (1 + tolerance) * (1 + 1e-5)
    assert answer.mean == pytest.approx(sum(border.passing.load for border in answer.borders) / len(limits))
    assert len(tried) <= 1 + len(limits) * (60 + math.log2(1 / tolerance))
    if len(limits) == 1:
        assert answer.low is answer.high is None
    else:
        assert answer.low <= answer.mean <= answer.high


@given(seed=st.integers(0, 10**6), share=st.floats(0, 1), count=st.integers(1, 4))
def test_it_ends_whatever_passes(seed, share, count):
    """Not even a service whose verdicts are random keeps it busy for ever."""

    def passes(load: float, of: int) -> bool:
        return load < 1e6 and bool(np.random.default_rng([seed, of, int(load * 1e6)]).random() < share)

    run, tried = judged(passes)
    answer = capacity(run, IDLE, 1e-3, 1e7, range(count), 0.02)
    assert len(tried) <= 1 + 60 * count
    for border in answer.borders:
        assert not border.failing.passed
        assert border.passing is None or border.passing.load < border.failing.load


def test_no_load_and_every_load():
    run, tried = judged(lambda load, seed: False)
    answer = capacity(run, IDLE, 0.01, 1e6, [0, 1], 0.02)
    assert answer.mean == 0.0
    assert min(load for _, load in tried) == 0.01
    assert answer.typical is IDLE
    with pytest.raises(ConfigError, match="no load is too high: even 7 requests"):
        capacity(judged(lambda load, seed: True)[0], IDLE, 0.01, 1e6, [0], 0.02)
    # a seed of its own may find nothing too high either
    with pytest.raises(ConfigError, match="no load is too high"):
        capacity(judged(lambda load, seed: seed == 1 or load < 5)[0], IDLE, 0.01, 1e6, [0, 1], 0.02)
    run, tried = judged(lambda load, seed: True)
    assert capacity(run, replace(IDLE, passed=False), 0.01, 1e6, [0], 0.02).mean == 0.0
    assert not tried


def test_students_t_is_that_of_the_tables():
    # published values
    for freedom, value in ((1, 12.706), (5, 2.571), (12, 2.179), (20, 2.086), (60, 2.000), (99, 1.984)):
        assert student(freedom) == pytest.approx(value, abs=1e-3)


@given(need=st.integers(1, 400), first=st.integers(1, 500), most=st.integers(1, 300))
def test_the_least_number_that_passes(need, first, most):
    asked = []

    def passes(count: int) -> bool:
        asked.append(count)
        assert 1 <= count <= most
        return count >= need

    assert least(passes, first, most) == (need if need <= most else None)
    assert len(asked) == len(set(asked)) <= 3 * math.log2(most + 2) + 2


# --- services -----------------------------------------------------------------------------------------------------------------


def md1_wait(rho: float, t: float) -> float:
    """P(wait <= t services) of M/D/1 (Erlang 1909)."""
    terms = ((-1) ** k * (rho * (t - k)) ** k / math.factorial(k) * math.exp(rho * (t - k)) for k in range(math.floor(t) + 1))
    return (1 - rho) * math.fsum(terms)


@pytest.mark.parametrize(("percentile", "services"), [(90, 2.0), (50, 0.5)])
def test_capacity_of_m_d_1_is_that_of_theory(percentile, services):
    """One request at a time, one iteration of 10 ms each: the load at which so many wait no longer than so many services."""
    low, high = 0.0, 1.0
    for _ in range(60):
        rho = (low + high) / 2
        low, high = (rho, high) if md1_wait(rho, services) >= percentile / 100 else (low, rho)
    # NOTE: waits end with an iteration; a ps more decides nothing
    point = ticks(n=2500, slo=f"queueing={10 * services}ms,percentile={percentile}", seeds=4, **ALONE)
    answer, loads = found(point)
    assert answer.low <= 100 * low <= answer.high
    assert answer.high - answer.low < 0.15 * answer.mean
    assert answer.limited_by.startswith(f"P{percentile} queueing")
    assert not loads.warnings


def test_without_an_objective_it_is_what_the_service_keeps_up_with():
    """10 ms a request: 100 requests/s, and a finite run forgives a load of at most 5 % more."""
    answer, _ = found(ticks(n=2000, seeds=2, **ALONE))
    assert 97 <= answer.mean <= 106
    assert answer.limited_by.startswith("the queue")
    for one in answer.trials:
        assert one.passed == (one.behind <= one.most_behind)


def test_a_looser_objective_bears_no_less():
    two = {"scheduler": "vllm_v1:max_num_seqs=2", "n": 600, "seeds": 2}
    means = [found(ticks(slo=f"ttft={ms}ms", **two))[0].mean for ms in (15, 20, 60)]
    assert all(later >= 0.98 * earlier for earlier, later in pairwise(means))
    assert means[-1] > 1.3 * means[0]


def test_more_replicas_bear_more():
    one, two = (found(ticks(slo="ttft=40ms,percentile=90", router="random", replicas=r, n=800 * r, **ALONE))[0] for r in (1, 2))
    # each of the two gets a Poisson stream of half the rate
    assert two.low / 2 <= one.high
    assert two.high / 2 >= one.low
    assert two.mean > 1.7 * one.mean
    assert (one.typical.gpus, two.typical.gpus) == (1, 2)


def test_the_same_again_is_the_same():
    point = ticks(slo="ttft=30ms", scheduler="vllm_v1:max_num_seqs=4", router="random", replicas=2, n=300)
    assert repr(found(point)[0]) == repr(found(point)[0])
    other = found({**point, "seed": 11})[0]
    assert [border.seed for border in other.borders] == [11, 12, 13]
    assert other.mean != found(point)[0].mean


def test_an_objective_that_an_idle_service_misses():
    answer, _ = found(ticks(slo="ttft=9ms,tpot=50ms"))
    assert answer.mean == 0.0
    assert answer.idle.values["P99 TTFT"] == (10e9, 9e9)
    assert answer.limited_by.startswith("P99 TTFT")
    assert len(answer.trials) == 1


def test_requests_that_never_fit_are_counted_and_do_not_hide_the_load():
    """Four KV blocks hold prompts of up to 64 tokens; the rest is turned away at any load."""
    answer, _ = found(ticks(lengths="uniform:prompt=1-120,output=1-1", kv_blocks=4, seeds=1, **ALONE))
    refused = sum(answer.idle.drops.values())
    assert 500 < refused < 1500
    assert 97 / (1 - refused / 2000) < answer.mean < 112 / (1 - refused / 2000)
    nothing, _ = found(ticks(lengths="fixed:prompt=100,output=1", kv_blocks=4))
    assert nothing.mean == 0.0
    assert sum(nothing.idle.drops.values()) == 2000


def test_a_file_has_one_seed_and_its_own_number(tmp_path):
    file = tmp_path / "requests.csv"
    file.write_text("arrival_ps,prompt,output\n" + "".join(f"{k * 10**11},16,1\n" for k in range(300)))
    point = ticks(requests=str(file), lengths=None, seeds=5, n=None, **ALONE)
    answer, loads = found(point)
    assert not random(loads.spec)
    assert loads.spec.n == 300
    assert answer.low is None
    assert len(answer.borders) == 1
    # even gaps: it keeps up with 100/s, and at n = 300 it takes 15 waiting to tell
    assert 98 <= answer.mean <= 108
    assert list(loads.warnings) == ["a file that is replayed has no randomness: one seed, whatever is asked"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"requests": "static"}, "no load to look for"),
        ({"qps": 3.0}, "qps fixes the load"),
        ({"concurrency": 4}, "concurrency fixes the load"),
        ({"duration": "10s"}, "number of requests follow the load"),
        ({"slo": "ttft=soon"}, "ttft"),
        ({"seeds": 0}, "no number of seeds"),
        ({"seeds": "three"}, "no number of seeds"),
        ({"tolerance": 0.0}, "no tolerance"),
        ({"price": -1}, "no price"),
        ({"n": 5}, "no load is too high: even 5 requests"),
        ({"scheduler": "nobody"}, "unknown scheduler"),
        ({"replicas": 9}, "the replicas take 9 GPUs"),
    ],
)
def test_what_cannot_be_asked(fields, words):
    with pytest.raises(ConfigError, match=words):
        found(ticks(**fields))


def test_runs_that_are_too_short_are_told():
    _, loads = found(ticks(n=120, lengths="fixed:prompt=16,output=400", slo="latency=6s", scheduler="vllm_v1:max_num_seqs=64"))
    assert any("too few for a service in its stride" in text for text in loads.warnings)
    _, loads = found(ticks(requests="diurnal:qps=1", slo="ttft=30ms", scheduler="vllm_v1:max_num_seqs=4", seeds=1))
    assert any("in the long run" in text for text in loads.warnings)


def test_the_worst_bound_is_named_and_dropped_requests_take_for_ever():
    from distsim.serve import ServeSpec, read_requests, serve

    spec = ServeSpec.of({**ticks(), "qps": 10.0, "n": 100, "lengths": "uniform:prompt=1-80,output=1-1", "kv_blocks": 4})
    result = serve(spec, table=read_requests(spec))
    dropped = 100 - int(result.requests.done.sum())
    assert 0 < dropped < 40
    slo = Slo.parse(f"ttft=1s,percentile={100 - dropped}")
    assert bounds(result.requests, slo, 100)[f"P{100 - dropped} TTFT"][0] < 1e12
    assert trial(result, slo, 10.0).passed == (dropped <= 10)
    slo = Slo.parse(f"ttft=1s,percentile={101 - dropped}")
    assert bounds(result.requests, slo, 100)[f"P{101 - dropped} TTFT"][0] == math.inf
    assert not trial(result, slo, 10.0).passed


# --- replicas for a load ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [30.0, 260.0])
def test_the_fewest_replicas_for_a_load(load):
    from distsim.sweep.kinds.capacity import asked, objective

    point = ticks(slo="ttft=40ms", replicas=1, n=500, seeds=2, **ALONE)
    made = fleet(asked(point), load, objective(point), range(2), 0.02, 64)
    alone = found(point)[0]
    assert made.copies is not None
    assert made.gpus == 1
    # together they are no worse than apart, and none of them can be spared
    assert made.copies <= math.ceil(load / alone.mean) + 1
    by_copies: dict[int, set[bool]] = {}
    for copies, one in made.trials:
        by_copies.setdefault(copies, set()).add(one.passed)
    assert by_copies[made.copies] == {True}
    assert made.copies == 1 or False in by_copies[made.copies - 1]
    assert load > 80 * (made.copies - 1)


def test_a_load_beyond_the_gpus_and_a_service_that_bears_none():
    from distsim.sweep.kinds.capacity import asked, objective

    point = ticks(slo="ttft=40ms", replicas=1, n=300, **ALONE)
    made = fleet(asked(point), 1000.0, objective(point), range(2), 0.02, 4)
    assert made.copies is None
    assert made.most == 4
    point = ticks(slo="ttft=4ms", replicas=1)
    assert fleet(asked(point), 1000.0, objective(point), range(2), 0.02, 4).copies is None
    with pytest.raises(ConfigError, match="takes 1 GPUs"):
        fleet(asked(point), 10.0, None, range(2), 0.02, 0)
    with pytest.raises(ConfigError, match="is no load"):
        fleet(asked(point), math.nan, None, range(2), 0.02, 8)


def test_clusters_grow_as_they_are_needed(tmp_path):
    assert enlarged("dgx_h100:gpus=8", 8) == "dgx_h100:gpus=8"
    assert enlarged("h100:gpus=8", 20) == "dgx_h100:gpus=20"
    assert enlarged("dgx_h100:nodes=1,bandwidth=200Gbps", 32) == "dgx_h100:bandwidth=200Gbps,gpus=32"
    assert enlarged("switch:hosts=4,bandwidth=10GB/s", 6) == "switch:bandwidth=10GB/s,gpus=6"
    with pytest.raises(TopologyError):
        enlarged("a100_superpod", 10**6)
