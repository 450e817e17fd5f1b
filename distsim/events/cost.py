"""What events cost: the same run without them, with all of them, and with each alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from distsim.errors import FaultError
from distsim.events.model import Events
from distsim.result import Result

ALONE = 8  #: up to so many events are also run one at a time

#: run the workload under these events (None: none); the text says which run it is
Run = Callable[[Events | None, str], Result]


def with_cost(run: Run, events: Events) -> Result:
    """The run with its events; ``Result.events`` tells what they cost, in ps.

    Raises what the run raises; a FaultError brings the partial result, which tells the cost of nothing but the step without.
    """
    alone = len(events.events) if 2 <= len(events.events) <= ALONE else 0
    runs = 2 + alone

    def label(number: int, what: str) -> str:
        return f"{what}, run {number} of {runs}"

    base = run(None, label(1, "without events"))
    try:
        result = run(events, label(2, "with all events"))
    except FaultError as error:
        if error.partial is not None:
            listed = {"baseline_ps": base.makespan, "list": [_said(event) for event in events.events]}
            error.partial = dataclasses.replace(error.partial, events=dict(error.partial.events) | listed)
        raise
    rows = []
    for index, event in enumerate(events.events):
        row = _said(event)
        if alone:
            try:
                step = run(events.only(index), label(3 + index, f"event {events.numbers[index]} alone")).makespan
                row |= {"alone_ps": step, "alone_cost_ps": step - base.makespan}
            except FaultError as error:
                row |= {"alone_ends": str(error).splitlines()[0]}
        rows.append(row)
    told = dict(result.events) | {
        "baseline_ps": base.makespan, "step_ps": result.makespan, "cost_ps": result.makespan - base.makespan, "list": rows,
    }  # fmt: skip
    return dataclasses.replace(result, events=told)


def _said(event: Any) -> dict[str, Any]:
    """An event as its file says it."""
    return {"event": event.model_dump(by_alias=True, exclude_none=True)}
