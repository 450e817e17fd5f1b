"""What timed events did to a run, in lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distsim.result import Result
from distsim.units import format_size, format_time

#: events in full; the rest is counted
_EVENTS = 12


def told_of_events(result: Result) -> list[str]:
    """``events cost 12.3 ms (step 484.9 ms -> 497.2 ms)``, then a line per event; nothing where there are none."""
    events = result.events
    if "baseline_ps" not in events:
        return []
    base = events["baseline_ps"]
    if "cost_ps" in events:
        lines = [f"events cost {_signed(events['cost_ps'])} (step {format_time(base)} -> {format_time(events['step_ps'])})"]
    else:
        lines = [f"without events the step takes {format_time(base)}"]
    rows = events["list"]
    lines += [f"  {said(row['event'])}{_alone(row)}" for row in rows[:_EVENTS]]
    if len(rows) > _EVENTS:
        lines.append(f"  and {len(rows) - _EVENTS} more (--json lists all)")
    if events.get("retransmitted_bytes"):
        lines.append(f"  lost on dead links and sent again: {format_size(events['retransmitted_bytes'])}")
    if "background" in events:
        sent = events["background"]
        lines.append(f"  background: {sent['bursts']:,} bursts, {format_size(sent['bytes'])} moved")
    return lines


def said(event: Mapping[str, Any]) -> str:
    """``at 12ms, link leaf0-spine1: down, until 30ms``."""
    kind = next(key for key in ("link", "switch", "rank", "background") if key in event)
    rest = dict(event)
    at, what = rest.pop("at"), rest.pop(kind)
    if isinstance(what, Mapping):
        rest, name = {**what, **rest}, ""
    else:
        name = ", ".join(map(str, what)) if isinstance(what, list) else str(what)
    if "until" in rest:
        rest["until"] = rest.pop("until")  # last
    return f"at {at}, {f'{kind} {name}'.strip()}: {', '.join(_word(key, value) for key, value in rest.items())}"


def _word(key: str, value: Any) -> str:
    if value is True:
        return key
    if isinstance(value, Mapping):
        return f"{key} {' '.join(str(part) for part in value.values())}"
    return f"{key} {', '.join(map(str, value)) if isinstance(value, list) else value}"


def _alone(row: Mapping[str, Any]) -> str:
    if "alone_cost_ps" in row:
        return f" - alone {_signed(row['alone_cost_ps'])}"
    return f" - alone ends the run: {row['alone_ends']}" if "alone_ends" in row else ""


def _signed(ps: int) -> str:
    return f"-{format_time(-ps)}" if ps < 0 else format_time(ps)
