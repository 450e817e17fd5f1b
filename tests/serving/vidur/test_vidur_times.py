"""Iteration times from Vidur's tables: its formula bit for bit, its measured stages, what the table does not hold."""

from __future__ import annotations

import ast
import csv
import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.serving.iteration import Shape
from distsim.serving.times.vidur import VidurTimes

TOKENS, BATCH, BUCKETS = 512, 32, 20
LINEAR = (
    "attn_pre_proj", "attn_post_proj", "attn_rope", "attn_kv_cache_save", "input_layernorm", "mlp_up_proj", "mlp_down_proj",
    "mlp_act", "post_attention_layernorm", "add", "all_reduce", "send_recv",
)  # fmt: skip


def arrays(rng=None):
    """Durations drawn at random, or 1 ms each."""
    draw = (lambda *shape: rng.uniform(0.001, 1, shape)) if rng is not None else (lambda *shape: np.ones(shape))
    made = {name: draw(TOKENS + 1) for name in LINEAR}
    made["attn_prefill"], made["attn_decode"] = draw(BUCKETS + 1, TOKENS + 1), draw(BATCH + 1, BUCKETS + 1)
    made["attn_prefill_kv"] = made["attn_decode_kv"] = np.arange(BUCKETS + 1) * 64
    return made


@pytest.fixture(scope="module")
def random_table(tmp_path_factory):
    made = arrays(np.random.default_rng(7))
    made["attn_decode"][0] = np.nan
    file = tmp_path_factory.mktemp("tables") / "random.npz"
    np.savez(file, **made)
    return str(file), made


def expected(table, prefills, lengths, *, layers, gqa, pp, tp):
    """ps per stage as Vidur adds them up. lengths: of what generates, the token that is fed in included."""
    tokens = sum(new for new, _ in prefills) + len(lengths)
    r = (tokens + 7) // 8 * 8
    decode = prefill = 0.0
    if lengths:
        decode = table["attn_decode"][len(lengths), (int(np.mean(lengths)) + 63) // 64]
        decode *= 1.1 if gqa and len(lengths) > 1 else 1
    if prefills:
        cached = sum((kv + 63) // 64 for _, kv in prefills)
        prefill = table["attn_prefill"][cached, round(sum(new**2 for new, _ in prefills) ** 0.5)]
        prefill *= 1.1 if gqa and len(prefills) > 1 else 1
    comm = table["all_reduce"][r] + 0.02 if tp > 1 else 0.0
    attention = (
        table["attn_pre_proj"][r] + table["attn_post_proj"][r] + table["attn_rope"][r] + table["attn_kv_cache_save"][tokens]
        + decode + prefill + comm + table["input_layernorm"][r]
    )  # fmt: skip
    mlp = table["mlp_up_proj"][r] + table["mlp_down_proj"][r] + table["mlp_act"][r] + comm
    mlp += table["post_attention_layernorm"][r]
    ms = (attention + mlp + table["add"][r]) * (layers // pp)
    return tuple(round((ms + (table["send_recv"][r] if stage < pp - 1 else 0)) * 1e-3 * 1e12) for stage in range(pp))


@settings(max_examples=150, deadline=None)
@given(
    prefills=st.lists(st.tuples(st.integers(1, 100), st.integers(0, 300)), max_size=3),
    lengths=st.lists(st.integers(2, 1200), max_size=BATCH), gqa=st.booleans(), pp=st.sampled_from([1, 2, 4]),
    tp=st.sampled_from([1, 2]),
)  # fmt: skip
def test_vidurs_formula_bit_for_bit(random_table, prefills, lengths, gqa, pp, tp):
    if not prefills and not lengths:
        return
    file, table = random_table
    shape = Shape(tuple(prefills), len(lengths), sum(lengths) - len(lengths), max(lengths, default=1) - 1, 0)
    times = VidurTimes(file, 32, gqa, pp, tp).times(shape)
    assert times == expected(table, prefills, lengths, layers=32, gqa=gqa, pp=pp, tp=tp)


@settings(max_examples=100, deadline=None)
@given(sequences=st.integers(1, BATCH), mean=st.integers(1, 1100), rest=st.integers(0, BATCH - 1))
def test_steady_is_the_same_for_as_long_as_it_says_and_no_longer(random_table, sequences, mean, rest):
    times = VidurTimes(random_table[0], 32)
    kv = sequences * mean + rest % sequences
    ps, count = times.steady(sequences, kv, mean + 5)
    assert 1 <= count <= 64
    for further in range(count):
        assert times.times(Shape((), sequences, kv + sequences * further, 0, sequences)) == (ps,)
    assert times.times(Shape((), sequences, kv + sequences * count, 0, sequences)) != (ps,)


def test_closed_form(tmp_path):
    """All operators 1 ms: 10 per layer without attention, one for what generates, one for prompts; 80 layers in 4 stages."""
    np.savez(tmp_path / "t.npz", **arrays())
    times = VidurTimes(str(tmp_path / "t.npz"), 80, pp=4)
    ms = 10**9
    assert times.times(Shape((), 3, 30, 10, 3)) == (221 * ms, 221 * ms, 221 * ms, 220 * ms)
    assert times.times(Shape(((10, 0),), 3, 30, 10, 3))[-1] == 240 * ms
    reduced = VidurTimes(str(tmp_path / "t.npz"), 80, tp=2)
    assert reduced.times(Shape((), 1, 10, 10, 1)) == (round(80 * (11 + 2 * 1.02) * ms),)


@pytest.mark.parametrize("name", ["7b_a100_tp1_vllm", "7b_a100_tp1_sarathi", "7b_a100_pp2_sarathi"])
def test_every_stage_of_every_batch_of_vidurs(serving_reference, name):
    folder = serving_reference / "vidur"
    pp = 2 if "pp2" in name else 1
    times = VidurTimes(str(folder / "tables" / f"Llama-2-7b-hf_a100_tp1_pp{pp}_a100_dgx_mt4096.npz"), 32, pp=pp)
    with gzip.open(folder / name / "batches.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 5000
    for row in rows:
        sequences, mean = ast.literal_eval(row["decode_params"])
        prefills = tuple((chunk, kv) for kv, chunk in ast.literal_eval(row["prefill_params"]))
        shape = Shape(prefills, sequences, sequences * (mean - 1), mean, 0)
        assert times.times(shape) == tuple(round(float(s) * 1e12) for s in row["stage_execution_times"].split())


def broken(tmp_path, **changes):
    made = arrays() | changes
    np.savez(tmp_path / "t.npz", **{name: value for name, value in made.items() if value is not None})
    return str(tmp_path / "t.npz")


def test_bad_tables_are_refused_in_words(tmp_path):
    (tmp_path / "text.npz").write_text("no table")
    with pytest.raises(ConfigError, match="no table of durations"):
        VidurTimes(str(tmp_path / "text.npz"), 32)
    with pytest.raises(ConfigError, match="no table of durations"):
        VidurTimes(str(tmp_path / "absent.npz"), 32)
    with pytest.raises(ConfigError, match="all_reduce"):
        VidurTimes(broken(tmp_path, all_reduce=None), 32, tp=2)
    with pytest.raises(ConfigError, match="send_recv"):
        VidurTimes(broken(tmp_path, send_recv=None), 32, pp=2)
    with pytest.raises(ConfigError, match="attn_decode"):
        VidurTimes(broken(tmp_path, attn_decode_kv=None), 32)
    with pytest.raises(ConfigError, match="grid"):
        VidurTimes(broken(tmp_path, attn_decode_kv=np.arange(BUCKETS + 1) ** 2), 32)
    with pytest.raises(ConfigError, match="pp=5 does not divide 32 layers"):
        VidurTimes(broken(tmp_path), 32, pp=5)


def test_beyond_the_table_nothing_is_made_up(tmp_path, random_table):
    times = VidurTimes(broken(tmp_path, mlp_act=np.r_[np.ones(257), np.full(TOKENS - 256, np.nan)]), 32)
    for shape in (
        Shape(((TOKENS + 1, 0),), 0, 0, 0, 1), Shape(((300, 0),), 0, 0, 0, 1), Shape(((8, 64 * BUCKETS + 1),), 0, 0, 0, 1),
        Shape((), BATCH + 1, 100, 9, 1), Shape((), 1, 64 * BUCKETS, 64 * BUCKETS, 1),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="does not hold"):
            times.times(shape)
    with pytest.raises(ConfigError, match="does not hold"):
        times.steady(BATCH + 1, 1000, 50)
