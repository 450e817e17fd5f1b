"""The parts of a step: hand-worked cases, and the law that they add up exactly, instant by instant."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import KINDS, Span, made

from distsim.analysis import breakdown as module
from distsim.analysis.breakdown import PARTS, breakdown
from distsim.record import CollectiveRow

#: receives are left out: they are under way only once their message is
TIMED = [kind for kind in KINDS if kind != "recv"]
SPANS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(TIMED), st.integers(0, 20), st.integers(0, 10)), max_size=25
).map(lambda rows: sorted((rank, kind, start, start + length) for rank, kind, start, length in rows))


def test_compute_hides_communication_and_what_remains_is_exposed():
    split = breakdown(made([(0, "compute", 0, 100), (0, "all_reduce", 60, 150), (0, "compute", 150, 160)]))
    assert (split.compute[0], split.exposed[0], split.hidden[0], split.idle[0]) == (110, 50, 40, 0)


def test_precedence_is_compute_communication_memory_host_idle():
    kinds = ("compute", "send", "memory", "host", "none")
    spans: list[Span] = [(0, kind, 0, 10 * (place + 1)) for place, kind in enumerate(kinds)]
    split = breakdown(made(spans, makespan=50))
    assert [int(getattr(split, part)[0]) for part in PARTS] == [10, 10, 10, 10, 10]
    assert split.average() == dict.fromkeys(PARTS, 0.2)


def test_overlapping_communication_belongs_to_what_began_first():
    spans: list[Span] = [(0, "all_reduce", 10, 50), (0, "all_gather", 0, 30), (0, "compute", 40, 45)]
    split = breakdown(made(spans, group=[0, 1, -1], groups=("dp", "tp")))
    columns = (column.tolist() for column in _columns(split.shares))
    rows = {(KINDS[kind], group): tuple(parts) for kind, group, *parts in zip(*columns, strict=True)}
    assert rows == {("all_gather", 1): (30, 0), ("all_reduce", 0): (15, 5)}


def test_a_collective_is_under_way_once_its_last_member_has_come():
    row = CollectiveRow("all_reduce", "dp", 8, (0, 1), "ring", first_ps=10, start_ps=40, end_ps=60)
    spans: list[Span] = [(0, "compute", 0, 10), (0, "all_reduce", 10, 60), (1, "compute", 0, 40), (1, "all_reduce", 40, 60)]
    split = breakdown(made(spans, ranks=2, collectives=(row,), groups=("dp",), group=[0, 0, 0, 0]))
    assert split.exposed.tolist() == [20, 20]
    assert split.idle.tolist() == [30, 0]
    assert split.waiting.tolist() == [30, 0]
    assert split.shares.waiting.tolist() == [30, 0]


def test_a_receive_is_under_way_once_its_message_has_set_out():
    spans: list[Span] = [(0, "compute", 0, 70), (0, "send", 70, 90), (1, "recv", 0, 90), (1, "compute", 90, 100)]
    split = breakdown(made(spans, ranks=2, size=[0, 5, 5, 0]))
    assert split.exposed.tolist() == [20, 20]
    assert (split.idle.tolist(), split.waiting.tolist()) == ([10, 70], [0, 70])


def test_the_kth_collective_of_a_communicator_is_the_kth_span():
    rows = tuple(CollectiveRow("all_reduce", "", 8, (0, 1), "ring", t, t + 5, t + 10) for t in (20, 0))
    spans: list[Span] = [(r, "all_reduce", t, t + 10) for r in (0, 1) for t in (0, 20)]
    split = breakdown(made(spans, ranks=2, collectives=rows))
    assert split.exposed.tolist() == [10, 10]
    assert split.waiting.tolist() == [10, 10]


@pytest.mark.parametrize(("spans", "ranks"), [([], 0), ([], 3), ([(1, "compute", 0, 0)], 2)])
def test_runs_in_which_nothing_takes_time_are_idle(spans, ranks):
    assert breakdown(made(spans, ranks=ranks)).average()["idle"] == 1.0


@given(SPANS)
def test_law_the_parts_are_what_counting_instants_gives(rows):
    result = made(rows, ranks=3, group=[start % 3 - 1 for _, _, start, _ in rows], groups=("a", "b"))
    split = breakdown(result)
    parts = np.stack([getattr(split, part) for part in PARTS])
    assert (parts.sum(axis=0) == result.makespan).all()
    for rank in range(3):
        mine = [row for row in rows if row[0] == rank]
        expected = dict.fromkeys((*PARTS, "hidden"), 0)
        owner: dict[tuple[str, int], list[int]] = {}
        for instant in range(result.makespan):
            running = [row for row in mine if row[2] <= instant < row[3]]
            kinds = {row[1] for row in running}
            talking = [row for row in running if row[1] in ("send", "recv", "all_reduce", "all_gather")]
            hidden = bool(talking) and "compute" in kinds
            part = (
                "compute" if "compute" in kinds else "exposed" if talking
                else "memory" if "memory" in kinds else "host" if "host" in kinds else "idle"
            )  # fmt: skip
            expected[part] += 1
            expected["hidden"] += hidden
            if talking:
                first = min(talking, key=lambda row: row[2])
                owner.setdefault((first[1], first[2] % 3 - 1), [0, 0])[hidden] += 1
        assert {name: int(getattr(split, name)[rank]) for name in expected} == expected
        of_rank = split.shares.rank == rank
        if len({(row[1], row[2]) for row in mine}) == len(mine):  # no two tasks began first together
            found = {
                (KINDS[k], g): [e, h]
                for k, g, e, h in zip(*(column[of_rank].tolist() for column in _columns(split.shares)), strict=True)
                if e or h
            }
            if len({row[2] for row in mine}) == len(mine):
                assert found == owner
        assert split.shares.exposed[of_rank].sum() == split.exposed[rank]
        assert split.shares.hidden[of_rank].sum() == split.hidden[rank]
        assert split.shares.waiting[of_rank].sum() == split.waiting[rank]


@given(SPANS)
def test_law_blocks_of_ranks_change_nothing(rows):
    """Runs too long for one axis are split rank by rank."""
    whole = breakdown(made(rows, ranks=3))
    far, module._FAR = module._FAR, 40
    try:
        single = breakdown(made(rows, ranks=3))
    finally:
        module._FAR = far
    for part in (*PARTS, "waiting", "hidden"):
        assert getattr(single, part).tolist() == getattr(whole, part).tolist()
    for one, other in zip(_columns(single.shares), _columns(whole.shares), strict=True):
        assert one.tolist() == other.tolist()


def test_times_of_days_do_not_overflow():
    day = 86_400 * 10**12
    split = breakdown(made([(r, "compute", 0, day) for r in range(64)], ranks=64, makespan=10 * day))
    assert split.compute.tolist() == [day] * 64
    assert split.idle.tolist() == [9 * day] * 64


def _columns(shares):
    return shares.kind, shares.group, shares.exposed, shares.hidden
