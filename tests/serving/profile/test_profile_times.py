"""Iteration times from measured kernels: exact where it was measured, between its neighbours elsewhere, counted beyond."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_tables import CACHED, CHUNKS, LAYERS, LENGTHS, SEQUENCES, attention_us, dense_us, profile, write

from distsim.errors import ConfigError, UnknownNameError
from distsim.serving.iteration import Shape
from distsim.serving.times.profile import ProfileTimes, padded
from distsim.serving.times.profile_table import Attention, Curve, bracket


def us(times, shape):
    (ps,) = times.times(shape)
    return ps / 1e6


def rest_us(rows, samples):
    """8 tables per layer, one of them twice, two once per iteration; head and sampler."""
    return (LAYERS * 8 + 2) * dense_us(rows) + 2 * (100 + samples)


def test_exact_where_it_was_measured(tmp_path):
    times = ProfileTimes(str(profile(tmp_path)), "llama3-8b", graphs=False)
    for n, kv in itertools.product(SEQUENCES, LENGTHS):
        expected = rest_us(n, n) + LAYERS * attention_us(0, 0, n, kv)
        assert us(times, Shape((), n, n * kv, kv, n)) == pytest.approx(expected, abs=1e-5)
    for chunk, cached in itertools.product(CHUNKS, CACHED):
        expected = rest_us(chunk, 1) + LAYERS * attention_us(chunk, cached, 0, 0)
        assert us(times, Shape(((chunk, cached),), 0, 0, 0, 1)) == pytest.approx(expected, abs=1e-5)
        both = rest_us(chunk + 8, 9) + LAYERS * attention_us(chunk, cached, 8, 1024)
        if chunk < 2048:
            assert us(times, Shape(((chunk, cached),), 8, 8192, 1024, 9)) == pytest.approx(both, abs=1e-5)
    assert not times.extrapolated


def test_straight_lines_in_between(tmp_path):
    times = ProfileTimes(str(profile(tmp_path)), "llama3-8b", graphs=False)
    shape = Shape((), 20, 20 * 3000, 3000, 20)
    assert us(times, shape) == pytest.approx(rest_us(20, 20) + LAYERS * attention_us(0, 0, 20, 3000), rel=1e-9)


def test_prompts_of_one_batch_cost_what_they_cost_alone(tmp_path):
    times = ProfileTimes(str(profile(tmp_path)), "llama3-8b", graphs=False)
    two = us(times, Shape(((256, 0), (16, 512)), 0, 0, 0, 2)) - rest_us(272, 2)
    assert two == pytest.approx(LAYERS * (attention_us(256, 0, 0, 0) + attention_us(16, 512, 0, 0)), rel=1e-9)


def test_unequal_lengths_cost_alpha_of_the_way_to_the_longest(tmp_path):
    times = ProfileTimes(str(profile(tmp_path)), "llama3-8b", graphs=False)
    assert times.alpha == pytest.approx(0.25)
    even = us(times, Shape((), 8, 8 * 1024, 1024, 8))
    longest = us(times, Shape((), 8, 8 * 4096, 4096, 8))
    assert us(times, Shape((), 8, 8 * 1024, 4096, 8)) == pytest.approx(even + 0.25 * (longest - even), rel=1e-9)


def test_batches_run_in_the_next_cuda_graph(tmp_path):
    times = ProfileTimes(str(profile(tmp_path)), "llama3-8b", max_num_seqs=128)
    assert us(times, Shape((), 33, 33 * 1024, 1024, 33)) == pytest.approx(
        rest_us(40, 33) + LAYERS * attention_us(0, 0, 33, 1024), rel=1e-9
    )
    assert [padded(n, 256) for n in (1, 2, 3, 5, 248, 249, 256, 257)] == [1, 2, 4, 8, 248, 256, 256, 257]


def test_beyond_the_tables_is_counted_once_per_shape(tmp_path):
    times = ProfileTimes(str(profile(tmp_path)), "llama3-8b", graphs=False)
    for _ in range(2):
        assert us(times, Shape((), 8, 8 * 10_000, 10_000, 8)) == pytest.approx(
            rest_us(8, 8) + LAYERS * attention_us(0, 0, 8, 10_000), rel=1e-9
        )
    assert times.extrapolated == {"attention by tokens in cache": 1}
    times.times(Shape((), 300, 300 * 100, 100, 300))
    assert times.extrapolated["attention by sequences, chunk or cache of a prompt"] == 1
    assert times.extrapolated["per_sequence by sequences"] == 1


def test_tensor_parallel_ranks_take_their_own_tables_and_all_reduces(tmp_path):
    profile(tmp_path)
    with pytest.raises(ConfigError, match="no tables of tp 2"):
        ProfileTimes(str(tmp_path), "llama3-8b", tp=2)
    profile(tmp_path, at="tp2")
    one, two = (ProfileTimes(str(tmp_path), "llama3-8b", tp=tp, graphs=False) for tp in (1, 2))
    shape = Shape((), 8, 8192, 1024, 8)
    assert us(two, shape) > us(one, shape) + 64 * 5  # 65 all-reduces of some us each


@pytest.mark.parametrize(("name", "column"), [("moe", "activated_experts"), ("expert_times", "experts")])
def test_experts_replace_the_mlp(tmp_path, name, column):
    profile(tmp_path, mlp=False)
    with pytest.raises(ConfigError, match="no times of them"):
        ProfileTimes(str(tmp_path), "qwen3-30b-a3b")
    header = f"tokens,{column},time_us"
    rows = [(t, e, 3.0 * e + 0.5 * t) for e in (1, 8, 128) for t in (1, 64, 2048)]
    write(tmp_path / f"{name}.csv.gz", header, rows)
    times = ProfileTimes(str(tmp_path), "qwen3-30b-a3b", graphs=False)
    activated = 128 * (1 - (1 - 8 / 128) ** 64)
    expected = (48 * 5 + 2) * dense_us(64) + 2 * 164 + 48 * (attention_us(0, 0, 64, 1024) + 3 * activated + 32)
    assert us(times, Shape((), 64, 64 * 1024, 1024, 64)) == pytest.approx(expected, rel=1e-9)


@given(
    n=st.integers(1, 300), kv=st.integers(0, 9000), spread=st.integers(0, 5000),
    steps=st.integers(1, 20),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_steady_agrees_with_times(straight, n, kv, spread, steps):
    total, longest = n * kv, kv + (spread if n > 1 else 0)
    for _ in range(steps):
        ps, count = straight.steady(n, total, longest)
        assert count >= 1
        assert (ps,) == straight.times(Shape((), n, total, longest, n))
        total, longest = total + n, longest + 1


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return ProfileTimes(str(profile(tmp_path_factory.mktemp("profile"))), "llama3-8b")


@given(
    points=st.dictionaries(st.integers(1, 4096), st.floats(0.1, 1e4), min_size=1, max_size=12), x=st.floats(0, 4096),
)  # fmt: skip
def test_a_curve_stays_between_its_neighbours(points, x):
    curve = Curve(points.items())
    for size, value in points.items():
        assert curve.at(size) == value
    below = max((size for size in points if size <= x), default=min(points))
    above = min((size for size in points if size >= x), default=None)
    low, high = points[below], points[below if above is None else above]
    if above is not None:
        assert min(low, high) - 1e-6 <= curve.at(x) <= max(low, high) + 1e-6
    else:
        assert curve.at(x) >= points[max(points)]


@given(
    keys=st.lists(st.integers(1, 4096), min_size=1, max_size=8, unique=True).map(sorted), x=st.floats(0, 8192),
)  # fmt: skip
def test_weights_of_neighbours_add_up(keys, x):
    parts = bracket(keys, x)
    assert sum(weight for _, weight in parts) == pytest.approx(1)
    if keys[0] <= x <= keys[-1]:
        assert sum(key * weight for key, weight in parts) == pytest.approx(x)
        assert all(weight >= 0 for _, weight in parts)


@given(new=st.integers(1, 2048), cached=st.integers(0, 4096), n=st.integers(1, 64), kv=st.integers(16, 8192))
@settings(max_examples=100, deadline=None)
def test_attention_stays_between_the_corners_of_its_cell(straight, new, cached, n, kv):
    table = straight._attention

    def around(keys, x):
        return [max((k for k in keys if k <= x), default=keys[0]), min((k for k in keys if k >= x), default=keys[-1])]

    corners = [
        attention_us(*corner)
        for corner in itertools.product(around(CHUNKS, new), around(CACHED, cached), around(SEQUENCES, n), around(LENGTHS, kv))
    ]
    assert min(corners) - 1e-6 <= table.mixed(new, cached, n).at(kv) <= max(corners) + 1e-6


GRID = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"


def test_a_ragged_grid_is_met_where_it_was_measured(tmp_path):
    rows = [(16, 0, 0, 0, 3.0), (0, 0, 1, 16, 1.0), (0, 0, 1, 64, 2.0), (0, 0, 1, 256, 4.0)]
    rows += [(0, 0, 8, 16, 5.0), (0, 0, 8, 64, 8.0)]
    write(tmp_path / "attention.csv.gz", GRID, rows)
    table = Attention(tmp_path / "attention.csv.gz")
    assert table.generating(1).at(256) == 4.0
    assert table.generating(8).at(64) == 8.0
    assert table.generating(4).top == 64  # beyond it a corner of the cell is missing


def test_equal_batches_of_the_skew_table_refine_the_grid(tmp_path):
    grid = [(16, 0, 0, 0, 3.0), (0, 0, 2, 16, 1.0), (0, 0, 2, 64, 2.0), (0, 0, 2, 256, 4.0)]
    write(tmp_path / "attention.csv.gz", GRID, grid)
    rows = [(0, 0, 2, 128, 64, 9.0, 6.0, 7.0), (0, 0, 2, 128, 256, 9.0, 12.0, 10.0), (0, 0, 4, 128, 256, 1.0, 1.0, 1.0)]
    write(tmp_path / "skew.csv.gz", "pc,kp,n,kv_mean,kv_big,t_mean_us,t_max_us,t_skew_us", rows)
    line = Attention(tmp_path / "attention.csv.gz", tmp_path / "skew.csv.gz").generating(2)
    assert [line.at(kv) for kv in (16, 64, 128, 256)] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dense.csv", "layer,tokens\nqkv_proj,1\n", "no column 'time_us'"),
        ("dense.csv", "layer,tokens,time_us\n", "no rows"),
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,one,2\n", "tokens is 'one'"),
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,1,-2\n", "time_us is -2"),
        ("dense.csv", "layer,tokens,time_us\nqkv_proj,1,nan\n", "time_us is nan"),
        ("attention.csv", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n16,0,0,0,1\n", "generation alone"),
        ("attention.csv", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,16,1\n", "without rows of it alone"),
        ("per_sequence.csv", "\x00", "no column"),
    ],
)
def test_bad_tables_are_refused_in_words(tmp_path, file, content, message):
    profile(tmp_path)
    (tmp_path / f"{file}.gz").unlink()
    with pytest.raises(ConfigError, match="holds no"):
        ProfileTimes(str(tmp_path), "llama3-8b")
    (tmp_path / file).write_text(content)
    with pytest.raises(ConfigError, match=message) as refused:
        ProfileTimes(str(tmp_path), "llama3-8b")
    assert file in str(refused.value)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        ProfileTimes(str(tmp_path / "none"), "llama3-8b")
    with pytest.raises(UnknownNameError):
        ProfileTimes(str(profile(tmp_path)), "llama9-8b")
    (tmp_path / "dense.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(ConfigError, match="cannot be read"):
        ProfileTimes(str(tmp_path), "llama3-8b")
