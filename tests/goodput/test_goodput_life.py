"""One life of a job: time adds up, nothing but what was asked for takes any, known cases by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.goodput.durations import DAY, HOUR, format_seconds, parse_seconds
from distsim.goodput.job import Job
from distsim.goodput.simulate import PARTS, Ledger, _Life, simulate
from distsim.goodput.slow import slow_spells
from distsim.goodput.study import study

CALM = Job(step=1, nodes=4, mtbf=1e15, checkpoint=10, restart=100, interval=90)


def life(job, horizon, seed=0):
    return simulate(job.settled(), horizon, np.random.default_rng(seed))


class Planned(_Life):
    """A life whose failures come at given times of exposure."""

    def __init__(self, job, horizon, gaps):
        self.planned = [*gaps, math.inf][::-1]
        super().__init__(job.settled(), horizon, np.random.default_rng(0))

    def gap(self):
        return self.planned.pop()


jobs = st.builds(
    Job,
    step=st.floats(0.5, 20), nodes=st.just(16), mtbf=st.floats(300, 50_000), checkpoint=st.floats(0, 60),
    restart=st.floats(0, 600), interval=st.sampled_from((0.0, 300.0, 1000.0)), write=st.floats(0, 250),
    detection=st.floats(0, 100), shape=st.sampled_from((0.7, 1.0, 2.0)), node_loss=st.floats(0, 1), spares=st.integers(0, 3),
    repair=st.sampled_from((0.0, 2000.0, 20_000.0)), when_short=st.sampled_from(("wait", "shrink")),
    replica_nodes=st.sampled_from((1, 4, 16)), slow=st.sampled_from((0.0, 0.01, 0.1)), slowdown=st.floats(1, 1.5),
    slow_for=st.just(3000.0),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(job=jobs, horizon=st.floats(1000, 300_000), seed=st.integers(0, 1000))
def test_law_1_time_is_conserved(job, horizon, seed):
    found = life(job, horizon, seed)
    parts = [getattr(found, part) for part in PARTS]
    assert sum(parts) == pytest.approx(horizon, rel=1e-9)
    assert min(parts) >= 0
    assert found.slow == 0 or job.slow
    assert found.shrunk == 0 or job.when_short == "shrink"
    assert found.waiting == 0 or job.repair
    assert found.detection <= found.failures * job.detection + 1e-6


@settings(max_examples=30, deadline=None)
@given(job=jobs, seed=st.integers(0, 1000))
def test_law_4_same_seed_same_life(job, seed):
    assert life(job, 50_000, seed) == life(job, 50_000, seed)


class TestByHand:
    def test_nothing_fails(self):
        assert life(CALM, 1000) == Ledger(work=900.0, checkpoint=100.0)
        assert life(CALM, 1095) == Ledger(work=990.0, checkpoint=105.0)

    def test_one_failure_loses_the_work_since_the_last_checkpoint(self):
        # saved at 100, 200; fails at 250; back at 250 + 20 + 100
        job = replace(CALM, detection=20)
        assert Planned(job, 470, [250]).run() == Ledger(
            work=270.0, checkpoint=30.0, lost=50.0, detection=20.0, restart=100.0, failures=1
        )

    def test_a_checkpoint_cut_short_counts_for_nothing(self):
        found = Planned(CALM, 295, [195]).run()  # in the second checkpoint
        assert found == Ledger(work=90.0, checkpoint=15.0, lost=90.0, restart=100.0, failures=1)

    def test_a_checkpoint_that_is_still_written_counts_for_nothing(self):
        job = replace(CALM, write=50)
        late, early = Planned(job, 400, [251]).run(), Planned(job, 400, [249]).run()
        assert (late.lost, early.lost) == (51.0, 139.0)  # written at 250

    def test_a_failure_in_a_restart_starts_it_again(self):
        found = Planned(CALM, 300, [50, 40]).run()
        assert found == Ledger(work=100.0, checkpoint=10.0, lost=50.0, restart=140.0, failures=2)

    def test_slow_nodes_stretch_steps(self):
        job = replace(CALM, slow=0.999, slowdown=1.25, slow_for=1e9, nodes=100_000, checkpoint=0)
        found = life(job, 1000)
        assert (found.work, found.slow) == pytest.approx((800, 200))

    def test_no_spares_wait_for_the_repair(self):
        job = replace(CALM, repair=1e-9, checkpoint=0)
        assert Planned(job, 1000, [450]).run().waiting == pytest.approx(0, abs=1e-6)
        found = Planned(replace(job, repair=1e12), 1000, [450]).run()
        assert (found.work, found.waiting, found.restart) == pytest.approx((450, 550, 0))

    def test_or_go_on_with_the_replicas_that_are_whole(self):
        job = replace(CALM, repair=1e12, checkpoint=0, when_short="shrink", replica_nodes=2)
        found = Planned(job, 1000, [450]).run()  # one of two replicas left, after 100 s of restart
        assert (found.work, found.shrunk, found.restart) == pytest.approx((450 + 225, 225, 100))

    def test_and_grow_again(self):
        class Quick(Planned):
            def down(self):
                super().down()
                self.returns = [self.now + 300]

        job = replace(CALM, repair=1, checkpoint=0, when_short="shrink", replica_nodes=2)
        found = Quick(job, 1000, [450]).run()  # back at 550, both replicas from 750 on, 100 s later
        assert (found.work, found.shrunk, found.restart) == pytest.approx((450 + 100 + 150, 100, 200))

    def test_a_spare_is_as_good(self):
        job = replace(CALM, repair=1e12, checkpoint=0, spares=1)
        found = Planned(job, 1000, [450]).run()
        assert (found.work, found.waiting, found.restart) == pytest.approx((900, 0, 100))


class TestTrends:
    BASE = Job(step=2, nodes=64, mtbf=8000, checkpoint=10, restart=300, repair=30_000, node_loss=0.5)

    def goodput(self, **changes):
        return study(replace(self.BASE, **changes), 20 * DAY, runs=30).goodput.mean

    def test_more_spares_never_hurt(self):
        found = [self.goodput(spares=n) for n in (0, 1, 2, 4, 8)]
        assert found == sorted(found)
        assert found[0] < 0.6 * found[-1]

    def test_shrinking_beats_waiting_where_replicas_are_small(self):
        assert self.goodput(when_short="shrink", replica_nodes=1) > 1.5 * self.goodput()

    def test_asynchronous_checkpoints_help(self):
        assert self.goodput(spares=9, checkpoint=60) < self.goodput(spares=9, checkpoint=2, write=58)

    def test_weibull_keeps_the_mean(self):
        job = replace(self.BASE, repair=0, shape=0.7)
        assert study(job, 200 * DAY, runs=20).failures.mean == pytest.approx(
            200 * DAY / 8000, rel=0.1
        )  # but for time to restart

    def test_slow_nodes_are_slow_so_often(self):
        rng = np.random.default_rng(3)
        slow = 0.0
        for _ in range(200):
            turns = [*slow_spells(100, 0.005, 500, 20_000, rng).tolist(), 20_000]
            slow += sum(end - start for start, end in zip(turns[::2], turns[1::2], strict=False))
        # a Poisson number of slow nodes, 0.5 on average: none of them e^-0.5 of the time
        assert slow / (200 * 20_000) == pytest.approx(1 - math.exp(-0.5), rel=0.03)


class TestRefused:
    @pytest.mark.parametrize(
        ("change", "what"),
        [
            ({"step": 0}, "step is 0"), ({"mtbf": 0}, "mtbf"), ({"nodes": 0}, "nodes"),
            ({"shape": 0}, "shape"), ({"node_loss": 2}, "node_loss"), ({"slow": 1}, "slow is 1"),
            ({"slow": 0.1}, "slow_for"), ({"slowdown": 0.9}, "slowdown"), ({"replica_nodes": 3}, "divisor of 4"),
            ({"replica_nodes": 5}, "1 to 4"), ({"when_short": "pray"}, "wait or shrink"),
            ({"write": 91}, "an interval of 91 s"),
            ({"restart": -1}, "restart"), ({"mtbf": math.nan}, "mtbf is nan"),
        ],
    )  # fmt: skip
    def test_jobs_that_cannot_be(self, change, what):
        with pytest.raises(ConfigError, match=what):
            replace(CALM, **change)

    @pytest.mark.parametrize(
        ("horizon", "runs", "what"), [(0.5, 1, "at least one step"), (1e9, 0, "0 runs"), (math.inf, 1, "days")]
    )
    def test_studies_that_cannot_be(self, horizon, runs, what):
        with pytest.raises(ConfigError, match=what):
            study(CALM, horizon, runs=runs)

    def test_more_failures_than_can_be_run(self):
        with pytest.raises(ConfigError, match="more than can be simulated"):
            study(replace(CALM, mtbf=0.001), DAY, runs=100)


def test_durations():
    assert [parse_seconds(text) for text in ("90s", "8min", "2.5h", "54d", "5y", "250ms", "0", "1e3 s")] == [
        90, 480, 9000, 54 * DAY, 5 * 365.25 * DAY, 0.25, 0, 1000,
    ]  # fmt: skip
    assert [format_seconds(value) for value in (0, 0.25, 100, 3 * HOUR, 90 * DAY)] == ["0 s", "0.25 s", "100 s", "3 h", "90 d"]
    for text in ("8", "-3s", "8 bananas", "", "nan", "1e999h"):
        with pytest.raises(ConfigError, match=r"duration"):
            parse_seconds(text)


def test_interval_is_whole_steps_and_no_shorter_than_the_write():
    job = Job(step=7, nodes=1, mtbf=1e4, checkpoint=0, restart=0)
    assert job.settled().interval == 7
    assert replace(job, write=50).settled().interval == 56
    assert replace(job, interval=100).settled().interval == 98
    assert replace(job, checkpoint=50).settled().interval == pytest.approx(math.sqrt(2 * 50 * 1e4), rel=0.05)
