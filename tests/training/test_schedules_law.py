"""Pipeline schedules: every slot once, in an order that ends, with what is in flight as published."""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim import registry
from distsim.errors import ConfigError, UnknownNameError
from distsim.testing import check_pipeline_schedule
from distsim.workload.training.schedules import pipeline
from distsim.workload.training.schedules.interleaved import group_size
from distsim.workload.training.schedules.slot import BW, B, F, Slot, W
from distsim.workload.training.timing import peak_in_flight, schedule_run

NAMES = ("1f1b", "dualpipe", "gpipe", "interleaved", "zb_h1")
numbers = {"stages": st.integers(1, 16), "micro_batches": st.integers(1, 40)}


def unit_times(stages, virtual=1):
    return {(phase, chunk): 1 for phase in (F, B, W) for chunk in range(stages * virtual)}


def test_all_five_are_registered():
    assert registry.names("pipeline") == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    served = check_pipeline_schedule(name)
    if name in ("1f1b", "gpipe", "zb_h1"):
        assert len(served) == 8 * 8  # every number of stages and micro-batches, one virtual stage
    if name == "interleaved":
        assert len(served) == 8 * 3 * 8


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(("1f1b", "gpipe", "zb_h1", "interleaved")), virtual=st.integers(1, 4), **numbers)
def test_law_2_order_ends_and_nothing_starts_before_what_it_needs(name, stages, virtual, micro_batches):
    virtual = virtual if name == "interleaved" else 1
    check_pipeline_schedule(name, stages=[stages], virtual=[virtual], micro_batches=[micro_batches])
    causal(name, stages, virtual, micro_batches)


@settings(max_examples=25, deadline=None)
@given(half=st.integers(1, 8), more=st.integers(0, 10))
def test_law_2_dualpipe(half, more):
    stages = 2 * half
    check_pipeline_schedule("dualpipe", stages=[stages], virtual=[1], micro_batches=[2 * stages + 2 * more])
    causal("dualpipe", stages, 1, 2 * stages + 2 * more)


def causal(name, stages, virtual, micro_batches):
    """Each slot starts after what it needs has ended, looked up independently of the order of execution."""
    schedule = pipeline(name)
    times = {key: 3 + (7 * at) % 5 for at, key in enumerate(sorted(unit_times(stages, virtual)))}
    timeline = schedule_run(schedule, stages, virtual, micro_batches, times, p2p=2)
    begins, ends, where = {}, {}, {}
    for stage, order in enumerate(timeline.orders):
        for slot, start, end in zip(order, timeline.start[stage], timeline.end[stage], strict=True):
            key = Slot(B, slot.micro_batch, slot.chunk) if slot.phase == BW else slot
            begins[key], ends[key], where[key] = start, end, stage
        pairs = list(zip(timeline.end[stage], timeline.start[stage][1:], strict=False))
        assert all(end <= start for end, start in pairs)
    last = stages * virtual - 1
    for slot, start in begins.items():
        phase, m, c = slot
        needs = {
            F: [Slot(F, m, c - 1)] if c else [],
            B: [Slot(F, m, c)] + ([Slot(B, m, c + 1)] if c < last else []),
            W: [Slot(B, m, c)],
        }[phase]
        for need in needs:
            assert ends[need] + (2 if where[need] != where[slot] else 0) <= start, (need, slot)


@settings(max_examples=60, deadline=None)
@given(**numbers)
def test_in_flight_of_1f1b_gpipe_and_zb_h1(stages, micro_batches):
    for stage in range(stages):
        held = [peak_in_flight(pipeline(n), stage, stages, 1, micro_batches) for n in ("1f1b", "gpipe", "zb_h1")]
        assert held[0] == {stage: min(micro_batches, stages - stage)}
        assert held[1] == {stage: micro_batches}
        # until W: on every stage what 1F1B holds on its first
        assert held[2] == {stage: min(micro_batches, stages)}


@settings(max_examples=40, deadline=None)
@given(virtual=st.integers(1, 4), **numbers)
def test_in_flight_of_interleaved_is_megatrons_warm_up_and_one(virtual, stages, micro_batches):
    group = group_size(stages, micro_batches)
    for stage in range(stages):
        held = peak_in_flight(pipeline("interleaved"), stage, stages, virtual, micro_batches)
        warm_up = (stages - stage - 1) * 2 + (virtual - 1) * group
        assert sum(held.values()) == min(warm_up + 1, micro_batches * virtual)
        assert set(held) == {v * stages + stage for v in range(virtual)}


@pytest.mark.parametrize(("stages", "micro_batches"), [(2, 4), (4, 8), (8, 20), (16, 64)])
def test_in_flight_of_dualpipe_is_pp_and_one(stages, micro_batches):
    # DeepSeek-V3's table 2: activations x (PP + 1), of both directions together
    held = [sum(peak_in_flight(pipeline("dualpipe"), s, stages, 1, micro_batches).values()) for s in range(stages)]
    assert max(held) == stages + 1


def test_peak_weighs_chunks_that_are_not_alike():
    schedule = pipeline("interleaved")
    assert peak_in_flight(schedule, 0, 2, 2, 4) == {0: 3, 2: 2}  # after F2.0; later, after F3.0, there are 4 and 1
    assert peak_in_flight(schedule, 0, 2, 2, 4, {0: 100.0, 2: 1.0}) == {0: 4, 2: 1}


class TestOrders:
    """Small cases by hand, against the figures of the papers."""

    CASES: ClassVar = {
        # SC21 figure 4, top: 4 stages, 8 micro-batches
        ("1f1b", 3, 4, 1, 4): "F0 B0 F1 B1 F2 B2 F3 B3",
        ("1f1b", 2, 4, 1, 4): "F0 F1 B0 F2 B1 F3 B2 B3",
        ("gpipe", 0, 2, 1, 3): "F0 F1 F2 B2 B1 B0",
        ("zb_h1", 2, 3, 1, 4): "F0 B0 F1 B1 F2 B2 W0 F3 B3 W1 W2 W3",
        ("zb_h1", 0, 3, 1, 4): "F0 F1 F2 B0 W0 F3 B1 W1 B2 W2 B3 W3",
    }

    @pytest.mark.parametrize("case", CASES)
    def test_order(self, case):
        name, *rest = case
        order = pipeline(name).order(*rest)
        assert " ".join(f"{slot.phase}{slot.micro_batch}" for slot in order) == self.CASES[case]

    def test_interleaved_is_megatrons_table(self):
        # chunks 0 and 2 on stage 0; groups of pp = 2 micro-batches; warm-up (2 - 0 - 1) * 2 + (2 - 1) * 2 = 4
        order = pipeline("interleaved").order(0, 2, 2, 4)
        text = " ".join(f"{slot.phase}{slot.micro_batch}.{slot.chunk}" for slot in order)
        assert text == "F0.0 F1.0 F0.2 F1.2 F2.0 B0.2 F3.0 B1.2 F2.2 B0.0 F3.2 B1.0 B2.2 B3.2 B2.0 B3.0"

    def test_dualpipe_of_two_stages(self):
        order = pipeline("dualpipe").order(0, 2, 1, 4)
        text = " ".join(f"{slot.phase}{slot.micro_batch}.{slot.chunk}" for slot in order)
        assert text == "F0.0 F2.1 F1.0 BW2.1 F3.1 BW0.0 BW3.1 B1.0 W1.0"

    def test_dualpipe_goes_both_ways(self):
        schedule = pipeline("dualpipe")
        assert schedule.path(3, 4, 1, 8) == (0, 1, 2, 3)
        assert schedule.path(4, 4, 1, 8) == (3, 2, 1, 0)
        assert schedule.copies == 2


class TestRefused:
    @pytest.mark.parametrize("name", ["1f1b", "gpipe", "zb_h1", "dualpipe"])
    def test_virtual_stages(self, name):
        with pytest.raises(ConfigError, match="vpp is 2") as refused:
            pipeline(name).order(0, 4, 2, 8)
        assert refused.value.near == ("interleaved",)

    def test_odd_pipeline_of_dualpipe(self):
        with pytest.raises(ConfigError, match="pp is 3") as refused:
            pipeline("dualpipe").order(0, 3, 1, 12)
        assert refused.value.near == ("2", "4")

    @pytest.mark.parametrize(("given", "near"), [(13, ("12", "14")), (6, ("8",)), (1, ("8",))])
    def test_micro_batches_of_dualpipe_say_the_nearest(self, given, near):
        with pytest.raises(ConfigError, match=f"{given} micro-batches on 4 stages") as refused:
            pipeline("dualpipe").order(0, 4, 1, given)
        assert refused.value.near == near

    @pytest.mark.parametrize("name", NAMES)
    def test_nothing_to_run(self, name):
        with pytest.raises(ConfigError, match="0 micro-batches"):
            pipeline(name).order(0, 2, 1, 0)

    def test_unknown_name(self):
        with pytest.raises(UnknownNameError, match="zb_h1"):
            pipeline("zb_h2")


def test_contract_finds_a_schedule_that_is_wrong():
    class Backwards(type(pipeline("1f1b"))):
        def order(self, stage, stages, virtual, micro_batches):
            return super().order(stage, stages, virtual, micro_batches)[::-1]

    class Forgetful(type(pipeline("gpipe"))):
        def order(self, stage, stages, virtual, micro_batches):
            return super().order(stage, stages, virtual, micro_batches)[:-1]

    for kind, fault in ((Backwards, "wait for ever"), (Forgetful, "not every chunk backward once")):
        registry.register("pipeline", "broken")(kind)
        try:
            with pytest.raises(AssertionError, match=fault):
                check_pipeline_schedule("broken", virtual=[1])
        finally:
            del registry._components["pipeline"]["broken"]
