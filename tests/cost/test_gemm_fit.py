"""Fits of GEMM models: they find what made the data, and meet their bars on weight shapes that they have not seen."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distsim.cost.fit.boosting import boost
from distsim.cost.fit.gemm import Gemms, calibrated, fit, fold_of, left_out_both, relative_errors
from distsim.cost.fit.least import least_deviations
from distsim.cost.kernels.tile_wave import evaluate, typical
from distsim.errors import ConfigError
from distsim.hardware.gpu import gpu
from distsim.validation.compute_gemm import read_gemms

H100 = gpu("h100_sxm")
#: mean absolute relative error in percent, bf16: tile/wave, hybrid, and with 40 points of the GPU and the others' parameters
BARS = {"a100_sxm": (9, 6, 11), "h100_sxm": (9, 5, 9), "b200_sxm": (11, 7, 11), "l40s": (20, 11, 23)}


def some_shapes(count: int, seed: int = 0) -> np.ndarray:
    return (2 ** np.random.default_rng(seed).uniform(4, 14, (count, 3))).astype(np.int64)


@functools.cache
def gemms_of(folder: Path) -> dict[str, Gemms]:
    found, _ = read_gemms(folder / "gemm_measured.parquet")
    return {name: Gemms(gpu(name), "bf16", *found[name, "bf16"]) for name in BARS}


@pytest.fixture
def measured(compute_reference: Path) -> dict[str, Gemms]:
    return gemms_of(compute_reference)


def percent(errors: np.ndarray) -> float:
    return 100 * float(np.abs(errors).mean())


def test_least_deviations_finds_a_line_among_wild_points():
    x = np.linspace(0, 1, 60)
    y = 2 + 3 * x
    y[::10] += 50
    found, _ = least_deviations(lambda p: p[0] + p[1] * x - y, np.zeros(2), prior=np.zeros(2), pull=np.zeros(2), rounds=200)
    assert found == pytest.approx([2, 3], abs=0.05)


def test_least_deviations_stays_where_the_data_say_nothing():
    found, _ = least_deviations(lambda p: p[:1] - 1.0, np.array([0.0, 7.0]), prior=np.array([0.0, 7.0]), pull=np.full(2, 1e-3))
    assert found[1] == pytest.approx(7.0)
    assert found[0] == pytest.approx(1.0, abs=0.05)


def test_a_fit_finds_the_model_that_made_the_data():
    truth = replace(typical("bf16"), compute_efficiency=0.6, memory_efficiency=0.55, overhead_us=6.0)
    shapes = some_shapes(400)
    seconds = evaluate(shapes, H100, "bf16", truth)[:, 0] * np.exp(np.random.default_rng(1).normal(0, 0.03, 400))
    found = fit(Gemms(H100, "bf16", shapes, seconds), typical("bf16"))
    assert found.compute_efficiency == pytest.approx(0.6, abs=0.05)
    assert found.memory_efficiency == pytest.approx(0.55, abs=0.05)
    assert found.overhead_us == pytest.approx(6.0, rel=0.1)
    fresh = some_shapes(400, 2)
    errors = relative_errors(Gemms(H100, "bf16", fresh, evaluate(fresh, H100, "bf16", truth)[:, 0]), found)
    assert percent(errors) < 3


def test_quantising_x_is_told_from_the_gemm():
    truth = replace(typical("fp8"), quantise_bandwidth=0.2)
    shapes = some_shapes(300)
    found = fit(Gemms(H100, "fp8", shapes, evaluate(shapes, H100, "fp8", truth)[:, 0]), typical("fp8"))
    assert found.quantise_bandwidth == pytest.approx(0.2, rel=0.15)


def test_a_fold_holds_whole_weight_shapes_and_depends_on_nothing_else():
    shapes = some_shapes(2000)
    shapes[1000:, 1:] = shapes[:1000, 1:]
    fold = fold_of(shapes)
    assert np.array_equal(fold[:1000], fold[1000:])
    assert np.array_equal(fold_of(shapes[::-1]), fold[::-1])
    assert min(np.bincount(fold, minlength=5)) > 300


def test_fits_and_learners_are_the_same_again():
    shapes = some_shapes(120)
    gemms = Gemms(H100, "bf16", shapes, evaluate(shapes, H100, "bf16", typical("bf16"))[:, 0] * 1.1)
    assert fit(gemms, typical("bf16")) == fit(gemms, typical("bf16"))
    x, y = np.random.default_rng(0).random((200, 3)), np.random.default_rng(1).random(200)
    first, again = (boost(x, y, np.random.default_rng(5), trees=20, depth=3) for _ in range(2))
    assert first == again


def test_boosting_learns_a_step_and_compiled_is_interpreted(monkeypatch):
    x = np.random.default_rng(0).random((400, 2))
    y = np.where(x[:, 0] > 0.5, 0.2, -0.1) + np.where(x[:, 1] > 0.3, 0.05, 0.0)
    found = []
    for form in ("python", "compiled"):
        monkeypatch.setenv("DISTSIM_KERNELS", form)
        learner = boost(x, y, np.random.default_rng(0), trees=60, depth=2, rate=0.2)
        found.append((learner, learner.predict(x).tolist()))
        assert np.abs(learner.predict(x) - y).mean() < 0.02
    assert found[0] == found[1]


def test_too_few_points_and_a_single_weight_shape_are_refused():
    shapes = some_shapes(39)
    with pytest.raises(ConfigError, match="39 distinct shapes"):
        calibrated(Gemms(H100, "bf16", shapes, np.ones(39)), typical("bf16"))
    repeated = np.repeat(shapes, 4, axis=0)
    with pytest.raises(ConfigError, match="39 distinct shapes"):
        calibrated(Gemms(H100, "bf16", repeated, np.ones(len(repeated))), typical("bf16"))
    one = np.stack([np.arange(1, 61), np.full(60, 4096), np.full(60, 4096)], axis=1)
    with pytest.raises(ConfigError, match="one weight shape"):
        calibrated(Gemms(H100, "bf16", one, np.ones(60)), typical("bf16"))


@pytest.mark.parametrize("name", BARS)
def test_40_points_of_an_unseen_gpu_are_enough(name, measured):
    gemms = measured[name]
    found = []
    for seed in range(5):
        picked = np.zeros(len(gemms.seconds), dtype=bool)
        picked[np.random.default_rng(seed).choice(len(picked), 40, replace=False)] = True
        own = fit(gemms.only(picked), typical("bf16", name))
        found.append(percent(relative_errors(gemms.only(~picked), own)))
    assert np.median(found) <= BARS[name][2]


@pytest.mark.slow
@pytest.mark.parametrize("name", BARS)
def test_bars_on_weight_shapes_left_out(name, measured):
    # a third of the rows: quicker, and less to learn from than the bars allow
    third = np.arange(len(measured[name].seconds)) % 3 == 0
    plain, hybrid = left_out_both(measured[name].only(third), typical("bf16", name))
    assert percent(plain) <= BARS[name][0]
    assert percent(hybrid) <= BARS[name][1]
