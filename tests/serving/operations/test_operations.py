"""What operators do to a service, by closed forms: gates, rates, failures, autoscaling, and what they are refused."""

from __future__ import annotations

import numpy as np
import pytest

from distsim.errors import ConfigError, UnknownNameError
from distsim.kernel.clock import Clock
from distsim.serve import router_of, serve
from distsim.serving.deployment import Deployment
from distsim.serving.fleet import make_scheduler
from distsim.serving.kv.sizes import weight_bytes
from distsim.serving.log import IterationLog
from distsim.serving.operations.admission import (
    CROWDED,
    FULL,
    GIVEN_UP,
    LATE_START,
    OVER_BUCKET,
    OVER_RATE,
    Admission,
    admission,
    rates,
)
from distsim.serving.operations.autoscaling import Autoscaling, Load, autoscaler, bounded
from distsim.serving.operations.failures import LOST, UNLUCKY, Failures, failures
from distsim.serving.operations.startup import startup_time
from distsim.serving.replica import Replica
from distsim.serving.requests.table import requests_of
from distsim.serving.seeds import stream
from distsim.serving.service import NOBODY, ORPHAN, STOPPED, Service
from distsim.units import PS_PER_S

STEP = PS_PER_S  #: an iteration takes a second


class Seconds:
    """Every iteration takes one."""

    stages = 1

    def times(self, shape):
        return (STEP,)

    def steady(self, sequences, kv, longest):
        return STEP, 1 << 40


def run(
    arrival, output, *, prompt=1, gate="queue", rate="", failing="", scaling="", replicas=1, spare=0, seats=1, seed=0,
    concurrency=0, blocks=1000, **columns,
):  # fmt: skip
    """Arrivals in seconds; an output of n tokens takes n seconds. Returns requests by row, and the service."""
    n = len(arrival)
    table = requests_of(
        np.array([round(at * STEP) for at in arrival]), np.full(n, prompt), np.full(n, output),
        **{name: np.asarray(column) if name != "names" else column for name, column in columns.items()},
    )  # fmt: skip
    clock, log = Clock(), IterationLog()
    admit = Admission(admission(gate), rates(rate) if rate else None, table.names)
    service = Service(clock, table, router_of("least_outstanding", stream(0)), concurrency, gate=admit)
    made = [
        Replica(k, clock, make_scheduler(f"vllm_v1:max_num_seqs={seats}", blocks, 1), Seconds(), log, service.ended)
        for k in range(replicas + spare)
    ]  # fmt: skip
    drivers = []
    if failing:
        plan = failures(failing)
        drivers.append(Failures(plan, service, seed, lambda _: 2 * STEP if plan.policy.startup != "0" else 0))
    if scaling:
        for replica in made[replicas:]:
            replica.spare()
        policy, params = autoscaler(scaling)
        drivers.append(Autoscaling(policy, params, service, made, 5 * STEP))
    service.start(made)
    for driver in drivers:
        driver.start()
    clock.run()
    service.close()
    assert service.unfinished == 0
    return service.requests, service


def ends(requests):
    """Seconds of completion, or the reason."""
    return [r.reason or r.completed / STEP for r in requests]


# --- admission ----------------------------------------------------------------------------------------------------------------


def test_a_full_queue_turns_requests_away():
    requests, service = run([0, 0.1, 0.2, 0.3], 10, gate="queue:limit=2")
    assert ends(requests) == [10, 20, 30, FULL]
    assert service.reasons == {FULL: 1}


def test_requests_beyond_what_replicas_may_have_wait_at_the_door_in_order():
    requests, service = run([0, 0.1, 0.2, 0.3], 10, gate="queue:outstanding=1,total=2")
    assert ends(requests) == [10, 20, 30, CROWDED]
    assert service.waited == 2
    assert [r.scheduled / STEP for r in requests[:3]] == [0, 10, 20]


def test_a_timeout_counts_until_the_first_iteration():
    requests, _ = run([0, 1, 2, 3], 10, gate="queue:timeout=9500ms")
    assert ends(requests) == [10, 20, LATE_START, LATE_START]
    assert run([0, 1], 10, gate="queue:timeout=9s")[0][1].reason == LATE_START  # at 10 s, before who leaves then is replaced
    requests, _ = run([0, 1], 10, gate="queue:outstanding=1,timeout=5s")
    assert requests[1].reason == LATE_START
    assert requests[1].replica == -1


def test_who_waits_behind_a_request_that_gives_up_is_admitted_at_the_next_iteration():
    """Row 1 needs more blocks than are free; row 2 would fit, but comes after it."""
    table = requests_of(
        np.array([0, 1, 2]) * STEP, np.array([96, 64, 16]), np.array([30, 10, 10]),
        deadline=np.array([0, 20, 0]) * STEP,
    )  # fmt: skip
    clock, log = Clock(), IterationLog()
    service = Service(clock, table, router_of("round_robin", stream(0)), gate=Admission(admission("queue")))
    replica = Replica(0, clock, make_scheduler("vllm_v1", 20, 1), Seconds(), log, service.ended)
    service.start([replica])
    replica.scheduler.kv.take(11)  # of a tenant of other tests
    clock.run()
    one, two, three = service.requests
    assert two.reason == GIVEN_UP
    assert three.scheduled == 21 * STEP
    assert one.completed > 0


def test_a_client_that_gives_up_frees_its_seat_only_if_it_may():
    late = {"deadline": [3.5 * STEP, 0]}
    assert ends(run([0, 0], 10, **late)[0]) == [10, 20]  # served in vain
    requests, _ = run([0, 0], 10, gate="queue:abort=true", **late)
    assert ends(requests) == [STOPPED, 14]  # at the end of the iteration that runs at 3.5 s
    assert ends(run([0, 0], 10, gate="queue:deadline=15s")[0]) == [10, 20]
    assert ends(run([0, 0], 10, gate="queue:deadline=9s")[0]) == [10, GIVEN_UP]


def test_buckets_let_through_their_burst_and_then_their_rate():
    at = [0.0] * 5 + [2.0, 2.0, 2.0]
    requests, _ = run(at, 1, rate="each:requests=1,burst=3s", seats=99)
    assert [r.reason for r in requests] == ["", "", "", OVER_RATE, OVER_RATE, "", "", OVER_RATE]
    requests, service = run([0.0] * 5, 1, rate="each:requests=0.5,burst=2s,full=wait", seats=99)
    assert [r.scheduled / STEP for r in requests] == [0, 2, 4, 6, 8]
    assert service.gate.delayed == 4
    requests, _ = run([0.0] * 5, 1, rate="each:requests=0.5,burst=2s,full=wait,max_wait=4s", seats=99)
    assert ends(requests) == [1, 3, 5, OVER_RATE, OVER_RATE]


def test_tokens_are_limited_by_tenant():
    columns = {"tenant": np.array([0, 0, 1, 1], np.int32), "names": ("free", "paid")}
    requests, _ = run([0] * 4, 5, prompt=5, rate="free:tokens=10,burst=1s", seats=99, **columns)
    assert [r.reason for r in requests] == ["", OVER_RATE, "", ""]
    assert ends(run([0], 5, prompt=6, rate="each:tokens=10,burst=1s,full=wait")[0]) == [OVER_BUCKET]
    with pytest.raises(UnknownNameError, match=r"unknown tenant 'fee'.*\n.*free"):
        run([0] * 4, 5, rate="fee:tokens=10", **columns)


# --- sessions ----------------------------------------------------------------------------------------------------------------


def test_a_turn_comes_after_the_answer_and_the_thought():
    columns = {"after": [-1, 0, 1], "think": [0, 2 * STEP, 0]}
    requests, _ = run([0, 0, 40], 10, **columns)
    assert [r.arrival / STEP for r in requests] == [0, 12, 40]  # not before its own time
    requests, service = run([0, 1, 1], 10, gate="queue:timeout=5s", after=[-1, -1, 1], think=[0, 0, 0])
    assert ends(requests) == [10, LATE_START, ORPHAN]
    assert service.dropped == 2


def test_a_closed_loop_keeps_sessions_in_the_system():
    requests, service = run([0] * 6, 10, seats=9, concurrency=2, after=[-1, 0, -1, 2, -1, 4], think=[0] * 6)
    assert sorted(r.arrival / STEP for r in requests) == [0, 0, 10, 10, 20, 30]
    assert service.finished == 6


# --- failures ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "end", "first"), [("recompute", 10.5, 1), ("restart", 14.5, 5.5)])
def test_requests_of_a_failed_replica_go_on_elsewhere(policy, end, first):
    """It fails at 4.5 s, with four tokens out, and half of an iteration in vain."""
    requests, service = run([0], 10, replicas=2, failing=f"down:at=4500ms,replica=0;policy:inflight={policy}")
    (request,) = requests
    assert (request.first / STEP, request.completed / STEP) == (first, end)
    assert (request.restarts, request.replica, service.rerouted) == (1, 1, 1)


def test_an_iteration_that_ends_with_the_failure_has_ended():
    (request,), _ = run([0], 10, replicas=2, failing="down:at=4s,replica=0")
    assert request.completed / STEP == 10


def test_lost_requests_are_dropped_and_retries_are_bounded():
    assert ends(run([0, 0], 10, replicas=2, failing="down:at=4s,replica=0;policy:inflight=lost")[0]) == [LOST, 10]
    flapping = ";".join(f"down:at={3 + 5 * k}s,replica=0,repair=1s" for k in range(9))
    requests, service = run([0], 10, failing=f"{flapping};policy:inflight=restart,retries=2")
    assert ends(requests) == [UNLUCKY]
    assert service.rerouted == 2


def test_nobody_is_sent_to_a_replica_that_is_down_and_the_door_opens_when_it_is_back():
    requests, service = run([0, 5, 6], 3, failing="down:at=4s,replica=0,repair=10s;policy:startup=2s")
    assert [r.scheduled / STEP for r in requests] == [0, 16, 19]
    assert service.waited == 2
    assert service.replicas[0].down == 12 * STEP
    requests, service = run([0, 5, 6], 3, failing="down:at=4s,replica=0")
    assert ends(requests) == [3, NOBODY, NOBODY]
    requests, _ = run([0, 5], 30, failing="down:at=4s,replica=0")
    assert ends(requests) == [NOBODY, NOBODY]


def test_a_slow_replica_takes_longer_from_its_next_iteration_on():
    (request,), _ = run([0], 10, failing="slow:at=3500ms,replica=0,factor=2,until=7500ms")
    assert request.completed / STEP == 4 + 2 * 2 + 4  # two iterations of two seconds: the second ends at 8 s
    (request,), _ = run([0], 4, failing="slow:at=0,replica=0,factor=2;slow:at=0,replica=0,factor=3")
    assert request.completed / STEP == 24


def test_random_failures_come_at_their_rate_and_from_generators_of_their_own():
    mean, n = 50, 3000
    failing = f"mtbf:hours={mean / 3600},repair=10s;policy:retries=99"
    _, service = run(np.arange(n) * 10.0, 1, replicas=4, failing=failing, seed=5)
    span = service.last / STEP
    found = [replica.failures for replica in service.replicas]
    expected = span / (mean + 10)  # a renewal process: in service for 50 s, repaired in 10 s
    assert abs(sum(found) - 4 * expected) < 4 * np.sqrt(4 * expected)
    down = sum(replica.down for replica in service.replicas) / STEP / 4 / span
    assert down == pytest.approx(10 / 60, rel=0.15)
    _, more = run(np.arange(n) * 10.0, 1, replicas=5, failing=failing, seed=5)
    assert [replica.failures for replica in more.replicas][:4] == found  # another replica, the same fates
    assert stream(1, "failures", 0).random() != stream(1, "failures", 1).random() != stream(1, "router").random()


def test_a_start_reads_the_weights():
    deployment = Deployment.of(model="llama3-8b", gpu="h100", tp=2)
    plan = failures("down:at=0,replica=0;policy:startup=10s,storage=2GBps")
    seconds = startup_time(plan.policy, deployment) / PS_PER_S
    assert seconds == pytest.approx(10 + 2 * weight_bytes(deployment) / 2e9)
    assert seconds == pytest.approx(10 + 16.06e9 / 2e9, rel=0.01)  # 8.03 billion parameters of two bytes


# --- autoscaling -------------------------------------------------------------------------------------------------------------


def test_the_target_is_tracked_with_starts_drains_and_gpu_seconds():
    scaling = "target:outstanding=1,every=10s,cooldown=20s,startup=5s"
    requests, service = run([0] * 3, 30, scaling=scaling, spare=3)
    # at 10 s three are there: two more are launched, which serve nobody, since no request comes. From 30 s on there are two,
    # from 60 s on there is one: each time a replica goes 20 s later, the newest first
    assert ends(requests) == [30, 60, 90]
    first, second, third, fourth = service.replicas
    assert (second.started, third.started, fourth.started) == (15 * STEP, 15 * STEP, -1)
    assert fourth.held == 0
    assert fourth.since < 0
    assert (third.stopped / STEP, third.held / STEP) == (50, 40)
    assert (second.stopped / STEP, second.held / STEP) == (80, 70)
    assert first.since == 0
    assert first.stopped == -1


def test_new_replicas_take_the_door_and_draining_ones_finish_what_they_have():
    requests, service = run(
        [0, 0, 0, 0], 20, scaling="schedule:plan=0@1+10s@3+30s@1,every=10s,startup=0", spare=2, gate="queue:outstanding=1"
    )
    # launched at 10 s, in service at 15 s (the start takes 5 s here); drained at 30 s, done at 35 s
    assert [r.scheduled / STEP for r in requests] == [0, 15, 15, 20]
    assert [replica.stopped / STEP for replica in service.replicas[1:]] == [35, 35]
    assert [replica.held / STEP for replica in service.replicas[1:]] == [25, 25]


def test_a_service_that_is_scaled_to_nothing_does_not_hang():
    requests, _ = run([0, 100], 5, scaling="schedule:plan=0@1+20s@0,min=0,every=10s,startup=0", spare=1)
    assert ends(requests) == [5, NOBODY]
    requests, _ = run([0, 101], 5, scaling="target:outstanding=1,min=0,every=10s,cooldown=20s,startup=0", spare=1)
    assert ends(requests) == [5, 120]  # seen at 110 s, started at 115 s


def test_policies_by_their_formulas():
    def load(**seen):
        return Load(**{"now": 0, "replicas": 4, "starting": 0, "outstanding": 0, "queued": 0, "kv": 0.5, "waits": ()} | seen)

    target, _ = autoscaler("target:outstanding=10,startup=0")
    assert [target.wanted(load(outstanding=n)) for n in (0, 36, 40, 43, 45, 100)] == [0, 4, 4, 4, 5, 10]
    threshold, _ = autoscaler("threshold:queue=2,kv=0.9,kv_low=0.3,step=2,startup=0")
    assert [threshold.wanted(load(queued=n)) for n in (0, 8, 9)] == [4, 4, 6]
    assert [threshold.wanted(load(kv=share)) for share in (0.1, 0.3, 0.95)] == [3, 4, 6]
    assert threshold.wanted(load(queued=99, starting=1)) == 5
    slo, _ = autoscaler("slo:ttft=1s,quantile=0.5,startup=0")
    waits = [PS_PER_S * n // 10 for n in (1, 2, 15, 90)]
    assert slo.wanted(load(waits=waits)) == 3  # the median, 0.2 s, is far below
    assert slo.wanted(load(waits=waits[1:])) == 6  # ceil(4 * 1.5)
    assert slo.wanted(load(waits=waits[2:3] * 3 + waits[3:] * 9)) == 8  # no more than twice as many
    assert slo.wanted(load(waits=[PS_PER_S * 7 // 10])) == 4
    plan, _ = autoscaler("schedule:plan=1h@2+8h@6,period=24h,startup=0")
    hours = [plan.wanted(load(now=h * 3600 * PS_PER_S)) for h in (0, 1, 7, 8, 23, 25)]
    assert hours == [6, 2, 2, 6, 6, 2]
    assert plan.until(9 * 3600 * PS_PER_S) == 25 * 3600 * PS_PER_S


# --- the whole, from names ----------------------------------------------------------------------------------------------------

SMALL = {
    "model": "llama3-8b", "cluster": "dgx_h100:gpus=4", "requests": "poisson:qps=40", "lengths": "fixed:prompt=200,output=50",
    "n": 300,
}  # fmt: skip


def test_serve_takes_texts_and_counts_what_happens():
    result = serve(
        **SMALL, router="power_of_two", failures="down:at=2s,replica=1,repair=3s;policy:startup=1s,storage=10GBps",
        rate_limit="each:requests=20,burst=5s", admission="queue:limit=50,timeout=10s",
    )  # fmt: skip
    assert result.counts["failures"] == 1
    assert result.replicas[1].failures == 1
    dropped = sum(count for name, count in result.counts.items() if name.startswith("dropped: "))
    assert dropped == result.counts[f"dropped: {OVER_RATE}"] == np.count_nonzero(result.requests.status == 1) > 50
    assert result.end == result.requests.completed.max()
    assert result.replicas[1].down == pytest.approx(4 * PS_PER_S + 16.06e9 / 10e9 * PS_PER_S, rel=0.01)


def test_serve_scales_within_the_gpus_and_tells_gpu_seconds():
    result = serve(**SMALL | {"n": 900}, autoscale="target:outstanding=2,every=1s,startup=2s,cooldown=5s")
    assert len(result.replicas) > 1 == result.spec["pools"][0]["replicas"]
    assert result.replicas[0].held == result.end
    second = result.replicas[1]
    assert second.started >= 3 * PS_PER_S  # a decision after a second, a start of two
    assert 0 < second.held <= result.end - second.started + 2 * PS_PER_S
    assert all(row.gpus == 1 for row in result.replicas)
    assert len(result.replicas) <= 4
    alone = serve(**SMALL, router="random", seed=3)
    failing = serve(**SMALL, router="random", seed=3, failures="down:at=1h,replica=0")
    assert np.array_equal(alone.requests.replica, failing.requests.replica)  # failures draw nothing from the router's generator


@pytest.mark.parametrize(("options", "said"), [
    ({"router": "least"}, "unknown router 'least'"),
    ({"admission": "queues:limit=2"}, "unknown admission 'queues'"),
    ({"admission": "queue:limit=0"}, "limit=0"),
    ({"admission": "queue:timeout=3"}, "'3' has no unit"),
    ({"rate_limit": "each:burst=3s"}, "no rate given"),
    ({"rate_limit": "each:requests=-1"}, "greater than 0"),
    ({"rate_limit": "nobody:requests=1"}, "unknown tenant 'nobody'"),
    ({"failures": "dwn:at=3s,replica=0"}, "unknown failure 'dwn'"),
    ({"failures": "down:at=3s"}, "replica is missing"),
    ({"failures": "down:at=3s,replica=9"}, "no replica 9"),
    ({"failures": "mtbf:hours=3"}, "repair is missing"),
    ({"failures": "nowhere.yaml"}, "cannot be read"),
    ({"failures": "slow:at=3s,replica=0,factor=2,until=1s"}, "until=1s is not after at=3s"),
    ({"autoscale": "tarket:outstanding=2"}, "unknown autoscaler 'tarket'"),
    ({"autoscale": "target:min=2"}, "outstanding"),
    ({"autoscale": "target:outstanding=2,max=5"}, "up to 5 replicas, the cluster has GPUs for 4"),
    ({"autoscale": "target:outstanding=2,min=3,max=2"}, "max=2 is less than min=3"),
    ({"autoscale": "schedule:plan=0@1+9"}, "is not TIME@REPLICAS"),
    ({"autoscale": "target:outstanding=2,pool=x"}, "no pool 'x'"),
    ({"disaggregate": "prefill=1,decode=1", "failures": "down:at=3s,replica=0"}, "failures beside pools of roles"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_words(options, said):
    with pytest.raises(ConfigError, match=said):
        serve(**SMALL | options)


def test_failures_of_a_file(tmp_path):
    path = tmp_path / "failures.yaml"
    path.write_text("- down: {at: 60s, replica: 0, repair: 2min}\n- slow:at=0,replica=1,factor=2\n- policy: {inflight: lost}\n")
    plan = failures(str(path))
    assert plan.downs[0].repair == "2min"
    assert plan.slows[0].factor == 2
    assert plan.policy.inflight == "lost"
    for text, said in (("a: 1", "is no list"), ("- {down: 3}", "item 0 is"), ("[", "is no YAML")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=said):
            failures(str(path))
    assert bounded(autoscaler("target:outstanding=1")[1], 7) == 7
