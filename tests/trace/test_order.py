"""Program order: topological, lowest id first, compiled = interpreted."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distsim.errors import TraceError
from distsim.trace.build import Rows
from distsim.trace.graph import Program
from distsim.trace.matching import turns
from distsim.trace.order import find_cycle, program_order


def program(edges: dict[int, list[int]]) -> Program:
    rows = Rows()
    for number, after in edges.items():
        rows.add(after, {"id": number, "type": 4})
    return rows.program("t")[0]


@st.composite
def graphs(draw: st.DrawFn) -> dict[int, list[int]]:
    ids = draw(st.lists(st.integers(0, 50), min_size=1, max_size=12, unique=True))
    edges = {number: draw(st.lists(st.sampled_from(ids[:k]), max_size=3)) if k else [] for k, number in enumerate(ids)}
    return {number: edges[number] for number in draw(st.permutations(ids))}


@pytest.mark.parametrize("form", ["python", "compiled"])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edges=graphs())
def test_lowest_id_first(form: str, edges: dict[int, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTSIM_KERNELS", form)
    waiting = {number: len(after) for number, after in edges.items()}
    ready = [number for number, count in waiting.items() if count == 0]
    heapq.heapify(ready)
    expected = []
    while ready:
        number = heapq.heappop(ready)
        expected.append(number)
        for other, after in edges.items():
            waiting[other] -= after.count(number)
            if number in after and waiting[other] == 0:
                heapq.heappush(ready, other)
    p = program(edges)
    assert p.id[program_order(p)].tolist() == expected
    assert find_cycle(p) == []


@given(edges=graphs(), data=st.data())
def test_a_cycle_is_found_and_is_one(edges: dict[int, list[int]], data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(sorted(edges)))
    p = program({**edges, victim: [*edges[victim], victim]})
    with pytest.raises(TraceError, match="cycle"):
        program_order(p)
    cycle = find_cycle(p)
    for row, after in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
        assert after in p.dep[p.dep_ptr[row] : p.dep_ptr[row + 1]]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2))))
def test_turns_count_earlier_equals(keys: list[tuple[int, int]]) -> None:
    columns = np.array(keys, np.int64).reshape(-1, 2).T
    assert turns(*columns).tolist() == [keys[:k].count(key) for k, key in enumerate(keys)]
