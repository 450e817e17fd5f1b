"""Columns, blocks, path tables and the making of transfers."""

import doctest
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.network import columns
from distsim.network.check import star
from distsim.network.columns import Blocks, Columns, Records
from distsim.network.event_queue import DIGITS, put_in_order
from distsim.network.paths import PathTable
from distsim.network.rounding import serialisation


def test_columns_keep_their_rows_when_they_grow_and_change_form():
    table = Columns(2, number="i8", rate="f8")
    table.write("number", 0, np.array([7, 8]))
    table.reserve(5)
    assert table["number"] == [7, 8, 0, 0, 0]
    table.compile()
    table.reserve(6)
    table.write("rate", 1, np.array([0.5]))
    assert table.rows == 10
    assert table["number"].tolist() == [7, 8] + [0] * 8
    assert [column.dtype for column in table.all()] == [np.int64, np.float64]


def test_records_keep_their_rows_and_lie_each_in_one_cache_line():
    table = Records(3, time="i8", rate="f8", hop="i4", load="i8", last="i4", when="i8", more="i8", first="i4")
    table.write("hop", 0, np.array([1, 2, 3]))
    table.write("time", 1, np.array([9]))
    table.compile()
    for rows in (5, 1000, 100_000):
        table.reserve(rows)
        assert table["hop"][:4].tolist() == [1, 2, 3, 0]
        assert table["time"][:3].tolist() == [0, 9, 0]
        first = table["time"]
        assert first.strides == (64,)
        assert first.ctypes.data % 64 == 0


@settings(max_examples=60, deadline=None)
@given(
    entries=st.lists(
        st.tuples(st.integers(0, 3) | st.integers(0, 1 << 61), st.integers(0, 1 << 62)), max_size=120, unique=True
    ),
    compiled=st.booleans(),
)
def test_events_of_a_bucket_are_put_in_order(entries, compiled):
    spare = [0] * len(entries)
    columns = [[time for time, _ in entries], [rank for _, rank in entries], spare, spare[:], [0] * DIGITS]
    form = put_in_order.interpreted
    if compiled:
        form, columns = put_in_order.compiled, [np.array(column, dtype=np.int64) for column in columns]
    form(len(entries), *columns)
    assert list(zip(list(columns[0]), list(columns[1]), strict=True)) == sorted(entries)


def test_blocks_never_overlap_and_all_come_back():
    assert doctest.testmod(columns).failed == 0
    dice, blocks, live = random.Random(1), Blocks(), []
    for _ in range(3000):
        if live and dice.random() < 0.5:
            blocks.give(*live.pop(dice.randrange(len(live))))
        else:
            rows = dice.randrange(6)
            live.append((blocks.take(rows), rows))
        taken = [row for first, rows in live for row in range(first, first + rows)]
        assert len(taken) == len(set(taken))
        assert max(taken, default=-1) < blocks.end
    for one in live:
        blocks.give(*one)
    assert blocks.end == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_path_table_asks_once_per_pair(compiled):
    asked = []
    topology = star(70)
    table = PathTable(topology)
    router = topology.router
    object.__setattr__(topology, "router", lambda src, dst: asked.extend(zip(src, dst, strict=True)) or router(src, dst))
    if compiled:
        table.compile()
    dice = random.Random(2)
    for _ in range(5):
        pairs = [(dice.randrange(70), dice.randrange(70)) for _ in range(900)]
        given = [np.array(side, dtype=np.int32) if compiled else list(side) for side in zip(*pairs, strict=True)]
        for (src, dst), number in zip(pairs, table.numbers(*given), strict=True):
            first = table.pairs["first"]
            assert list(table.links["id"][first[number] : first[number + 1]]) == ([] if src == dst else [2 * src, 2 * dst + 1])
    assert len(asked) == len(set(asked)) == table.count


def test_serialisation_rounds_up():
    assert [serialisation(size, 50e9) for size in (0, 1, 1 << 20)] == [0, 20, 20_971_520]
    assert serialisation(1, 3e9) == 334
    assert serialisation(1 << 40, 53_687_091_200.0) == 20_480_000_000_000
    assert serialisation(1 << 61, 1.0) == 1 << 60
