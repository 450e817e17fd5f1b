"""Laws of lengths against their theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.params import parse, validated
from distsim.registry import lookup, names

N = 40_000
SIX = 6.0
EVERY = ("fixed:prompt=10,output=3", "uniform:prompt=100-2000,output=10-500", "uniform:total=1024-4096,ratio=20",
         "zipf:theta=0.6,total=1024-4096,ratio=20", "zipf:theta=1.2,prompt=5-50,output=7",
         "lognormal:prompt_median=1000,prompt_sigma=1,output_mean=200,output_p99=800")  # fmt: skip


def law(spec):
    name, options = parse(spec)
    component = lookup("lengths", name)
    return component(validated(component.Params, name, options))


def pairs(spec, n=N, seed=1):
    return law(spec).pairs(n, np.random.default_rng(seed))


def test_every_law_is_tested_here():
    assert {parse(spec)[0] for spec in EVERY} | {"trace"} == set(names("lengths"))


def test_uniform_has_its_ends_and_moments():
    prompt, output = pairs("uniform:prompt=100-199,output=1-6")
    assert set(output.tolist()) == {1, 2, 3, 4, 5, 6}
    assert (prompt.min(), prompt.max()) == (100, 199)
    sd = math.sqrt((100**2 - 1) / 12)
    assert prompt.mean() == pytest.approx(149.5, abs=SIX * sd / math.sqrt(N))
    assert abs(np.corrcoef(prompt, output)[0, 1]) < SIX / math.sqrt(N)


def test_a_total_is_cut_by_its_ratio_as_vidur_cuts_it():
    prompt, output = pairs("uniform:total=1024-4096,ratio=20")
    total = prompt + output
    assert (total.min() >= 1024) & (total.max() <= 4096)
    assert np.array_equal(output, np.ceil(total / 21))


def test_zipf_falls_as_its_power():
    theta = 1.2
    prompt, output = pairs(f"zipf:theta={theta},prompt=5-50,output=7")
    assert set(output.tolist()) == {7}
    weights = np.arange(1, 47) ** -theta
    chance = weights / weights.sum()
    counts = np.bincount(prompt - 5, minlength=46)
    assert len(counts) == 46
    assert np.all(np.abs(counts - N * chance) <= SIX * np.sqrt(N * chance))


def test_lognormal_from_median_and_sigma():
    prompt, _ = pairs("lognormal:prompt_median=1000,prompt_sigma=0.8,output_median=50,output_sigma=0")
    logs = np.log(prompt)
    assert logs.mean() == pytest.approx(math.log(1000), abs=SIX * 0.8 / math.sqrt(N))
    assert logs.std() == pytest.approx(0.8, rel=SIX / math.sqrt(2 * N))


def test_lognormal_from_mean_and_p99():
    _, output = pairs("lognormal:prompt_median=1000,prompt_sigma=0,output_mean=2000,output_p99=8000")
    sigma = 2.3263 - math.sqrt(2.3263**2 - 2 * math.log(4))
    assert output.mean() == pytest.approx(2000, rel=SIX * math.sqrt(math.expm1(sigma**2) / N))
    above = np.mean(output > 8000)
    assert above == pytest.approx(0.01, abs=SIX * math.sqrt(0.01 / N))


def test_lognormal_lengths_may_go_together():
    tied = pairs("lognormal:prompt_median=1000,prompt_sigma=1,output_median=1000,output_sigma=1,correlation=0.6")
    found = np.corrcoef(*np.log(tied))[0, 1]
    assert found == pytest.approx(0.6, abs=SIX * (1 - 0.36) / math.sqrt(N))


@pytest.fixture
def few(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("num_prefill_tokens,num_decode_tokens\n10,1\n20,2\n30,3\n")
    return path


def test_pairs_of_a_trace_stay_pairs(few):
    prompt, output = pairs(f"trace:file={few}", 3000)
    assert np.array_equal(prompt, 10 * output)
    counts = np.bincount(output, minlength=4)[1:]
    assert np.all(np.abs(counts - 1000) <= SIX * math.sqrt(3000 * 2 / 9))
    prompt, output = pairs(f"trace:file={few},pick=order", 7)
    assert output.tolist() == [1, 2, 3, 1, 2, 3, 1]
    prompt, output = pairs(f"trace:file={few},pick=shuffle", 6)
    assert sorted(output[:3].tolist()) == sorted(output[3:].tolist()) == [1, 2, 3]


@pytest.mark.parametrize("spec", EVERY)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), few=st.integers(0, 200), more=st.integers(0, 500))
def test_more_requests_begin_with_the_same_lengths(spec, seed, few, more):
    short, long = pairs(spec, few, seed), pairs(spec, few + more, seed)
    for one, other in zip(short, long, strict=True):
        assert one.dtype == np.int64
        assert np.array_equal(one, other[:few])
        assert np.all(other >= 1)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("fixed:prompt=10", "is missing"), ("fixed:prompt=0,output=1", "greater than or equal to 1"),
        ("uniform:prompt=5-1,output=1", "ascends"), ("uniform:prompt=0-5,output=1", "at least 1"),
        ("uniform:prompt=a-b,output=1", "no range"), ("uniform:prompt=1-5", "it takes prompt and output"),
        ("uniform:total=10-20", "it takes prompt and output"), ("uniform:total=1-20,ratio=2", "at least 2"),
        ("uniform:total=10-20,ratio=0", "greater than 0"), ("zipf:prompt=1-5,output=1,theta=-1", "greater than or equal"),
        ("lognormal:prompt_median=5,prompt_sigma=1", "output: it takes"),
        ("lognormal:prompt_median=5,prompt_mean=1,output_median=5,output_sigma=1", "prompt: it takes"),
        ("lognormal:prompt_mean=10,prompt_p99=500,output_median=5,output_sigma=1", "14.97"),
        ("lognormal:prompt_mean=10,prompt_p99=5,output_median=5,output_sigma=1", "p99 is 1 to"),
        ("trace:file=absent.csv", "cannot be read"), ("fixed:prompt=1,output=2,outptu=3", "unknown key 'outptu'"),
    ],
)  # fmt: skip
def test_bad_options_of_lengths_are_refused_in_words(spec, words):
    with pytest.raises(ConfigError) as caught:
        law(spec)
    assert words in str(caught.value)
