"""The control plane's clock: a thin face over :class:`simpy.Environment` in integer picoseconds.

Callbacks, not processes: a task costs one event. Order within an instant is fixed by named priorities and, within one, by
insertion: first what the data plane has finished, then timed callbacks, then the settling of the instant, in which
decisions are taken that need to see all that has happened (which task a stream takes next). A decision therefore never
depends on the order in which simultaneous events were inserted.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Protocol

import simpy

from distsim.errors import ConfigError

#: priorities within an instant, first to last; LATE callbacks see all that has ended at their instant
DELIVERY, TIMER, LATE, SETTLE = 0, 1, 2, 3
END_OF_TIME = 1 << 62  #: ps
_NEVER = 1 << 63  #: after any event


class Plane(Protocol):
    """A data plane that the clock runs between its own events: any NetworkModel, seen through its owner."""

    def next_event(self) -> int:
        """A lower bound on the time of the next thing inside; larger than any time when idle."""
        ...

    def advance(self, limit: int) -> tuple[int, Callable[[Any], None]] | None:
        """Run to the first instant <= limit with something to tell: (that instant, callback to run there), else None."""
        ...


class Call(simpy.Event):
    """A scheduled callback: called once, with itself. ``subject`` is for the callback's use. May be scheduled again after."""

    __slots__ = ("subject",)

    # NOTE: simpy.Event.__init__ and succeed() by hand: this is the hot path of every task; what all calls share is the class's
    _value = None
    _ok = True
    _defused = False

    def __init__(self, env: Any, callback: Callable[[Any], None], subject: Any = None) -> None:
        self.env = env
        self.callbacks = [callback]
        self.subject = subject


class Clock:
    """Now, and what happens when. The clock runs dry when neither plane has anything left to do."""

    def __init__(self) -> None:
        self.env: Any = simpy.Environment(0)  # its now is typed as a float; ours is always an int
        self.events = 0  #: control-plane events so far
        self._planes: list[Plane] = []
        self._settling: list[Callable[[], None]] = []

    @property
    def now(self) -> int:
        """Picoseconds since the start."""
        return int(self.env.now)

    @property
    def pending(self) -> int:
        """Calls that are still to come, outdated ones among them."""
        return len(self.env._queue) + len(self._settling)

    def attach(self, plane: Plane) -> None:
        """Let a data plane run on this clock."""
        self._planes.append(plane)

    def call_at(self, time: int, callback: Callable[[Any], None], subject: Any = None, priority: int = TIMER) -> Call:
        """Call ``callback(call)`` at a time not before now; ``priority``: TIMER or LATE. Raises ConfigError beyond the end of
        time."""
        if time >= END_OF_TIME:
            raise ConfigError("the run goes beyond 2^62 ps (53 days)", fix="Check durations, sizes and bandwidths.")
        env = self.env
        if time < env._now:
            raise ValueError(f"a call at {time} ps, which is before now, {env._now} ps")
        call = Call(env, callback, subject)
        heappush(env._queue, (time, priority, next(env._eid), call))  # NOTE: env.schedule() by hand
        return call

    def settle(self, decide: Callable[[], None]) -> None:
        """Call ``decide`` once at the end of this instant (and again, if what it starts ends in this instant too)."""
        if decide not in self._settling:
            self._settling.append(decide)

    def run(self, until: int | None = None, watch: Callable[[int], None] | None = None, every: int = 20_000) -> None:
        """Run until both planes are idle, or to ``until`` (events at that instant included).

        watch: told the time after every ``every`` control events (progress).
        """
        # NOTE: peek() and step() of simpy by hand, deliveries and settling without events: the hot path of every task
        env, planes = self.env, self._planes
        queue = env._queue
        end = END_OF_TIME if until is None else until
        while True:
            head = queue[0][0] if queue else _NEVER
            settling = self._settling and head > env._now  # nothing else is left in this instant but what planes have
            first: tuple[int, Callable[[Any], None]] | None = None
            if planes:
                limit = env._now if settling else head if head <= end else end
                later: tuple[int, Callable[[Any], None]] | None
                for plane in planes:
                    if plane.next_event() <= limit:
                        found = plane.advance(limit)
                        if found is not None:
                            later = found
                            if first is None or found[0] < first[0]:
                                later, first = first, found
                            limit = first[0]
                            if later is not None:
                                env.schedule(Call(env, later[1]), DELIVERY, later[0] - env._now)
                if first is not None and queue and queue[0][:2] == (first[0], DELIVERY):  # of another plane, found before
                    env.schedule(Call(env, first[1]), DELIVERY, first[0] - env._now)
                    continue
            if first is not None:  # deliveries come first in their instant
                env._now = first[0]
                first[1](None)
            elif settling:
                deciding, self._settling = self._settling, []
                for decide in deciding:
                    decide()
            elif head > end:
                return
            else:
                env._now, _, _, event = heappop(queue)
                callbacks, event.callbacks = event.callbacks, None
                for callback in callbacks:
                    callback(event)
                if not event._ok and not event._defused:
                    raise event._value
            self.events += 1
            if watch is not None and self.events % every == 0:
                watch(int(env._now))
