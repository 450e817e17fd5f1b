"""The first line and the rest of the text."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim import simulate
from distsim.analysis.summary import summarise
from distsim.cli.shipped import shipped
from distsim.report.answer import answer, percentages
from distsim.report.table import table
from distsim.report.terminal import text


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(sum))
def test_law_percentages_sum_to_100_and_are_within_one(values):
    shares = [value / sum(values) for value in values]
    whole = percentages(shares)
    assert sum(whole) == 100
    assert all(abs(100 * share - percent) < 1 for share, percent in zip(shares, whole, strict=True))


def two_ranks(tmp_path):
    """On each of two ranks: 100 us of compute, then an all_reduce of 4 MB beside 30 us more, then 10 us after both.

    A ring of 2 takes 2 steps of 2 MB at 50 GB/s and 500 ns: 81 us, of which 30 are hidden: 100 + 81 + 10 = 191 us; the links
    are busy for 80 us of it.
    """
    nodes = [
        {"op": "compute", "name": "a", "duration": "100us", "after": []},
        {"op": "all_reduce", "name": "sum", "bytes": 4_000_000, "group": "dp", "after": ["a"]},
        {"op": "compute", "name": "b", "duration": "30us", "after": ["a"]},
        {"op": "compute", "name": "c", "duration": "10us", "after": ["sum", "b"]},
    ]
    document = {
        "format": "distsim-trace/1", "ranks": 2, "groups": {"dp": {"size": 2, "stride": 1}},
        "programs": [{"name": "rank", "ranks": "all", "nodes": nodes}],
    }  # fmt: skip
    path = tmp_path / "two.json"
    path.write_text(json.dumps(document))
    return simulate(path, "ring:bandwidth=50GB/s,latency=500ns", network="analytic")


def test_golden_first_line(tmp_path):
    result = two_ranks(tmp_path)
    assert result.makespan == 191_000_000
    assert answer(result, summarise(result)) == (
        "step 191 us on 2 ranks: 73 % compute, 27 % exposed communication (dp all_reduce, ring links up to 42 % busy), 0 % idle"
    )


def test_golden_first_line_without_communication():
    result = simulate(shipped()["pipeline_send_recv"], "ring", network="ideal")
    line = answer(result, summarise(result))
    assert re.fullmatch(r"step \d.* s on 4 ranks: \d+ % compute, 0 % exposed communication, \d+ % idle", line), line
    assert sum(map(int, re.findall(r"(\d+) %", line))) == 100


@pytest.mark.parametrize("width", [60, 80, 100])
@pytest.mark.parametrize("name", sorted(shipped()))
def test_tables_keep_within_a_reasonable_width_and_tell_what_was_inferred(name, width):
    result = simulate(shipped()[name], "fat_tree", network="analytic")
    lines = text(result, summarise(result), width).splitlines()
    assert lines[0].startswith("step ")
    assert any(" inferred from " in line for line in lines[1:4])
    assert any("critical path" in line for line in lines)
    assert all(len(line) <= width for line in lines if line.startswith("  ") and not line.startswith("  ("))
    for heading in ("operation", "busiest links", "links by domain"):
        assert any(line.strip().startswith(heading) for line in lines)


def test_a_table_cuts_its_longest_text_and_then_leaves_out_its_last_columns():
    narrow = table(("name", "value", "more"), [("a" * 40, "1,234", "8" * 9)], width=30)
    assert narrow == ["  name            value", "  aaaaaaaaaaaaa…  1,234"]
    lines = table(("name", "value"), [("a" * 40, "1,234"), ("b", "5")], width=30)
    assert all(len(line) <= 30 for line in lines)
    assert lines[1].endswith("…  1,234")
    assert table(("name", "value"), [("b", "5")], width=30) == ["  name  value", "  b         5"]
