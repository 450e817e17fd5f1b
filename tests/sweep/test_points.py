"""From a study to points: the product, its numbers, and who was refused why."""

from __future__ import annotations

import itertools

import fake_plans
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError, UnknownNameError
from distsim.sweep.evaluator import Evaluator
from distsim.sweep.points import Space, Tally
from distsim.sweep.runner import screen
from distsim.sweep.study import study

ABC = Evaluator("abc", "none:none", {"a": 0, "b": 0, "c": 0, "d": 0})


def points(document, evaluator=ABC):
    """Points and refusals of a study."""
    refused = Tally()
    space = Space(study({"kind": "abc", **document}), evaluator)
    return space, space.points(refused), refused


@settings(max_examples=60, deadline=None)
@given(
    a=st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True),
    b=st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True),
    c=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True), most=st.integers(0, 20), part=st.integers(1, 4),
)  # fmt: skip
def test_the_product_cut_early_is_the_product_filtered_late(a, b, c, most, part):
    document = {
        "grid": {"a": a, "b": b, "c": c}, "derived": {"d": f"a * {part} / b"},
        "constraints": [f"a + b <= {most}", "d >= c", "c < 9"],
    }  # fmt: skip
    space, found, refused = points(document)
    wanted = []
    for number, (x, y, z) in enumerate(itertools.product(a, b, c)):
        d = x * part / y
        if d.is_integer() and x + y <= most and d >= z and z < 9:
            wanted.append((number, {"a": x, "b": y, "c": z, "d": int(d)}))
    assert [(one.number, dict(one.values)) for one in found] == wanted
    assert space.size == len(a) * len(b) * len(c) == len(found) + refused.count


def test_cases_zip_variables_and_ranges():
    document = {
        "points": [{"a": 1}, {"a": 2, "b": 5}], "base": {"b": 7}, "zip": [{"c": [10, 20], "d": [30, 40]}],
        "variables": {"gpus": {"from": 1, "to": 4, "factor": 2}}, "constraints": ["gpus <= 2 or a == 1"],
    }  # fmt: skip
    space, found, refused = points(document)
    assert space.size == 2 * 2 * 3
    # the variable is no field: points that differ in it only are the same run
    assert [one.point for one in found] == [
        {"b": 7, "a": 1, "c": 10, "d": 30}, {"b": 7, "a": 1, "c": 20, "d": 40},
        {"b": 5, "a": 2, "c": 10, "d": 30}, {"b": 5, "a": 2, "c": 20, "d": 40},
    ]  # fmt: skip
    assert {(one.reason, one.count) for one in refused.rows()} == {
        ("the same as an earlier point", 6), ("gpus <= 2 or a == 1", 2),
    }  # fmt: skip


def test_a_sample_is_drawn_with_the_seed_from_the_points_that_pass():
    def drawn(seed):
        space = Space(study({"kind": "fake", "base": {"pp": 1}, "grid": {"tp": list(range(2, 50))}}), fake_plans.FAKE)
        refused = Tally()
        tasks = screen(fake_plans.FAKE, space.points(refused), refused, lambda fraction, what: None, 6, seed)
        assert len(tasks) + refused.count == 48
        return [task.numbered.number for task in tasks]

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert first == again == sorted(first) != other
    assert len(first) == 6
    assert all(96 % (2 + number) == 0 for number in first + other)


def test_ranges_do_not_drift():
    _, found, _ = points({"grid": {"a": {"from": 0, "to": 1, "step": 0.1}}})
    assert [one.values["a"] for one in found] == [k * 0.1 for k in range(11)]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"grid": {"e": [1]}}, "unknown field of kind abc 'e'"),
        ({"gird": {"a": [1]}}, "unknown key 'gird'"),
        ({"grid": {"a": {"from": 1, "to": 4}}}, "either factor or step"),
        ({"grid": {"a": {"from": 1, "to": 4, "factr": 2}}}, "Nearest: factor"),
        ({"grid": {"a": {"from": 4, "to": 1, "step": 1}}}, "leads nowhere"),
        ({"grid": {"a": {"from": 0, "to": 1, "step": 1e-9}}}, "more than 100,000"),
        ({"grid": {"a": []}}, "without values"),
        ({"grid": {"a": [1]}, "base": {"a": 2}}, "a is given by base and by grid"),
        ({"grid": {"a": [1]}, "derived": {"a": "b"}}, "a is given by grid and by derived"),
        ({"zip": [{"a": [1, 2], "b": [1]}]}, "differ in length"),
        ({"variables": {"a": 1}}, "not a variable"),
        ({"points": [{"a": 1}, {"b": 2}]}, "not every case says a, b"),
        ({"constraints": ["a <= bb"]}, "unknown name 'bb'"),
        ({"derived": {"a": "b", "b": "a"}}, "unknown name 'b'"),
        ({"constraints": ["a <"]}, "is not an expression"),
        ({"objectives": {"step": "least"}}, "objectives.step"),
    ],
)  # fmt: skip
def test_a_wrong_study_says_what_is_wrong(document, said):
    with pytest.raises(ConfigError, match=said):
        points(document)


def test_required_fields_are_asked_for():
    needs = Evaluator("needs", "none:none", {"model": ..., "tp": 1}, ("model",))
    with pytest.raises(ConfigError, match="no model"):
        points({"grid": {"tp": [1]}}, needs)
    with pytest.raises(UnknownNameError, match="model"):  # no default that an expression could use
        points({"points": [{"tp": 1}], "constraints": ["model == 'x'"]}, Evaluator("may", "", {"model": ..., "tp": 1}))


def test_a_million_combinations_with_few_that_fit_cost_little():
    grid = {name: {"from": 1, "to": 100, "step": 1} for name in ("a", "b", "c")}
    space, found, refused = points({"grid": grid, "constraints": ["a * b == 7919", "c == a"]})
    assert (space.size, len(found), refused.count) == (10**6, 0, 10**6)


def test_kinds_are_found():
    assert fake_plans.FAKE.defaults == {"tp": 1, "pp": 1, "name": "", "trouble": None}
