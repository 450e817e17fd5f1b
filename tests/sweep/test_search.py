"""The search finds the exhaustive minimum whenever bounds are true, and tells the truth where it could not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.sweep.evaluator import Evaluator
from distsim.sweep.executors import Crew, Inline
from distsim.sweep.points import Numbered, Tally
from distsim.sweep.search import Limits, Search, search
from distsim.sweep.search_shown import answer, document, losses, text

PLANS: list[dict[str, Any]] = []  #: of the example under way
RUN: list[int] = []  #: what was simulated


def evaluate(point: Mapping[str, Any]) -> dict[str, Any]:
    """What the table says."""
    plan = PLANS[point["number"]]
    RUN.append(point["number"])
    if plan["trouble"] == "simulation":
        raise ConfigError(f"plan {point['number']} has no schedule")
    if plan["trouble"] == "mistake":
        raise ZeroDivisionError
    return {"step_ps": plan["step"], "memory_bytes": plan["memory"], "bubble_ps": plan["step"] // 2}


def bound(point: Mapping[str, Any]) -> dict[str, Any]:
    """Below it by what the table says."""
    plan = PLANS[point["number"]]
    if plan["trouble"] == "plan":
        raise ConfigError(f"plan {point['number']} breaks a rule")
    return {"step_ps": plan["step"] - plan["slack"], "memory_bytes": plan["memory"] - plan["hidden"]}


TABLE = Evaluator("table", f"{__name__}:evaluate", {"number": ...}, ("number",), f"{__name__}:bound")
PLAN = st.fixed_dictionaries({
    "step": st.integers(10, 60), "slack": st.integers(0, 30), "memory": st.integers(1, 9), "hidden": st.integers(0, 2),
    "trouble": st.sampled_from(["", "", "", "", "plan", "simulation"]),
})  # fmt: skip


def found_of(plans, limits=Limits(), width=1, against=None, **more) -> Search:  # noqa: B008  (frozen)
    """The search of a table of plans."""
    PLANS[:], RUN[:] = plans, []
    points = [Numbered(at, {"number": at}, {"number": at}) for at in range(len(plans))]
    if width == 1:
        return search(TABLE, points, len(plans), Tally(), Crew(Inline(), 1, ""), limits, against, **more)
    with ThreadPoolExecutor(width) as pool:
        return search(TABLE, points, len(plans), Tally(), Crew(pool, width, ""), limits, against, **more)


@settings(max_examples=150, deadline=None)
@given(plans=st.lists(PLAN, max_size=30), most=st.one_of(st.none(), st.integers(1, 9)), width=st.sampled_from([1, 3]))
def test_law_the_search_equals_the_exhaustive_minimum(plans, most, width):
    found = found_of(plans, Limits(memory=most), width)
    can = [(p["step"], at) for at, p in enumerate(plans) if not p["trouble"] and (most is None or p["memory"] <= most)]
    if not can:
        assert found.best is None
        assert answer(found, Limits()).startswith("no plan")
    else:
        assert found.best is not None
        assert found.proven
        assert found.best.value == min(can)[0]
        first = min((p["step"] - p["slack"], at) for step, at in can if step == min(can)[0] for p in [plans[at]])
        assert found.best.number == first[1]  # of equals the first in the order of bounds, however many workers
        assert found.by_bound == 0 or found.smallest_pruned >= found.best.value
    # every plan is accounted for
    beside = sum(one.count for one in found.refused) + found.by_bound + len(found.trials) + found.over_memory
    assert beside == len(plans)
    assert len(RUN) == len(set(RUN))
    if width == 1 and can:  # nothing is simulated that a bound excludes
        assert all(plans[at]["step"] - plans[at]["slack"] <= min(can)[0] for at in RUN)


@settings(max_examples=30, deadline=None)
@given(plans=st.lists(PLAN, min_size=1, max_size=30), width=st.sampled_from([2, 4]))
def test_law_the_report_does_not_depend_on_the_number_of_workers(plans, width):
    one, more = (document(found_of(plans, width=w), Limits()) for w in (1, width))
    for made in (one, more):
        del made["seconds"], made["seconds_bounds"]
    assert one == more


def plan(step, slack=5, memory=1, trouble=""):
    """One row."""
    return {"step": step, "slack": slack, "memory": memory, "hidden": 0, "trouble": trouble}


def test_false_bounds_are_noticed():
    found = found_of([plan(20, -1), plan(30, 25)])
    assert found.false_bounds == 1
    assert not found.proven
    assert "bounds prove nothing" in text(found, Limits(), 100)


def test_mistakes_leave_it_unproven():
    found = found_of([plan(20, trouble="mistake"), plan(30)])
    assert (found.best.value, found.failed, found.proven) == (30, 1, False)


def test_time_runs_out_and_what_is_left_is_told():
    clock = iter(range(1000))
    found = found_of([plan(100 - at, 50) for at in range(40)], Limits(seconds=12), now=lambda: float(next(clock)))
    assert not found.proven
    assert found.unproven + found.by_bound + len(found.trials) == 40
    assert found.unproven > 0
    assert found.smallest_unproven < found.best.value
    said = text(found, Limits(), 100)
    assert "best found, not proven" in said.splitlines()[0]
    assert "time was out" in said


def test_bounds_that_take_too_long_are_told():
    clock = iter(range(10**6))
    found = found_of([plan(100 + at) for at in range(5000)], Limits(seconds=16), now=lambda: float(next(clock)))
    assert found.unbounded > 0
    assert found.unbounded + found.bounded == 5000
    assert not found.proven


def test_the_given_plan_takes_part():
    plans = [plan(50), plan(40), plan(45)]
    found = found_of(plans, against={"number": 2})
    assert (found.best.value, found.against.value) == (40, 45)
    said = text(found, Limits(), 100).splitlines()
    assert "place 2 of 2 simulated, 12.5 % slower: bubble +2 ps" in said[1]
    assert losses(found.against, found.best, "step_ps") == "bubble +2 ps"
    best_already = found_of([plan(50), plan(40, 3), plan(20, 0)], against={"number": 2})
    assert best_already.best.number == -1
    assert best_already.by_bound == 3  # the given plan prunes from the start
    assert "no simulated plan of the space is faster" in text(best_already, Limits(), 100)


def test_a_given_plan_that_cannot_be_run_is_told():
    plans = [plan(50), plan(40, trouble="plan"), plan(30, memory=9), plan(20, trouble="simulation")]
    said = [text(found_of(plans, Limits(memory=5), against={"number": at}), Limits(memory=5), 100) for at in (1, 2, 3)]
    assert "cannot be simulated: plan 1 breaks a rule" in said[0]
    assert "needs more memory than the limit" in said[1]
    assert "cannot be simulated: plan 3 has no schedule" in said[2]
    assert all("best step 50 ps" in one for one in said)


def test_the_document_is_json():
    made = json.loads(json.dumps(document(found_of([plan(50), plan(40), plan(99, 5)]), Limits()), allow_nan=False))
    assert made["best"]["plan"] == {"number": 1}
    assert made["pruned_by_bound"] == 2
    assert made["smallest_pruned"] == 45
    assert made["proven"] is True


@pytest.mark.parametrize("width", [1, 2])
def test_an_empty_space_is_no_plan(width):
    found = found_of([], width=width)
    assert found.best is None
    assert not found.proven
