"""Arrival processes against their theory; tolerances are six standard errors of the estimate, from the law itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.params import parse, validated
from distsim.registry import lookup, names
from distsim.units import PS_PER_S

N = 40_000
SIX = 6.0
EVERY = ("poisson:qps=5", "poisson:qps=5,clip=3", "gamma:qps=5,cv=2", "uniform:qps=5", "mmpp:qps=1+20,sojourn=10s+5s",
         "diurnal:qps=5,period=100s", "diurnal:qps=5,period=60s,profile=1+0+3")  # fmt: skip


def process(spec):
    name, options = parse(spec)
    component = lookup("arrivals", name)
    return component(validated(component.Params, name, options))


def gaps(spec, n=N, seed=1):
    times = process(spec).times(n, None, np.random.default_rng(seed))
    assert times.dtype == np.int64
    return np.diff(times, prepend=0) / PS_PER_S


def test_every_process_is_tested_here():
    assert {parse(spec)[0] for spec in EVERY} | {"static"} == set(names("arrivals"))


def test_poisson_gaps_are_exponential():
    found = np.sort(gaps("poisson:qps=4"))
    assert found.mean() == pytest.approx(0.25, abs=SIX * 0.25 / math.sqrt(N))
    # Kolmogorov-Smirnov: sqrt(n) D exceeds 2.5 with probability 2 exp(-2 * 2.5^2) = 7e-6
    law = 1 - np.exp(-4 * found)
    distance = np.max(np.abs(law - np.arange(N) / N))
    assert distance * math.sqrt(N) < 2.5


def test_poisson_counts_have_the_variance_of_their_mean():
    times = process("poisson:qps=100").times(None, 400 * PS_PER_S, np.random.default_rng(2))
    counts = np.bincount((times // PS_PER_S).astype(int), minlength=400)
    assert counts.mean() == pytest.approx(100, abs=SIX * 10 / 20)
    assert counts.var() / counts.mean() == pytest.approx(1, abs=SIX * math.sqrt(2 / 400))


def test_clipped_poisson_is_vidurs():
    found = gaps("poisson:qps=4,clip=3")
    mean = (1 - math.exp(-3)) / 4
    assert found.max() == pytest.approx(0.75, rel=1e-9)
    assert found.mean() == pytest.approx(mean, abs=SIX * 0.25 / math.sqrt(N))
    assert np.mean(found > 0.75 * (1 - 1e-9)) == pytest.approx(math.exp(-3), abs=SIX * math.sqrt(math.exp(-3) / N))
    assert process("poisson:qps=4,clip=3").rate == pytest.approx(1 / mean)


@pytest.mark.parametrize("cv", [0.2, 1.0, 2.0, 4.0])
def test_gamma_has_its_mean_and_variation(cv):
    found = gaps(f"gamma:qps=4,cv={cv}")
    assert found.mean() == pytest.approx(0.25, abs=SIX * 0.25 * cv / math.sqrt(N))
    # variance of the sample variance: (mu4 - var^2)/n, with kurtosis 3 + 6 cv^2 for gamma
    spread = math.sqrt((2 + 6 * cv**2) / N)
    assert found.var() / (0.25 * cv) ** 2 == pytest.approx(1, abs=SIX * spread)


def test_uniform_is_even_and_exact():
    times = process("uniform:qps=3").times(1_000_000, None, np.random.default_rng(0))
    assert times[0] == round(PS_PER_S / 3)
    assert times[-1] == pytest.approx(1_000_000 * PS_PER_S / 3, rel=1e-15)
    assert np.ptp(np.diff(times)) <= 128  # two ulps of float64 at 92 hours


def test_static_is_all_at_once():
    assert process("static").times(5, None, np.random.default_rng(0)).tolist() == [0] * 5


def test_mmpp_has_its_mean_and_dispersion():
    """Index of dispersion of counts of two states (Fischer and Meier-Hellstern): 1 + 2 p1 p2 (r1 - r2)^2 / ((s1 + s2) mean)."""
    r1, r2, t1, t2 = 2.0, 30.0, 3.0, 1.0
    spec = process(f"mmpp:qps={r1}+{r2},sojourn={t1}s+{t2}s")
    mean = (r1 * t1 + r2 * t2) / (t1 + t2)
    assert spec.rate == pytest.approx(mean)
    p1, leaving = t1 / (t1 + t2), 1 / t1 + 1 / t2
    width, windows = 60.0, 2000
    b = leaving
    # at a finite window w: 1 + limit * (1 - (1 - exp(-b w)) / (b w))
    dispersion = 1 + 2 * p1 * (1 - p1) * (r1 - r2) ** 2 / (b * mean) * (1 - (1 - math.exp(-b * width)) / (b * width))
    times = spec.times(None, int(width * windows) * PS_PER_S, np.random.default_rng(3))
    counts = np.bincount((times // (int(width) * PS_PER_S)).astype(int), minlength=windows)
    assert counts.mean() == pytest.approx(mean * width, abs=SIX * math.sqrt(dispersion * mean * width / windows))
    assert counts.var() / counts.mean() == pytest.approx(dispersion, rel=SIX * math.sqrt(2 / windows))


def test_an_off_state_is_silent():
    times = process("mmpp:qps=0+50,sojourn=10s+1s").times(20_000, None, np.random.default_rng(5)) / PS_PER_S
    # with rate 50, a gap beyond 0.6 s within a burst has probability e^-30
    assert np.sum(np.diff(times) > 0.6) > 100


@pytest.mark.parametrize(
    "spec", ["diurnal:qps=50,period=100s,amplitude=0.8,peak=20s", "diurnal:qps=50,period=100s,profile=4+1+0+3"]
)
def test_diurnal_follows_its_day(spec):
    day, days, parts = 100, 40, 20
    component = process(spec)
    times = component.times(None, days * day * PS_PER_S, np.random.default_rng(4)) / PS_PER_S
    fine = component.relative((np.arange(parts * 100) + 0.5) * day / (parts * 100)).reshape(parts, 100).mean(axis=1)
    assert fine.mean() == pytest.approx(1)
    expected = 50 * day * days / parts * fine
    counts = np.bincount((times % day // (day / parts)).astype(int), minlength=parts)
    assert np.all(np.abs(counts - expected) <= SIX * np.sqrt(expected) + 1e-9)
    assert len(times) == pytest.approx(50 * day * days, abs=SIX * math.sqrt(50 * day * days))


@pytest.mark.parametrize("spec", EVERY)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), few=st.integers(1, 300), more=st.integers(0, 3000), seconds=st.integers(1, 300))
def test_more_requests_begin_with_the_same(spec, seed, few, more, seconds):
    def times(n, until):
        return process(spec).times(n, until, np.random.default_rng(seed))

    short, long = times(few, None), times(few + more, None)
    assert len(short) == few
    assert np.array_equal(short, long[:few])
    assert np.all(np.diff(long) >= 0)
    assert long[0] >= 0
    until = seconds * PS_PER_S
    window = times(None, until)
    assert np.all(window < until)
    both = times(few, until)
    assert np.array_equal(both, window[:few])
    head = long[: np.searchsorted(long, until)]
    assert np.array_equal(window[: len(head)], head)


@pytest.mark.parametrize("spec", ["poisson:qps=2", "poisson:qps=2,clip=3", "gamma:qps=2,cv=3", "uniform:qps=2"])
def test_another_rate_scales_the_same_gaps(spec):
    slow, fast = process(spec), process(spec).at(8)
    one, two = (one.times(1000, None, np.random.default_rng(0)) for one in (slow, fast))
    assert np.max(np.abs(one - 4 * two)) <= 4 * 1000
    assert fast.rate == pytest.approx(4 * slow.rate)


def test_another_rate_keeps_the_bursts():
    bursty = process("mmpp:qps=1+20,sojourn=60s+5s")
    assert bursty.at(2 * bursty.rate).params.rates() == pytest.approx([2, 40])
    assert bursty.at(7).rate == pytest.approx(7)
    assert bursty.at(7).params.sojourn == "60s+5s"
    assert process("diurnal:qps=1,period=1h").at(7).params.period == "1h"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("poisson:qps=0", "greater than 0"), ("poisson:qps=-1", "greater than 0"), ("poisson:qps=nan", "finite"),
        ("poisson:qps=inf", "finite"), ("poisson:qps=1e12", "less than or equal"), ("poisson:rate=1", "unknown key 'rate'"),
        ("poisson:qps=1,clip=0", "greater than 0"), ("gamma:qps=1,cv=0", "greater than"), ("mmpp:qps=1+2", "sojourn"),
        ("mmpp:qps=1,sojourn=1s", "two or more"), ("mmpp:qps=1+2,sojourn=1s", "two or more"),
        ("mmpp:qps=0+0,sojourn=1s+1s", "no state has a rate"), ("mmpp:qps=1+x,sojourn=1s+1s", "'x' is no rate"),
        ("mmpp:qps=1+2,sojourn=0s+1s", "positive"), ("diurnal:qps=1,amplitude=2", "less than or equal to 1"),
        ("diurnal:qps=1,period=0s", "positive"), ("diurnal:qps=1,profile=0+0", "not all 0"),
        ("diurnal:qps=1,profile=1+a", "numbers joined"), ("diurnal:qps=1,profile=1+2,peak=3s", "profile replaces"),
        ("static:qps=1", "unknown key 'qps'"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_in_words(spec, words):
    with pytest.raises(ConfigError) as caught:
        process(spec)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("spec", "n", "until", "words"),
    [
        ("poisson", 5, None, "no rate"), ("gamma", 5, None, "no rate"), ("uniform", 5, None, "no rate"),
        ("diurnal", 5, None, "no rate"), ("poisson:qps=1", None, None, "how many"), ("static", None, PS_PER_S, "how many"),
        ("poisson:qps=1e-9", 10, None, "53 days"), ("mmpp:qps=1e-9+0,sojourn=1h+1h", 10, None, "53 days"),
        ("diurnal:qps=1e-9", 10, None, "53 days"), ("poisson:qps=1", 10**9, None, "more than"),
        ("uniform:qps=1e9", None, PS_PER_S * 3600, "more than"),
        ("mmpp:qps=1e9+1,sojourn=1h+1h", 10**9, None, "more than"), ("static", 10**9, None, "more than"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(spec, n, until, words):
    with pytest.raises(ConfigError) as caught:
        process(spec).times(n, until, np.random.default_rng(0))
    assert words in str(caught.value)


@pytest.mark.parametrize("spec", ["poisson:qps=1e9", "gamma:qps=1e9", "mmpp:qps=1e9+1e8,sojourn=1s+1s", "diurnal:qps=1e9"])
def test_too_many_are_refused_while_drawing(spec, monkeypatch):
    monkeypatch.setattr("distsim.serving.requests.process.MOST", 20_000)
    with pytest.raises(ConfigError, match="more than 20,000 requests"):
        process(spec).times(None, PS_PER_S, np.random.default_rng(0))


def test_at_of_static_is_refused():
    with pytest.raises(ConfigError, match="come at once"):
        process("static").at(4)
