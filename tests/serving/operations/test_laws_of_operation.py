"""Whatever operators do: requests and KV blocks are conserved, stepped = fast-forwarded, the same seed gives the same run."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.kernel.clock import Clock
from distsim.params import parse, validated
from distsim.registry import lookup, names
from distsim.serving.fleet import make_scheduler
from distsim.serving.iteration import Shape
from distsim.serving.log import IterationLog
from distsim.serving.operations.admission import Admission, admission, rates
from distsim.serving.operations.autoscaling import Autoscaling, autoscaler
from distsim.serving.operations.failures import UNLUCKY, Failures, failures
from distsim.serving.replica import Replica
from distsim.serving.requests.table import requests_of
from distsim.serving.seeds import stream
from distsim.serving.service import Service

BLOCK = 16
BUCKET = 8  #: tokens: the mean length crosses buckets often
LIMITS = ("max_num_seqs", "max_tokens", "max_num_batched_tokens", "chunk", "max_len")


class Toy:
    """Durations that tell all shapes apart; small, so that much happens at the ends of iterations."""

    def __init__(self, stages: int = 1) -> None:
        self.stages = stages

    def times(self, shape: Shape) -> tuple[int, ...]:
        bucket = -(-(shape.kv // shape.sequences) // BUCKET) if shape.sequences else 0
        ps = 3 + shape.tokens + bucket + sum(cached // 16 for _, cached in shape.prefills)
        return tuple(ps + stage for stage in range(self.stages))

    def steady(self, sequences: int, kv: int, longest: int) -> tuple[int, int]:
        mean = kv // sequences
        bucket = -(-mean // BUCKET)
        return 3 + sequences + bucket, bucket * BUCKET - mean + 1


@st.composite
def workloads(draw, most=25):
    """Requests that come in bunches; some share a beginning, some follow another, some have a deadline."""
    count = draw(st.integers(1, most))

    def column(values):
        return np.array(draw(st.lists(values, min_size=count, max_size=count)), np.int64)

    prompts, groups = column(st.integers(1, 90)), column(st.integers(0, 3))
    hashes = {
        row: [1000 * group + block for block in range(prompt // BLOCK)]
        for row, (group, prompt) in enumerate(zip(groups.tolist(), prompts.tolist(), strict=True)) if group
    }  # fmt: skip
    after = np.array([
        before if before < row else -1 for row, before in enumerate(column(st.sampled_from([-1, -1, 0, 1, 4])).tolist())
    ])  # fmt: skip
    return requests_of(
        np.cumsum(column(st.sampled_from([0, 0, 1, 7, 40, 400, 3000]))), prompts,
        column(st.one_of(st.integers(1, 4), st.integers(1, 70))), hashes=hashes, hash_block=BLOCK,
        tenant=(groups % 2).astype(np.int32), session=groups - 1, names=("a", "b"), after=after,
        think=column(st.sampled_from([0, 0, 10, 500])), deadline=column(st.sampled_from([0, 0, 0, 60, 900])),
    )  # fmt: skip


admissions = st.sampled_from([
    "queue", "queue:limit=1", "queue:limit=3,timeout=400ps", "queue:outstanding=2", "queue:outstanding=1,total=2,abort=true",
    "queue:timeout=50ps,deadline=700ps,abort=true", "queue:deadline=300ps",
    "queue:outstanding=3,limit=2,deadline=1ns,abort=true",
])  # fmt: skip
limits = st.sampled_from([
    "", "", "each:tokens=1e11,burst=3ns", "a:requests=1e10,full=wait,burst=1ps", "b:tokens=3e10,burst=9ns"
])  # fmt: skip
plans = st.sampled_from([
    "", "", "down:at=0,replica=0", "down:at=200ps,replica=0,repair=300ps;down:at=0,replica=1", "mtbf:hours=5e-13,repair=300ps",
    "down:at=100ps,replica=0,repair=1ns;down:at=100ps,replica=1;policy:inflight=lost",
    "slow:at=20ps,replica=0,factor=2.5;slow:at=90ps,replica=0,factor=0.3,until=700ps",
    "mtbf:hours=2e-13,repair=90ps,fixed=true;policy:inflight=restart,retries=1,startup=70ps",
    "down:at=300ps,replica=0,repair=50ps;down:at=340ps,replica=1,repair=60ps;policy:retries=0",
])  # fmt: skip
scalings = st.sampled_from([
    "", "", "target:outstanding=2,every=90ps,cooldown=200ps,startup=130ps",
    "threshold:every=70ps,cooldown=0,queue=0.5,kv_low=0.5",
    "slo:ttft=150ps,every=100ps,cooldown=100ps,startup=10ps", "schedule:plan=0@1+500ps@3+900ps@0,min=0,every=110ps",
    "target:outstanding=4,min=0,every=300ps,cooldown=300ps,startup=1ns",
])  # fmt: skip


def outcome(table, scheduler, router, *, gate="queue", rate="", failing="", scaling="", stages=1, seed=0, stepped=False):
    """Everything that came of it, and the service."""
    fields = lookup("scheduler", scheduler).Params.model_fields
    sizes = {"max_num_seqs": 4, "max_len": 160, "max_tokens": 160, "max_num_batched_tokens": 160, "chunk": 64}
    spec = ",".join(f"{key}={sizes[key]}" for key in LIMITS if key in fields)
    blocks = 24 * (16 // fields["block"].default if fields["block"].default < 16 else 1)
    clock, log = Clock(), IterationLog()
    admit = Admission(admission(gate), rates(rate) if rate else None, table.names)
    service = Service(clock, table, routed(router, seed), gate=admit)
    schedulers = [make_scheduler(f"{scheduler}:{spec}", blocks, stages, BLOCK) for _ in range(3 if scaling else 2)]
    replicas = [Replica(n, clock, one, Toy(stages), log, service.ended, stepped) for n, one in enumerate(schedulers)]
    drivers = []
    if failing:
        plan = failures(failing)
        drivers.append(Failures(plan, service, seed, lambda _: 1 + int(plan.policy.startup != "0") * 70))
    if scaling:
        policy, params = autoscaler(scaling)
        replicas[2].spare()
        drivers.append(Autoscaling(policy, params, service, replicas, 130))
    service.start(replicas)
    for driver in drivers:
        driver.start()
    clock.run()
    assert service.coming == 0, "somebody is still expected"
    assert not service.door
    service.close()
    rows = [
        None if r is None else (r.arrival, r.scheduled, r.first, r.completed, r.restarts, r.cached, r.reason, r.replica)
        for r in service.requests
    ]  # fmt: skip
    of_replicas = [(r.iterations, r.busy, r.count("preemptions"), r.started, r.stopped, r.held, r.failures) for r in replicas]
    return (rows, of_replicas, dict(service.reasons), service.last), service


def routed(text, seed):
    if text == "first":
        return First()
    name, options = parse(text)
    found = lookup("router", name)
    return found(validated(found.Params, name, options), stream(seed, "router"))


ROUTERS = [*names("router"), "prefix_aware:absolute=1,threshold=0", "slo_aware:ttft=100ps,chunk=64", "power_of_two:choices=1"]


@pytest.mark.parametrize("scheduler", names("scheduler"))
@settings(max_examples=35, deadline=None)
@given(
    table=workloads(), router=st.sampled_from(ROUTERS), gate=admissions, rate=limits, failing=plans, scaling=scalings,
    stages=st.sampled_from([1, 1, 1, 2]), seed=st.integers(0, 3),
)  # fmt: skip
def test_laws(scheduler, table, router, gate, rate, failing, scaling, stages, seed):
    settled = {"gate": gate, "rate": rate, "failing": failing, "scaling": scaling, "stages": stages, "seed": seed}
    try:
        stepped, service = outcome(table, scheduler, router, stepped=True, **settled)
    except ConfigError:
        assert stages > 1  # lightllm knows no pipelines
        return
    # law 1: nobody is lost, nobody counted twice
    assert service.unfinished == 0
    assert sum(r.completed >= 0 and not r.reason for r in service.requests) == service.finished
    assert sum(bool(r.reason) for r in service.requests) == service.dropped == sum(service.reasons.values())
    assert not service.door
    for replica in service.replicas:
        assert replica.scheduler.kv.used == 0, "blocks are lost"
        assert replica.outstanding == 0
    for request in service.requests:
        if not request.reason:
            assert request.arrival <= request.scheduled < request.first <= request.completed
        before = service.table.after[request.row]
        if before >= 0 and not request.reason:  # law 2: a turn follows its answer
            assert request.arrival >= service.requests[before].completed + service.table.think[request.row]
    again, _ = outcome(table, scheduler, router, stepped=False, **settled)
    assert again == stepped
    assert outcome(table, scheduler, router, stepped=False, **settled)[0] == again


@pytest.mark.parametrize("router", ROUTERS)
@settings(max_examples=15, deadline=None)
@given(table=workloads(60), scheduler=st.sampled_from(names("scheduler")), seed=st.integers(0, 3))
def test_routed_stepped_is_fast_forwarded(router, table, scheduler, seed):
    assert outcome(table, scheduler, router, seed=seed, stepped=True)[0] == outcome(table, scheduler, router, seed=seed)[0]


@pytest.mark.parametrize("scheduler", ["vllm_v0", "vllm_v1", "sarathi", "orca", "static", "lightllm"])
@settings(max_examples=15, deadline=None)
@given(table=workloads(60), failing=plans)
def test_nobody_starves_under_first_come_first_served(scheduler, table, failing):
    """At one replica, requests are scheduled in the order in which they came, whoever is preempted meanwhile; with failures and
    two replicas everybody is served in the end, where repairs come."""
    alone = dataclasses.replace(table, after=np.full(len(table), -1), deadline=np.zeros(len(table), np.int64))
    _, service = outcome(alone, scheduler, "first", failing="")
    scheduled = [request.scheduled for request in service.requests]
    assert scheduled == sorted(scheduled)
    assert service.finished == len(table)
    if failing and all(down.repair for down in failures(failing).downs) and failures(failing).policy.inflight != "lost":
        _, service = outcome(alone, scheduler, "round_robin", failing=failing)
        assert set(service.reasons) <= {UNLUCKY}


class First:
    """Everybody to one replica."""

    def route(self, request, replicas):
        return replicas[0]
