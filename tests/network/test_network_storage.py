"""Columns, blocks, path tables and the making of transfers."""

import doctest
import random

import numpy as np
import pytest

from distsim.network import columns
from distsim.network.check import star
from distsim.network.columns import Blocks, Columns
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
