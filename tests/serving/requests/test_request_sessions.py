"""Sessions: hashes tell exactly what is shared, and turns follow each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.serving.requests.blocks import Chains, with_blocks
from distsim.serving.requests.read import requests
from distsim.serving.requests.table import requests_of
from distsim.serving.requests.tenants import together
from distsim.units import PS_PER_S

SHORT = "uniform:prompt=1-20,output=1-15"


def chat(sessions, n=30, seed=0, **options):
    return requests(options.pop("arrivals_spec", "poisson:qps=2"), lengths=SHORT, n=n, seed=seed, sessions=sessions, **options)


def transcripts(table, prefix):
    """Every row's tokens through its answer, built from lengths alone: tokens of a system prompt are shared, others are new.

    One system prompt only, so no knowledge of the generator's choices is needed.
    """
    fresh = itertools.count(prefix)
    said: dict[int, list[int]] = {}
    rows = []
    for row in range(len(table)):
        session = int(table.session[row])
        history = said.get(session, list(range(prefix))) if session >= 0 else list(range(prefix))
        tokens = history + [next(fresh) for _ in range(int(table.prompt[row] + table.output[row]) - len(history))]
        said[session] = tokens
        rows.append(tokens)
    return rows


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000), turns=st.sampled_from(["1", "1.5", "4", "3,spread=fixed"]), prefix=st.integers(1, 50),
    shared=st.booleans(), block=st.sampled_from([1, 4, 16]),
)  # fmt: skip
def test_numbers_are_equal_exactly_where_prefixes_are(seed, turns, prefix, shared, block):
    given_prefix = f",prefixes=1,prefix_tokens={prefix}" if shared else ""
    table = chat(f"turns={turns},block={block}{given_prefix}", seed=seed)
    rows = transcripts(table, prefix if shared else 0)
    chains = Chains(block)
    there, back = {}, {}
    for row, tokens in enumerate(rows):
        numbers = list(table.hashes.get(row, ()))
        if not table.hashes:
            continue
        assert len(numbers) == len(tokens) // block
        for number, truth in zip(numbers, chains.of(tokens), strict=True):
            assert there.setdefault(number, truth) == truth
            assert back.setdefault(truth, number) == number


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.lists(st.integers(0, 1), max_size=20), min_size=2, max_size=6), block=st.integers(1, 4))
def test_chains_are_equal_exactly_where_tokens_are(rows, block):
    chains = Chains(block)
    numbers = [chains.of(row) for row in rows]
    for (one, a), (other, b) in itertools.combinations(zip(rows, numbers, strict=True), 2):
        for at in range(min(len(a), len(b))):
            assert (a[at] == b[at]) == (one[: (at + 1) * block] == other[: (at + 1) * block])


def test_prefixes_are_popular_by_zipf():
    table = chat("turns=1,prefixes=4,prefix_tokens=64,prefix_theta=1", n=20_000)
    counts = np.bincount([table.hashes[row][0] // 4 for row in range(len(table))], minlength=4)
    chance = 1 / np.arange(1, 5) / sum(1 / k for k in range(1, 5))
    assert np.all(np.abs(counts - 20_000 * chance) <= 6 * np.sqrt(20_000 * chance))
    assert np.all(table.session == -1)
    assert np.all(table.prompt > 64)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 60), more=st.integers(0, 60))
def test_turns_follow_each_other(seed, n, more):
    table, longer = (chat("turns=3,think=2s,prefixes=2", n=k, seed=seed) for k in (n, n + more))
    assert len(table) == n
    for row in np.flatnonzero(table.after >= 0).tolist():
        before = int(table.after[row])
        assert table.session[before] == table.session[row]
        assert table.arrival[row] == table.arrival[before] + table.think[row]
        assert table.prompt[row] > table.prompt[before] + table.output[before]
        shared = (table.prompt[before] + table.output[before]) // 16
        assert list(table.hashes[row])[:shared] == list(table.hashes[before])[:shared]
    sessions = set(table.session.tolist())
    assert np.sum(table.after < 0) == len(sessions)
    for name in ("arrival", "prompt", "output", "session", "after", "think"):
        assert np.array_equal(getattr(table, name), getattr(longer, name)[:n]), name


def test_turns_and_thinking_have_their_means():
    table = chat("turns=3,think=10s,think_cv=0.5", n=30_000)
    begun = int(np.sum(table.after < 0))
    # a window of time cuts late turns off: compare where sessions had time to end
    early = table.session < begun // 2
    turns = np.bincount(table.session[early])
    spread = np.sqrt(3 * 2)  # of the geometric law from 1 on: sqrt(1 - p)/p
    assert turns.mean() == pytest.approx(3, abs=6 * spread / np.sqrt(len(turns)))
    think = table.think[table.after >= 0] / PS_PER_S
    assert think.mean() == pytest.approx(10, abs=6 * 5 / np.sqrt(len(think)))
    assert think.std() == pytest.approx(5, rel=0.1)


def test_answers_taken_for_granted_fix_the_times():
    closed = chat("turns=3,think=2s,think_cv=0")
    fixed = chat("turns=3,spread=fixed,think=2s,think_cv=0,answer=100ms", n=60)
    assert np.any(closed.after >= 0)
    assert np.all(fixed.after == -1)
    for session in range(5):
        rows = np.flatnonzero(fixed.session == session)
        gaps = np.diff(fixed.arrival[rows])
        assert np.array_equal(gaps, 2 * PS_PER_S + fixed.output[rows][:-1] * (PS_PER_S // 10))


def test_sessions_end_before_they_are_too_long():
    table = chat("turns=8,spread=fixed,think=1s", n=200, max_total=100)
    assert np.all(table.prompt + table.output <= 100)
    assert any("sessions end early" in text for text in table.warnings)
    tight = chat("turns=1,prefixes=1,prefix_tokens=40", n=100, max_total=50, max_prompt=48)
    assert np.all(tight.prompt + tight.output <= 50)
    assert np.all(tight.prompt <= 48)
    assert "requests are clamped" in tight.warnings[0]
    with pytest.raises(ConfigError, match="leaves no room"):
        chat("turns=1,prefixes=1,prefix_tokens=60", max_total=50)


def test_static_and_windowed_sessions():
    table = chat("turns=2,spread=fixed,think=5s", n=10, arrivals_spec="static")
    assert np.all(table.arrival == 0)
    table = requests("uniform:qps=1", lengths=SHORT, duration="10s", sessions="turns=3,spread=fixed,think=4s,think_cv=0")
    assert np.all(table.arrival < 10 * PS_PER_S)
    assert len(table) == 9 + 5 + 1


@pytest.mark.parametrize(
    ("sessions", "words"),
    [
        ("turns=0", "greater than or equal to 1"), ("turns=2.5,spread=fixed", "whole"), ("truns=2", "unknown key 'truns'"),
        ("prefixes=2,prefix_tokens=9-2", "ascends"), ("think=soon", "not a time"), ("block=0", "greater than or equal to 1"),
        ("turns", "not key=value"),
    ],
)  # fmt: skip
def test_bad_sessions_are_refused_in_words(sessions, words):
    with pytest.raises(ConfigError) as caught:
        chat(sessions)
    assert words in str(caught.value)


def test_blocks_of_another_size():
    table = chat("turns=3,prefixes=1", n=20)
    coarse, fine = with_blocks(table, 64), with_blocks(table, 8)
    for row in range(20):
        own = list(table.hashes[row])
        assert list(coarse.hashes[row]) == own[3::4]
        assert [number // 2 for number in fine.hashes[row]][::2] == own
        assert len(set(fine.hashes[row])) == 2 * len(own)
    with pytest.raises(ConfigError, match="not by 24"):
        with_blocks(table, 24)


def test_tenants_together():
    one, two = (chat("turns=3,prefixes=1", n=20, seed=seed, tenant=name) for seed, name in ((1, "a"), (2, "b")))
    both = together([one, two])
    assert both.names == ("a", "b")
    assert len(both) == 40
    for number, stream in enumerate((one, two)):
        rows = np.flatnonzero(both.tenant == number)
        for name in ("arrival", "prompt", "output", "think"):
            assert np.array_equal(getattr(both, name)[rows], getattr(stream, name))
        follow = np.flatnonzero(stream.after >= 0)
        assert np.array_equal(both.after[rows[follow]], rows[stream.after[follow]])
    numbers = [{number for row in np.flatnonzero(both.tenant == t).tolist() for number in both.hashes[row]} for t in (0, 1)]
    assert not numbers[0] & numbers[1]
    assert not set(both.session[both.tenant == 0]) & set(both.session[both.tenant == 1])
    single = np.array([5])
    other = requests_of(single, single, single, hashes={0: [1]}, hash_block=512)
    with pytest.raises(ConfigError, match="16 and 512"):
        together([one, other])
    with pytest.raises(ConfigError, match="no stream"):
        together([])
