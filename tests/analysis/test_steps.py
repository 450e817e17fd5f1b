"""Iterations of a captured trace."""

from __future__ import annotations

import dataclasses

from building import graph, program

from distsim.analysis.steps import steps
from distsim.analysis.summary import summarise
from distsim.api import simulate
from distsim.report.answer import answer
from distsim.trace.graph import NodeType


def captured(*durations):
    """Ranks that run two kernels in each of two steps, each after 3 us on the host."""
    programs = []
    for first, second in durations:
        rows = []
        for step, each in enumerate((first, second)):
            rows.append((2 * step, NodeType.COMP, [], {"duration_ps": 3_000_000, "cpu": 1, "stream": 0}))
            rows.append((2 * step + 1, NodeType.COMP, [2 * step], {"duration_ps": each, "stream": 1}))
        one = program(rows)
        programs.append(dataclasses.replace(one, step=(one.id // 2).astype("int32")))
    made = graph(*programs)
    names = ("ProfilerStep#1", "ProfilerStep#2", "empty")
    return dataclasses.replace(made, captured=True, streams=("main", "gpu"), steps=names)


def test_a_step_is_the_gpu_work_launched_in_it_on_its_longest_rank():
    found = steps(simulate(captured((1_000_000, 5_000_000), (2_000_000, 4_000_000))))
    assert [(step.name, step.span_ps, step.rank) for step in found] == [
        ("ProfilerStep#1", 2_000_000, 1), ("ProfilerStep#2", 5_000_000, 0),
    ]  # fmt: skip


def test_the_answer_begins_with_the_steps():
    result = simulate(captured((2_000_000, 4_000_000)))
    assert answer(result, summarise(result)).startswith("2 steps of 3 us (median) in 10 us on 1 rank")


def test_other_runs_have_none():
    result = simulate(graph(program([(0, NodeType.COMP, [], {"duration_ps": 5})])))
    assert steps(result) == ()
    assert answer(result, summarise(result)).startswith("step 5 ps on 1 rank")
