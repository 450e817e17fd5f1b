"""Which ranks a timeline shows, what it says of the rest, and that its rows are rows."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from report_results import steps, unpacked

from distsim.analysis.summary import summarise
from distsim.report.html.shown import chosen
from distsim.report.html.timeline import arrange, columns


def test_a_small_run_is_shown_whole_and_nothing_is_said():
    result = steps(8, 10)
    shown = chosen(result, summarise(result))
    assert len(shown.rows) == len(result.spans())
    assert shown.left_out == ""
    assert [rank for rank, _ in shown.ranks] == list(range(8))
    assert not any(why for _, why in shown.ranks)


@given(ranks=st.integers(2, 40), most=st.integers(1, 12), room=st.integers(1, 400), late=st.integers(0, 39))
@settings(max_examples=60, deadline=None)
def test_of_a_large_run_the_telling_ranks_are_shown_within_the_limits(ranks, most, room, late):
    late %= ranks
    result = steps(ranks, 5, late=late)
    summary = summarise(result)
    shown = chosen(result, summary, ranks=most, spans=room)
    assert len(shown.ranks) <= most
    assert len(shown.rows) <= room
    drawn = [rank for rank, _ in shown.ranks]
    assert drawn == sorted(set(drawn))
    assert set(np.unique(result.spans().rank[shown.rows])) == set(drawn)
    assert summary.slowest in drawn
    if most > 1 and room >= 20:
        assert late in drawn  # it is the one that all others wait for
    assert (shown.left_out == "") == (len(shown.rows) == len(result.spans()))
    if len(drawn) < ranks:
        assert f"{len(drawn)} of {ranks} ranks" in shown.left_out


def test_of_one_long_rank_the_longest_tasks_are_shown():
    result = steps(1, 100)
    shown = chosen(result, summarise(result), spans=50)
    assert len(shown.rows) == 50
    assert "200 tasks of rank 0 the 50 longest" in shown.left_out


def test_folded_ranks_stand_for_others():
    result = steps(2, 4)
    folded = dataclasses.replace(
        result, ranks=8, finish=np.full(8, result.makespan), representative=np.array([0, 0, 0, 0, 0, 0, 1, 1])
    )
    summary = summarise(folded)
    shown = chosen(folded, summary)
    assert shown.left_out == "8 ranks were folded into 2 that differ: each is drawn once."
    data = columns(folded, summary, shown, arrange(folded, summary, shown))
    assert [rank["standsFor"] for rank in data["ranks"]] == [6, 2]


@given(
    spans=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 60), st.integers(0, 20)), min_size=1, max_size=60
    )
)
@settings(max_examples=80, deadline=None)
def test_rows_of_the_drawing_hold_every_task_once_and_none_overlap(spans):
    result = steps(3, 1)
    rows = sorted(spans, key=lambda span: span[0])
    rank, stream, begin, took = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    base, count = result.spans(), len(rows)
    table = dataclasses.replace(
        base, rank=rank.astype(np.int32), stream=stream.astype(np.int32), node=np.arange(count), start=begin, ready=begin,
        end=begin + took, kind=np.full(count, 1, np.int8), group=np.full(count, -1, np.int32), name=np.zeros(count, np.int32),
        bytes=np.zeros(count, np.int64), released_by=np.full(count, -1, np.int64),
    )  # fmt: skip
    result = dataclasses.replace(result, collectives=(), makespan=int(max(1, table.end.max())), make_spans=lambda: table)
    summary = summarise(result)
    shown = chosen(result, summary)
    arranged = arrange(result, summary, shown)
    assert sorted(arranged.rows.tolist()) == np.flatnonzero(took > 0).tolist()
    if not len(shown.rows):
        return
    data = unpacked(columns(result, summary, shown, arranged))
    assert data["tick"] == 1  # a short run: exact
    begins, ends = data["begin"].astype(np.int64), data["begin"].astype(np.int64) + data["length"]
    assert np.array_equal(begins, table.start[arranged.rows])
    assert np.array_equal(ends, table.end[arranged.rows])
    first = 0
    for row in data["rows"]:
        mine = slice(first, first + row["tasks"])
        assert (begins[mine][1:] >= ends[mine][:-1]).all()
        assert set(table.rank[arranged.rows[mine]]) == {row["rank"]}
        first += row["tasks"]
    assert first == len(begins)


def test_who_waited_for_whom_and_the_path():
    result = steps(4, 6, late=2)
    summary = summarise(result)
    shown = chosen(result, summary)
    arranged = arrange(result, summary, shown)
    data = unpacked(columns(result, summary, shown, arranged))
    spans, talks = result.spans(), data["kind"] == 2
    ranks = spans.rank[arranged.rows]
    waits = data["wait"] > 0
    assert (data["waitedFor"][waits] == 2).all()
    assert (data["waitedFor"][~waits] == -1).all()
    assert waits[talks & (ranks != 2)].all()
    assert not waits[ranks == 2].any()
    path = data["path"]
    assert np.array_equal(arranged.rows[path], summary.critical.row)
    assert set(np.flatnonzero(data["critical"])) == set(path.tolist())
    # what released a task ended when it was ready
    by = np.arange(len(arranged.rows)) - data["releasedBy"]
    told = data["releasedBy"] != 0
    assert np.array_equal(arranged.rows[by[told]], spans.released_by[arranged.rows[told]])


def test_times_of_a_long_run_are_right_to_a_tick():
    result = steps(2, 4)
    spans = result.spans()
    far = dataclasses.replace(spans, start=spans.start * 100_003, end=spans.end * 100_003, ready=spans.ready * 100_003)
    long = dataclasses.replace(result, makespan=result.makespan * 100_003, collectives=(), make_spans=lambda: far)
    summary = summarise(long)
    shown = chosen(long, summary)
    arranged = arrange(long, summary, shown)
    data = unpacked(columns(long, summary, shown, arranged))
    assert long.makespan / data["tick"] < 2**31
    off = far.start[arranged.rows] - data["begin"].astype(np.int64) * data["tick"]
    assert ((off >= 0) & (off < data["tick"])).all()
