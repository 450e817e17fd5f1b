"""Would the checker notice? Right schedules, spoilt in one place, must be refused for the right reason."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.collectives.check import check
from distsim.collectives.pipeline import ragged
from distsim.collectives.schedule import Collective, schedule
from distsim.errors import CollectiveError

CASES = [
    ("ring", "all_reduce"), ("ring", "all_gather"), ("ring", "all_to_all"), ("ring", "barrier"), ("direct", "all_reduce"),
    ("halving_doubling", "reduce_scatter"), ("recursive_doubling", "all_reduce"), ("binary_tree", "gather"),
    ("double_binary_tree", "broadcast"), ("double_binary_tree", "all_reduce"),
]  # fmt: skip


def deps_of(answer):
    return [answer.dep[a:b].tolist() for a, b in zip(answer.dep_ptr[:-1], answer.dep_ptr[1:], strict=True)]


def with_deps(answer, deps):
    ptr, dep = ragged(deps)
    return replace(answer, dep_ptr=ptr, dep=dep)


def without(answer, row):
    """The schedule with one transfer dropped; who waited for it waits for what it waited for."""
    keep = [t for t in range(len(answer)) if t != row]
    renamed = {t: k for k, t in enumerate(keep)}
    deps = deps_of(answer)
    left = with_deps(
        replace(answer, **{name: getattr(answer, name)[keep] for name in ("src", "dst", "bytes", "reduce")},
                payload=lambda t: answer.payload(keep[t])),
        [sorted({renamed[d] for d in deps[t] if d != row}) for t in keep],
    )  # fmt: skip
    return left


def asked(name, operation, **more):
    collective = Collective(operation, 4, 101, **more)
    return schedule(name, collective), collective


@pytest.mark.parametrize(("name", "operation"), CASES)
def test_any_dropped_transfer_is_noticed(name, operation):
    answer, collective = asked(name, operation)
    for row in np.flatnonzero(answer.src != answer.dst).tolist():
        with pytest.raises(CollectiveError):
            check(without(answer, row), collective)


@pytest.mark.parametrize("name", ["ring", "direct", "halving_doubling", "binary_tree", "double_binary_tree"])
def test_any_reduction_done_twice_is_noticed(name):
    answer, collective = asked(name, "all_reduce")
    for row in np.flatnonzero(answer.reduce).tolist():
        rows = [*range(row + 1), row, *range(row + 1, len(answer))]
        later = [d + (d > row) for d in range(len(answer))]
        deps = [[later[d] for d in some] for some in deps_of(answer)]
        deps.insert(row + 1, deps[row])
        doubled = with_deps(
            replace(answer, **{column: getattr(answer, column)[rows] for column in ("src", "dst", "bytes", "reduce")},
                    payload=lambda t, rows=rows: answer.payload(rows[t])),
            deps,
        )  # fmt: skip
        with pytest.raises(CollectiveError, match=r"more than once|outcome is open"):
            check(doubled, collective)


@pytest.mark.parametrize(("name", "operation"), [case for case in CASES if case[1] != "barrier"])
def test_any_dependency_left_out_is_noticed_where_chunks_do_not_add_some(name, operation):
    """Every dependency of a one-chunk schedule matters, but those on own sends, and in exchanges those they imply."""
    answer, collective = asked(name, operation)
    deps = deps_of(answer)
    for row, some in enumerate(deps):
        arrivals = [d for d in some if answer.dst[d] == answer.src[row] and answer.payload(d)]
        for d in arrivals:
            spoilt = [list(s) for s in deps]
            spoilt[row].remove(d)
            with pytest.raises(CollectiveError):
                check(with_deps(answer, spoilt), collective)


def test_a_wrong_dependency_is_noticed():
    answer, collective = asked("ring", "all_reduce")
    deps = deps_of(answer)
    deps[9] = [d - 4 for d in deps[9]]  # one step too early
    with pytest.raises(CollectiveError):
        check(with_deps(answer, deps), collective)
    deps[9] = [7]
    with pytest.raises(CollectiveError, match="neither of its ends"):
        check(with_deps(answer, deps), collective)
    deps[9] = [10]
    with pytest.raises(CollectiveError, match="an earlier row"):
        check(with_deps(answer, deps), collective)


def test_columns_that_contradict_each_other_are_noticed():
    answer, collective = asked("ring", "all_reduce")
    for spoilt, words in (
        (replace(answer, bytes=answer.bytes + 1), "sum of blocks"),
        (replace(answer, dst=answer.dst + 1), "not a member"),
        (replace(answer, dst=answer.src), "join"),
        (replace(answer, src=answer.src[:-1]), "equal lengths"),
        (replace(answer, dep=answer.dep[:-1]), "dep_ptr"),
        (replace(answer, payload=lambda _: [99]), "different blocks below 4"),
        (replace(answer, reduce=~answer.reduce), "missing|more than once|open"),
    ):
        with pytest.raises(CollectiveError, match=words):
            check(spoilt, collective)


def test_sending_what_one_does_not_have_is_noticed():
    answer, collective = asked("ring", "all_gather")
    with pytest.raises(CollectiveError, match="does not have"):
        check(replace(answer, payload=lambda t: [(answer.payload(t)[0] + 1) % 4], bytes=np.full(len(answer), 101)), collective)


def test_a_barrier_that_somebody_leaves_early_is_noticed():
    answer, collective = asked("recursive_doubling", "barrier")
    with pytest.raises(CollectiveError, match="without having heard"):
        check(with_deps(answer, [[] for _ in range(len(answer))]), collective)


@settings(max_examples=100, deadline=None)
@given(case=st.sampled_from(CASES), chunks=st.integers(1, 3), data=st.data())
def test_law_any_payload_changed_is_noticed(case, chunks, data):
    name, operation = case
    answer, collective = asked(name, operation, chunks=chunks)
    row = data.draw(st.sampled_from([t for t in range(len(answer)) if answer.payload(t)]))
    with pytest.raises(CollectiveError):
        check(replace(answer, payload=lambda t: answer.payload(t)[1:] if t == row else answer.payload(t)), collective)
