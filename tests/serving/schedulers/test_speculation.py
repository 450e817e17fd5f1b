"""Speculative decoding: how many tokens come out, what they cost, and that the rest stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import crowds, drive, run, scheduler_of

from distsim.errors import ConfigError, UnknownNameError
from distsim.serve import serve
from distsim.serving.iteration import Shape
from distsim.serving.request import Request
from distsim.serving.speculation import Acceptance, DraftParams, SpeculativeTimes, speculation_of

POINT = {
    "model": "llama3-8b", "cluster": "dgx_h100:gpus=1", "requests": "poisson:qps=8", "lengths": "fixed:prompt=200,output=100",
    "n": 60,
}  # fmt: skip


@pytest.mark.parametrize(("tokens", "rate"), [(1, 0.8), (4, 0.7), (7, 0.3), (3, 0.0), (3, 1.0)])
def test_tokens_per_iteration_are_leviathans(tokens, rate):
    acceptance = Acceptance(DraftParams(tokens=tokens, acceptance=rate))
    draws = [acceptance.emitted(row, left, 400) for row in range(100) for left in range(20, 401)]
    expected = tokens + 1 if rate == 1 else (1 - rate ** (tokens + 1)) / (1 - rate)
    error = 4 * np.std(draws) / len(draws) ** 0.5
    assert np.mean(draws) == pytest.approx(expected, abs=error + 1e-12)
    counts = np.bincount(draws, minlength=tokens + 2) / len(draws)
    for emitted in range(1, tokens + 1):
        assert counts[emitted] == pytest.approx(rate ** (emitted - 1) * (1 - rate), abs=0.01)


def test_a_request_ends_with_its_last_token_and_draws_the_same_again():
    acceptance, other = (Acceptance(DraftParams(tokens=4, acceptance=1)) for _ in range(2))
    assert [acceptance.emitted(3, left, 40) for left in (40, 3, 1)] == [5, 3, 1]
    acceptance, other = (Acceptance(DraftParams(tokens=4, acceptance=0.5)) for _ in range(2))
    first = [acceptance.emitted(7, left, 60) for left in range(60, 0, -1)]
    acceptance.forget(7)
    assert [other.emitted(8, left, 60) for left in range(60, 0, -1)] != first
    assert [acceptance.emitted(7, left, 60) for left in range(60, 0, -1)] == first


def test_iterations_of_one_request_are_those_drawn():
    scheduler = scheduler_of("vllm_v1", 100, draft=3)
    request = Request(5, 0, 20, 200)
    steps = sum(1 for batch, _, _ in drive(scheduler, [request]) if batch.decodes is not None)
    acceptance, left, expected = Acceptance(DraftParams(tokens=3, acceptance=0.6)), 199, 0
    while left:
        left -= acceptance.emitted(5, left, 200)
        expected += 1
    assert steps == expected < 199


@settings(max_examples=30, deadline=None)
@given(make=crowds(), tokens=st.integers(1, 6))
def test_without_acceptance_only_time_is_lost(make, tokens):
    """Rate 0: one token per iteration, and the same decisions as without a draft where memory is no concern."""

    def decisions(draft):
        scheduler = scheduler_of("vllm_v1", 10_000)
        if draft:
            scheduler.speculate(Acceptance(DraftParams(tokens=tokens, acceptance=0.0)))
        return [(sorted(planned.items()), [one.row for one in done]) for _, planned, done in run(scheduler, make())]

    assert decisions(draft=True) == decisions(draft=False)


class Linear:
    """A ps per token and per KV token."""

    stages = 2

    def times(self, shape):
        return (shape.tokens, shape.tokens + shape.kv)


def test_time_is_the_checks_and_the_drafts():
    times = SpeculativeTimes(Linear(), DraftParams(tokens=4, acceptance=0.5, cost=0.25))
    shape = Shape((), 10, 1000, 100, 50, 5)
    assert shape.tokens == 50
    assert times.times(shape) == (50, 50 + 1000 + round(4 * 0.25 * (10 + 10 + 1000)))
    assert times.steady(10, 1000, 100) == (50 + 50 + 1000 + 1020, 1)
    prompts = Shape(((64, 0),), 0, 0, 0, 1)
    assert times.times(prompts) == Linear().times(prompts)
    mixed = Shape(((64, 0),), 10, 1000, 100, 51, 5)
    assert times.times(mixed) == (114, 114 + 1000 + 1020)


def test_a_head_of_the_model_costs_one_layer():
    params = speculation_of("mtp:acceptance=0.8", layers=61)
    assert (params.tokens, params.cost) == (1, 1 / 61)
    assert speculation_of("mtp:tokens=2,acceptance=0.8,cost=0.5", layers=61).cost == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("eagle:acceptance=0.5", "unknown speculation 'eagle'"), ("draft", "acceptance"),
        ("draft:acceptance=1.5", "acceptance=1.5"),
        ("draft:acceptance=0.5,tokens=0", "tokens=0"), ("draft:acceptance=0.5,gamma=3", "unknown key 'gamma'"),
        ("draft:acceptance=nan", "acceptance=nan"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_in_words(text, message):
    with pytest.raises(ConfigError, match=message):
        serve(**POINT, speculation=text)


def test_policies_that_cannot_say_so():
    with pytest.raises(ConfigError, match="knows no speculative decoding"):
        serve(**POINT, scheduler="lightllm", speculation="draft:acceptance=0.5")
    assert issubclass(UnknownNameError, ConfigError)


def test_a_good_draft_saves_time_and_a_bad_one_costs_it():
    plain = serve(**POINT).requests.tpot.mean()
    good = serve(**POINT, speculation="draft:tokens=4,acceptance=0.8,cost=0.05").requests.tpot.mean()
    bad = serve(**POINT, speculation="draft:tokens=4,acceptance=0.0,cost=0.05").requests.tpot.mean()
    gain = (1 - 0.8**5) / 0.2 / 1.2  # tokens per iteration over its time, where checking five costs what one does
    assert bad > 1.19 * plain
    assert gain * 0.8 < plain / good < gain * 1.1
