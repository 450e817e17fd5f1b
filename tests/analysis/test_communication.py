"""Communication and links: hand-worked numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_results import Span, made

from distsim.analysis.breakdown import breakdown
from distsim.analysis.communication import traffic
from distsim.analysis.links import busiest, domains
from distsim.collectives.bandwidth import bus_factor
from distsim.record import CollectiveRow
from distsim.result import LinkTable


def test_bus_factors_are_those_of_nccl_tests():
    assert [bus_factor(op, 8) for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")] == [
        1.75, 0.875, 0.875, 0.875, 1.0,
    ]  # fmt: skip


def test_one_row_per_operation_and_group_most_exposed_first():
    us = 1_000_000
    rows = (
        CollectiveRow("all_reduce", "dp", 1000, (0, 1), "ring", 0, 10 * us, 20 * us),
        CollectiveRow("all_gather", "tp", 500, (0, 1), "ring", 20 * us, 20 * us, 25 * us),
    )
    spans: list[Span] = [
        (0, "all_reduce", 0, 20 * us), (0, "all_gather", 20 * us, 25 * us), (0, "compute", 25 * us, 40 * us),
        (1, "compute", 0, 10 * us), (1, "all_reduce", 10 * us, 20 * us), (1, "all_gather", 20 * us, 25 * us),
    ]  # fmt: skip
    result = made(spans, ranks=2, collectives=rows, groups=("dp", "tp"), group=[0, 1, -1, -1, 0, 1])
    reduce, gather = traffic(result, breakdown(result))
    assert (reduce.operation, reduce.group, reduce.ranks, reduce.count, reduce.bytes) == ("all_reduce", "dp", (2,), 1, 2000)
    assert (reduce.time_ps, reduce.exposed_ps, reduce.waiting_ps) == (10 * us, 10 * us, 5 * us)
    assert reduce.algbw == pytest.approx(1000 / 10e-6)
    assert reduce.busbw == pytest.approx(1000 / 10e-6)
    assert gather.algbw == pytest.approx(1000 / 5e-6)
    assert gather.busbw == pytest.approx(500 / 5e-6)


def test_messages_are_counted_from_the_spans():
    spans: list[Span] = [(0, "send", 0, 10), (1, "recv", 0, 10)]
    result = made(spans, ranks=2, size=[30, 30])
    by_name = {t.operation: t for t in traffic(result, breakdown(result))}
    assert by_name["send"].count == by_name["recv"].count == 1
    assert by_name["send"].algbw == pytest.approx(30 / 10e-12)
    assert by_name["recv"].algbw is None


def test_busiest_links_and_domains():
    result = made([(0, "compute", 0, 100)], ranks=2)
    count = result.topology.links
    busy, size = np.zeros(count, np.int64), np.zeros(count, np.int64)
    busy[:2], size[:2] = (40, 80), (4, 8)
    result = replace(result, links=LinkTable(size, busy))
    first, second = busiest(result)
    assert (first.link, first.utilisation, first.bytes) == (1, 0.8, 8)
    assert second.name == result.topology.link_name(0)
    (domain,) = domains(result)
    assert (domain.used, domain.links, domain.bytes, domain.max) == (2, count, 12, 0.8)
    assert domain.mean == pytest.approx(120 / 100 / count)


def test_times_are_those_of_the_ranks_that_take_part_and_overlap_hides_nothing():
    """A group of two among eight ranks, with two overlapping collectives: each shows the time that it took."""
    rows = (
        CollectiveRow("all_reduce", "a", 1000, (0, 1), "ring", 0, 0, 100),
        CollectiveRow("all_gather", "a", 1000, (0, 1), "direct", 20, 20, 80),
    )
    spans = [(r, kind, begin, end) for r in (0, 1) for kind, begin, end in (("all_reduce", 0, 100), ("all_gather", 20, 80))]
    spans += [(r, "compute", 0, 100) for r in range(2, 8)]
    result = made(spans, ranks=8, collectives=rows, groups=("a",), group=[0] * 4 + [-1] * 6, stream=[2, 1] * 2 + [1] * 6)
    found = {t.operation: t for t in traffic(result, breakdown(result))}
    assert (found["all_reduce"].time_ps, found["all_reduce"].exposed_ps, found["all_reduce"].algorithm) == (100, 100, "ring")
    assert (found["all_gather"].time_ps, found["all_gather"].exposed_ps, found["all_gather"].algorithm) == (60, 0, "direct")
