"""Goodput against Young's and Daly's formulas, and against published facts."""

from __future__ import annotations

import math

import pytest

from distsim.goodput.daly import daly_goodput, daly_interval, young_interval
from distsim.goodput.durations import DAY, HOUR, MINUTE
from distsim.goodput.job import Job
from distsim.goodput.study import curve, expected, intervals_around, study


@pytest.mark.parametrize(
    ("mtbf", "checkpoint", "restart", "detection", "write"),
    [
        (10_000, 60, 300, 0, 0),
        (5_000, 200, 600, 100, 0),  # a third of the time is wasted
        (1_000, 100, 200, 0, 0),  # half of it: second failures in restarts count
        (500, 100, 300, 10, 0),  # three quarters
        (20_000, 5, 600, 60, 300),  # asynchronous
        (5_000, 5, 300, 0, 200),
    ],
)
def test_waste_is_dalys(mtbf, checkpoint, restart, detection, write):
    job = Job(
        step=1, nodes=10, mtbf=mtbf, checkpoint=checkpoint, restart=restart, detection=detection, write=write
    )  # fmt: skip
    found = study(job, 400 * mtbf, runs=100, seed=1)
    assert 1 - found.goodput.mean == pytest.approx(1 - found.daly, rel=0.02)
    assert found.goodput.low - 0.002 < found.daly < found.goodput.high + 0.002


def test_interval_off_the_optimum_is_dalys_too():
    job = Job(step=1, nodes=10, mtbf=10_000, checkpoint=60, restart=300)
    for one in curve(job, 4e6, [100, 400, 3000, 10_000], runs=60):
        assert 1 - one.goodput.mean == pytest.approx(1 - one.daly, rel=0.03)


def test_formula_by_hand():
    # no failure to speak of: C of every tau + C is lost
    assert daly_goodput(100, 10, 1e12, 0) == pytest.approx(100 / 110)
    # Daly: M e^(R/M) (e^((tau + C) / M) - 1) for tau
    assert daly_goodput(1, 0, 1, 1) == pytest.approx(1 / (math.e * (math.e - 1)))
    # first order: C / tau + tau / 2M + (R + detection) / M
    waste = 1 - daly_goodput(1000, 10, 1e6, 50, 20)
    assert waste == pytest.approx(10 / 1000 + 1000 / 2e6 + 70 / 1e6, rel=0.02)
    assert daly_goodput(1e6, 0, 1, 0) == 0.0


@pytest.mark.parametrize(("cost", "mtbf"), [(1, 10_000), (60, 10_000), (300, 10_000), (1000, 10_000)])
def test_dalys_optimum_is_the_optimum_of_his_formula(cost, mtbf):
    found = max(
        (daly_goodput(tau, cost, mtbf, 300), tau) for tau in [young_interval(cost, mtbf) * k / 500 for k in range(50, 1000)]
    )
    assert daly_interval(cost, mtbf) == pytest.approx(found[1], rel=0.01)
    assert daly_interval(cost, mtbf) == pytest.approx(young_interval(cost, mtbf), rel=0.2)
    assert daly_interval(3 * mtbf, mtbf) == mtbf


def test_simulated_optimum_is_youngs():
    job = Job(step=1, nodes=10, mtbf=10_000, checkpoint=20, restart=300)
    points = curve(job, 4e6, intervals_around(job, 17, 4.0), runs=60)
    best = max(points, key=lambda one: one.goodput.mean).job.interval
    young = math.sqrt(2 * 20 * 10_000)
    assert young / 1.3 < best < young * 1.3
    falls = [one.goodput.mean for one in points]
    top = falls.index(max(falls))
    assert falls[: top + 1] == sorted(falls[: top + 1])
    assert falls[top:] == sorted(falls[top:], reverse=True)


def llama3(**more):
    """Llama 3 405B, section 3.3.4: 419 unexpected interruptions in 54 days on 16,384 GPUs, > 90 % effective training time.

    Assumed: about 14 bytes of state per parameter (5.7 TB) at the storage's sustained 2 TB/s stop the work for 5 s; a minute
    until a failure is noticed, 8 minutes until the job runs again.
    """
    job = {
        "step": 6.0, "nodes": 2048, "mtbf": 54 * DAY / 419, "checkpoint": 5.0, "detection": MINUTE, "restart": 8 * MINUTE,
        "node_loss": 0.78, "repair": DAY, "spares": 32,
    }  # fmt: skip
    return study(Job(**(job | more)), 54 * DAY, runs=50)


def test_llama_3_trains_for_more_than_90_percent_of_the_time():
    found = llama3()
    assert found.effective.low > 0.90
    assert found.failures.mean == pytest.approx(419, rel=0.05)
    assert found.shares["waiting"] < 0.001
    # and would not have, with a checkpoint every 2 hours, or half an hour until a failure is noticed
    assert llama3(interval=2 * HOUR).effective.high < 0.75
    assert llama3(detection=HOUR / 2).effective.high < 0.85


def test_expected_takes_the_interval_as_it_is():
    job = Job(step=7, nodes=1, mtbf=1e4, checkpoint=10, restart=0, interval=700)
    assert expected(job) == daly_goodput(700, 10, 1e4, 0)
