"""Vidur's policies on cohorts, against the same on plain lists; and their rules, one by one."""

from __future__ import annotations

import numpy as np
import plain_lists
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.kernel.clock import Clock
from distsim.params import text_of
from distsim.registry import lookup
from distsim.serving.fleet import make_scheduler
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.requests.table import requests_of
from distsim.serving.service import Service

POLICIES = {
    "sarathi": plain_lists.Sarathi, "orca": plain_lists.Orca, "static": plain_lists.Static, "lightllm": plain_lists.Lightllm,
    "vllm_v0": plain_lists.Vllm,
}  # fmt: skip


class Toy:
    """ps that tell shapes apart."""

    def __init__(self, stages=1):
        self.stages = stages

    def times(self, shape):
        bucket = -(-(shape.kv // shape.sequences) // 8) if shape.sequences else 0
        ps = 1009 + 31 * shape.tokens + 7 * bucket + sum(cached for _, cached in shape.prefills)
        return tuple(ps + 3 * stage for stage in range(self.stages))

    def steady(self, sequences, kv, longest):
        mean = kv // sequences
        bucket = -(-mean // 8)
        return 1009 + 31 * sequences + 7 * bucket, bucket * 8 - mean + 1


def serve(name, table, blocks, *, stages=1, replicas=1, **options):
    clock, log = Clock(), IterationLog()
    router = lookup("router", "round_robin")
    service = Service(clock, table, router(router.Params(), np.random.default_rng(0)))
    text = text_of(name, options)
    made = [
        Replica(n, clock, make_scheduler(text, blocks, stages), Toy(stages), log, service.ended) for n in range(replicas)
    ]  # fmt: skip
    service.start(made)
    clock.run()
    return service, log.columns()


def table_of(*rows):
    return requests_of(*(np.array(column) for column in zip(*rows, strict=True)))


@st.composite
def tables(draw):
    count = draw(st.integers(1, 40))
    gaps = draw(st.lists(st.integers(0, 9000), min_size=count, max_size=count))
    prompts = draw(st.lists(st.integers(1, 120), min_size=count, max_size=count))
    outputs = draw(st.lists(st.one_of(st.integers(1, 3), st.integers(1, 90)), min_size=count, max_size=count))
    return requests_of(np.cumsum(gaps), np.array(prompts), np.array(outputs))




@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=60, deadline=None)
@given(
    table=tables(), blocks=st.integers(15, 60), stages=st.sampled_from([1, 2]), cap=st.sampled_from([4, 10, 128]),
    tokens=st.sampled_from([128, 300, 4096]), replicas=st.sampled_from([1, 2]),
)  # fmt: skip
def test_same_as_plain_lists(name, table, blocks, stages, cap, tokens, replicas):
    options = {"max_num_seqs": cap}
    settings_ = {"total": blocks, "cap": cap, "stages": stages}
    if name in ("vllm_v0", "lightllm"):
        options["max_tokens"] = settings_["tokens"] = max(tokens, 210)
    if name == "sarathi":
        options |= {"chunk": tokens, "forgetful": "true"}
        settings_["chunk"] = tokens
    if name in ("orca", "static"):
        options["max_len"] = settings_["longest"] = 224
    if name == "static":
        options["leaks"] = "true"
    if name == "lightllm":
        stages = settings_["stages"] = settings_["block"] = 1
        settings_["total"] = blocks = 16 * blocks
    service, _ = serve(name, table, blocks, stages=stages, replicas=replicas, **options)
    records = plain_lists.simulate(table, [POLICIES[name](**settings_) for _ in range(replicas)], Toy(stages))
    ours = [(one.first, one.completed, one.restarts) for one in service.requests]
    assert ours == [(one.first, one.completed, one.restarts) for one in records]


def test_vllm_waits_for_the_other_batch_when_its_own_is_preempted():
    table = table_of(*[(0, 1, 1)] * 24, (0, 106, 2), (0, 65, 1), (0, 81, 1), (0, 1, 1), (0, 1, 1))
    service, _ = serve("vllm_v0", table, 18, stages=2, max_num_seqs=4, max_tokens=210)
    records = plain_lists.simulate(table, [plain_lists.Vllm(18, stages=2, cap=4, tokens=210)], Toy(2))
    assert [one.completed for one in service.requests] == [one.completed for one in records]


def test_sarathi_fills_the_budget_with_the_prompt():
    """Budget 100: 100 of the first prompt, its other 20 and 80 of the second, then a token of the first beside the rest."""
    _, log = serve("sarathi", table_of((0, 120, 3), (0, 200, 2)), 1000, chunk=100)
    assert log["tokens"].tolist()[:3] == [100, 100, 99]
    assert log["prefills"].tolist()[:3] == [1, 2, 1]
    assert log["sequences"].tolist()[:3] == [0, 0, 1]


def test_sarathi_reserves_the_whole_prompt():
    """Two prompts of 10 blocks in 19: the second waits until the first is done, though its first chunk would fit."""
    service, _ = serve("sarathi", table_of((0, 160, 1), (0, 160, 1)), 19, chunk=32, watermark=0)
    assert service.requests[1].scheduled == service.requests[0].completed


def test_orca_reserves_the_longest():
    """Room for two at a time, however short they are."""
    service, _ = serve("orca", table_of(*[(0, 4, 4)] * 4), 9, max_len=64)
    assert [one.scheduled > 0 for one in service.requests] == [False, False, True, True]


def test_orca_admits_between_iterations():
    """The prompt that comes second joins the next iteration."""
    _, log = serve("orca", table_of((0, 10, 9), (10, 20, 9)), 1000)
    assert (log["sequences"].tolist()[1], log["tokens"].tolist()[1]) == (1, 20)


def test_static_waits_for_the_last_of_a_batch():
    service, _ = serve("static", table_of((0, 4, 2), (0, 4, 50), (0, 4, 2)), 1000, max_num_seqs=2)
    first, second, third = service.requests
    assert first.completed < second.completed == third.scheduled


def test_static_returns_all_blocks_unless_it_leaks():
    rows = table_of((0, 4, 2), (0, 4, 50), (0, 4, 2), (0, 4, 2))
    ours, _ = serve("static", rows, 8, max_num_seqs=2, max_len=64)
    assert ours.requests[3].scheduled == ours.requests[2].scheduled
    assert ours.replicas[0].used == 0
    leaking, _ = serve("static", rows, 8, max_num_seqs=2, max_len=64, leaks="true")
    assert leaking.requests[3].scheduled == leaking.requests[2].completed  # the first's room is lost
    assert leaking.replicas[0].used == 4


def test_lightllm_looks_at_the_queue_every_so_often():
    """The second arrives during the first's generation and waits until three iterations have gone by."""
    _, log = serve("lightllm", table_of((0, 10, 30), (1, 10, 30)), 1000, max_waiting_iters=3)
    before = [(p, count) for p, count in zip(log["prefills"].tolist(), log["count"].tolist(), strict=True)]
    assert before[0] == (1, 1)
    assert sum(count for _, count in before[1 : before.index((1, 1), 1)]) == 3


def test_lightllm_foresees_the_fullest_moment():
    """50 + 50 tokens each at the end: two of them fill 198, which must stay below the cache."""
    together, _ = serve("lightllm", table_of((0, 50, 50), (0, 50, 50)), 199)
    assert together.requests[1].scheduled == 0
    apart, _ = serve("lightllm", table_of((0, 50, 50), (0, 50, 50)), 198)
    assert apart.requests[1].scheduled > 0


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("lightllm:block=16", "block"), ("sarathi:chunk=0", "chunk"), ("sarathi:chunks=5", "chunk"),
        ("orca:max_len=x", "max_len"), ("static:leak=true", "leaks"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_in_words(spec, words):
    with pytest.raises(ConfigError, match=words):
        make_scheduler(spec, 100, 1)


def test_lightllm_refuses_pipelines():
    with pytest.raises(ConfigError, match="one pipeline stage"):
        make_scheduler("lightllm", 100, 2)


@pytest.mark.parametrize(
    ("spec", "blocks", "reason"),
    [
        ("sarathi", 3, "KV cache"), ("orca:max_len=64", 100, "max_len"), ("orca", 100, "KV cache"), ("static", 100, "KV cache"),
        ("lightllm:max_tokens=50", 1000, "max_tokens"), ("lightllm", 80, "KV cache"),
    ],
)  # fmt: skip
def test_what_can_never_be_served_is_dropped_with_a_reason(spec, blocks, reason):
    name, _, option = spec.partition(":")
    options = dict([option.split("=")]) if option else {}
    service, _ = serve(name, table_of((0, 60, 30)), blocks, **options)
    assert (service.dropped, service.unfinished) == (1, 0)
    assert reason in service.requests[0].reason
