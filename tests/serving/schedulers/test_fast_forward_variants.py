"""Fast-forward = stepped, to the picosecond, for policies with their options, and for what may be added to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import HASH_BLOCK, scheduler_of

from distsim.kernel.clock import Clock
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.requests.table import requests_of
from distsim.serving.routers.round_robin import RoundRobin
from distsim.serving.service import Service
from distsim.serving.speculation import DraftParams, SpeculativeTimes


class Toy:
    """Durations that tell shapes apart, and are as short as gaps between arrivals."""

    stages = 1

    def times(self, shape):
        mean = -(-(shape.kv // shape.sequences) // 8) if shape.sequences else 0
        return (3 + shape.tokens + mean + sum(cached // 16 for _, cached in shape.prefills),)

    def steady(self, sequences, kv, longest):
        mean = kv // sequences
        bucket = -(-mean // 8)
        return 3 + sequences + bucket, bucket * 8 - mean + 1


@st.composite
def tables(draw):
    count = draw(st.integers(1, 25))
    gaps = draw(st.lists(st.sampled_from([0, 0, 1, 7, 40, 400, 3000]), min_size=count, max_size=count))
    prompts = draw(st.lists(st.integers(1, 90), min_size=count, max_size=count))
    outputs = draw(st.lists(st.one_of(st.integers(1, 4), st.integers(1, 70)), min_size=count, max_size=count))
    groups = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    hashes = {
        row: [1000 * group + at for at in range((prompt + output) // HASH_BLOCK)]
        for row, (group, prompt, output) in enumerate(zip(groups, prompts, outputs, strict=True)) if group
    }  # fmt: skip
    return requests_of(
        np.cumsum(gaps), np.array(prompts), np.array(outputs), hashes=hashes, hash_block=HASH_BLOCK,
        tenant=np.array(groups) % 3, priority=np.array(groups), names=("a", "b", "c"),
    )  # fmt: skip


VARIANTS = [
    ("sglang:policy=fcfs", {}),
    ("sglang:mixed=true,chunk=40", {}),
    ("sglang:conservativeness=0.1,max_new_tokens=80", {}),
    ("sglang", {"tiers": True}),
    ("sglang", {"draft": 3}),
    ("priority:preempt=true", {}),
    ("priority:preempt=true,ahead=true", {}),
    ("priority:aging=1us", {}),
    ("fair_share:weights=1+3+0.5,output_weight=0.7", {}),
    ("fair_share:ahead=true", {}),
    ("fair_share:preemption=swap", {"swap_room": 12}),
    ("fair_share", {"draft": 2}),
    ("vllm_v0:preemption=swap", {"swap_room": 12}),
    ("vllm_v0", {"draft": 4}),
    ("vllm_v1:preemption=swap", {"swap_room": 12, "tiers": True}),
    ("vllm_v1:ahead=true", {"tiers": True, "draft": 3}),
]


def outcome(text, extras, table, blocks, seats, *, stepped):
    separator = "," if ":" in text else ":"
    scheduler = scheduler_of(f"{text}{separator}max_num_seqs={seats}", blocks, **extras)
    times = SpeculativeTimes(Toy(), DraftParams(tokens=extras["draft"], acceptance=0.6)) if "draft" in extras else Toy()
    clock, log = Clock(), IterationLog()
    service = Service(clock, table, RoundRobin(RoundRobin.Params(), np.random.default_rng(0)))
    replica = Replica(0, clock, scheduler, times, log, service.ended, stepped)
    service.start([replica])
    clock.run()
    assert service.unfinished == 0
    assert scheduler.kv.used == 0
    rows = [(r.scheduled, r.first, r.completed, r.restarts, r.cached, r.reason) for r in service.requests]
    return rows, replica.iterations, replica.busy, scheduler.preemptions, scheduler.transfers and scheduler.transfers.copied


@pytest.mark.parametrize(("text", "extras"), VARIANTS)
@settings(max_examples=20, deadline=None)
@given(table=tables(), blocks=st.integers(11, 36), seats=st.sampled_from([2, 4, 64]))
def test_fast_forward_is_stepped_with_options(text, extras, table, blocks, seats):
    fast = outcome(text, extras, table, blocks, seats, stepped=False)
    assert fast == outcome(text, extras, table, blocks, seats, stepped=True)
