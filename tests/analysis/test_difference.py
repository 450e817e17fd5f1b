"""Two runs side by side: the parts add up to both steps, and what was changed is what is found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from building import program
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim import simulate
from distsim.analysis.difference import difference
from distsim.analysis.difference import settings as changed
from distsim.analysis.summary import summarise
from distsim.cli.shipped import shipped
from distsim.trace.graph import NodeType, TaskGraph
from distsim.training import train


def found(first, second):
    return difference((first, summarise(first)), (second, summarise(second)))


def total(parts, side):
    return sum(getattr(part, side) for part in parts)


@pytest.mark.parametrize(
    ("trace", "levels"),
    [("moe_all_to_all", ("cut_through", "chunk")), ("pipeline_send_recv", ("analytic", "fluid")),
     ("dp_overlapped_buckets", ("ideal", "fluid"))],
)  # fmt: skip
def test_parts_add_up_to_both_steps(trace, levels):
    one, other = (simulate(shipped()[trace], "fat_tree", network=level) for level in levels)
    made = found(one, other)
    assert total(made.parts, "first") == pytest.approx(one.makespan, rel=1e-12)
    assert total(made.parts, "second") == pytest.approx(other.makespan, rel=1e-12)
    assert total(made.parts, "more") == pytest.approx(other.makespan - one.makespan, abs=1)
    assert ("network", *levels) in made.settings
    assert abs(made.parts[0].more) == max(abs(part.more) for part in made.parts)


def test_a_run_does_not_differ_from_itself():
    result = simulate(shipped()["moe_all_to_all"], "fat_tree")
    made = found(result, result)
    assert all(part.more == 0 for part in made.parts)
    assert made.compute == made.links == made.settings == ()


def test_other_numbers_of_ranks_and_folded_runs_compare():
    one, other = (
        train(model="llama3-8b", cluster=f"dgx_h100:gpus={n}", tp=2, global_batch=32, seq=8192).result for n in (4, 8)
    )
    assert one.representative is not None
    made = found(one, other)
    assert total(made.parts, "first") == pytest.approx(one.makespan, rel=1e-12)
    assert total(made.parts, "second") == pytest.approx(other.makespan, rel=1e-12)
    unfolded = dataclasses.replace(other)
    again = found(unfolded, other)
    assert all(part.more == 0 for part in again.parts)


def chain(durations, names):
    """One rank that computes one after the other."""
    rows = [(k, NodeType.COMP, [k - 1] if k else [], {"duration_ps": d, "name": n}) for k, (d, n) in enumerate(durations)]
    return TaskGraph((program(rows),), np.zeros(1, np.int32), (), names=names, source="test")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 10**9), st.integers(0, 2)), min_size=1, max_size=20), st.integers(2, 5), st.integers(0, 2)
)
def test_slower_computation_of_one_name_is_found_by_that_name(durations, factor, slow):
    names = ("a", "b", "c")
    after = [(d * factor if n == slow else d, n) for d, n in durations]
    one, other = (simulate(chain(rows, names), "fat_tree") for rows in (durations, after))
    made = found(one, other)
    more = (factor - 1) * sum(d for d, n in durations if n == slow)
    assert total(made.parts, "more") == pytest.approx(more, abs=1)
    assert [(row.name, row.second - row.first) for row in made.compute] == ([(names[slow], more)] if more else [])
    assert all(part.kind == "compute" for part in made.parts)


def test_links_of_the_same_name_are_paired_and_others_are_not():
    one = simulate(shipped()["moe_all_to_all"], "fat_tree")
    made = found(one, simulate(shipped()["moe_all_to_all"], "ring"))
    names = {one.topology.link_name(link) for link in range(one.topology.links)}
    assert all(pair.name in names and pair.first is not None and pair.second is not None for pair in made.links)
    assert {pair.domain for pair in made.domains} == {
        *one.topology.domains,
        *simulate(shipped()["moe_all_to_all"], "ring").topology.domains,
    }


def test_fields_that_differ_are_named_with_dots():
    one = {"a": 1, "pools": [{"tp": 1, "gpu": "a100"}], "same": [1, 2], "gone": True}
    other = {"a": 1, "pools": [{"tp": 1, "gpu": "h100"}], "same": (1, 2), "new": 0}
    assert changed(one, other) == (("pools.0.gpu", "a100", "h100"), ("gone", True, None), ("new", None, 0))
    assert changed({"x": [1]}, {"x": [1, 2]}) == (("x", [1], [1, 2]),)
