"""Connections of the level ``fluid``: what a group sends from one host to another over one lane moves one row after the other.

Rows queue in the order in which they become due (then by the instant at which they first were, then by number). One row of a
connection moves at a time, so a connection has one share of a link, whatever waits in it. A row that shares no link with
anybody is in no queue. Different groups' connections know nothing of each other.
"""

from __future__ import annotations

from typing import Any

from distsim.kernel.jit import kernel
from distsim.network.fluid_kernel import READY
from distsim.network.fluid_rows import QUEUED

ALONE = -1  #: connection of a row that is the only one of its group between its hosts


@kernel
def number_connections(rows: Any, routes: Any, base: int, choices: int, mark: Any, connection: Any) -> int:
    """Number the connections that have several of ``rows`` from ``base`` on, ``choices`` for each of ``routes`` (one a row, the
    first it may choose); the others stay as they are. ``mark`` is all zeros before and after. Returns how many."""
    count = 0
    for at in range(len(rows)):
        route = routes[at]
        seen = mark[route]
        if seen == 0:
            mark[route] = -1 - rows[at]
        else:
            if seen < 0:
                connection[-1 - seen] = base + count
                seen = count + 1
                mark[route] = seen
                count += choices
            connection[rows[at]] = base + seen - 1
    for at in range(len(rows)):
        mark[routes[at]] = 0
    return count


@kernel
def sooner(row: int, other: int, due: Any, begun: Any) -> bool:
    """Whether ``row`` goes before ``other``."""
    if due[row] != due[other]:
        return bool(due[row] < due[other])
    # NOTE: after a change of routes all are due again at once; what was due first then is still the first.
    if begun[row] != begun[other]:
        return bool(begun[row] < begun[other])
    return row < other


@kernel
def line_up(
    row: int, state: Any, connection: Any, beside: Any, stage: Any, due: Any, begun: Any, ahead: Any, last: Any, moving: Any,
    ready: Any,
) -> None:  # fmt: skip
    """A row that is due joins the queue of its connection."""
    which = connection[row]
    stage[row] = QUEUED
    at = ahead[which]
    if at < 0 and moving[which] == 0:
        ready[state[READY]] = which
        state[READY] += 1
    if at < 0 or sooner(row, at, due, begun):
        beside[row] = at
        ahead[which] = row
        if at < 0:
            last[which] = row
        return
    if not sooner(row, last[which], due, begun):
        at = last[which]
        last[which] = row
    else:
        while not sooner(row, beside[at], due, begun):
            at = beside[at]
    beside[row] = beside[at]
    beside[at] = row
