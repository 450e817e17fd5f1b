"""The critical path: hand-worked cases, and the law that its steps tile the run."""

from __future__ import annotations

import pytest
from made_results import Span, made

from distsim import simulate
from distsim.analysis.critical import critical_path
from distsim.cli.shipped import shipped
from distsim.record import CollectiveRow


def test_it_follows_what_released_each_task():
    spans: list[Span] = [(0, "compute", 0, 10), (0, "compute", 0, 30), (0, "all_reduce", 30, 50), (0, "compute", 50, 60)]
    path = critical_path(made(spans, released_by=[-1, -1, 1, 2]))
    assert path.row.tolist() == [1, 2, 3]
    assert dict(path.times) == {"compute": 40, "all_reduce": 20}


def test_it_goes_over_to_the_member_that_came_last():
    row = CollectiveRow("all_reduce", "", 8, (0, 1), "ring", 10, 40, 60)
    spans: list[Span] = [
        (0, "compute", 0, 10), (0, "all_reduce", 10, 60), (0, "compute", 60, 80),
        (1, "compute", 0, 40), (1, "all_reduce", 40, 60),
    ]  # fmt: skip
    path = critical_path(made(spans, ranks=2, collectives=(row,), released_by=[-1, 0, 1, -1, 3]))
    assert path.row.tolist() == [3, 1, 2]
    assert path.begin.tolist() == [0, 40, 60]
    assert dict(path.times) == {"compute": 60, "all_reduce": 20}


def test_it_goes_over_to_the_sender():
    spans: list[Span] = [(0, "compute", 0, 70), (0, "send", 70, 90), (1, "recv", 0, 90), (1, "compute", 90, 100)]
    path = critical_path(made(spans, ranks=2, size=[0, 5, 5, 0], released_by=[-1, 0, -1, 2]))
    assert path.row.tolist() == [0, 2, 3]
    assert dict(path.times) == {"compute": 80, "recv": 20}


def test_a_message_that_had_set_out_before_its_receive_was_posted_is_what_was_waited_for():
    spans: list[Span] = [(0, "compute", 0, 30), (0, "send", 30, 90), (1, "compute", 0, 50), (1, "recv", 50, 90)]
    path = critical_path(made(spans, ranks=2, size=[0, 5, 0, 5], released_by=[-1, 0, -1, 2]), last=3)
    assert path.row.tolist() == [0, 3]
    assert (path.begin.tolist(), path.end.tolist()) == ([0, 30], [30, 90])


def test_a_task_that_waited_for_its_stream_was_held_up_by_what_ran_there():
    spans: list[Span] = [(0, "compute", 0, 10), (0, "compute", 0, 30), (0, "compute", 30, 40)]
    path = critical_path(made(spans, stream=[2, 1, 1], ready=[0, 0, 10], released_by=[-1, -1, 0]))
    assert path.row.tolist() == [1, 2]


def test_time_that_nothing_explains_is_called_waiting():
    path = critical_path(made([(0, "compute", 0, 10), (0, "compute", 25, 40)], ready=[0, 10], released_by=[-1, 0]))
    assert dict(path.times) == {"compute": 25, "waiting": 15}


def test_nothing_ran():
    assert len(critical_path(made([], ranks=2)).row) == 0


@pytest.mark.parametrize("name", ["pipeline_send_recv", "dp_overlapped_buckets", "moe_all_to_all"])
@pytest.mark.parametrize("network", ["chunk", "ideal"])
def test_law_the_steps_tile_the_run(name, network):
    result = simulate(shipped()[name], "fat_tree", network=network)
    path = critical_path(result)
    assert (path.begin[1:] == path.end[:-1]).all()
    assert path.begin[0] == 0
    assert path.end[-1] == result.makespan == sum(path.times.values())
