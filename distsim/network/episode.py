"""Episodes: what groups did when they met, told again when the same groups meet in the same way.

Training repeats itself: the groups that contend in one layer contend in the next. An *episode* of a live network reaches from
idle to idle. What has been told in it depends on nothing but its history: which DAGs came when, after how many reports, in
which order of numbers. Histories are kept in a tree. While an episode follows one that is known, its reports are read from
there and no event happens; where it leaves the known, the network is handed the whole history as of then, and goes on from
where the reports stopped. Memory never changes an answer, only its cost.
"""

from __future__ import annotations

import bisect

import numpy as np

from distsim.network.answer import Answer, Ledger
from distsim.network.fifo import FifoLinks
from distsim.network.model import NEVER, Finished, LinkUsage, Transfers
from distsim.network.outline import Outline
from distsim.topology.graph import Topology

_LATEST = NEVER >> 2  # ps: later episodes and reports are left to the network, which knows the clock's range
_REMEMBER = 1_000_000  # rows and reports in the tree; beyond, all is forgotten
_LONGEST = 2_000  # groups; a longer episode is not remembered
_TRIALS = 1_000  # steps off the known that are forgiven; beyond, half of all steps must be known ones


class _Step:
    """What is known after a history: reports from its last admission on, up to an instant, and where others went on."""

    __slots__ = ("told", "until", "used", "went_on")

    def __init__(self) -> None:
        self.went_on: dict[tuple[int, int, int, Transfers], _Step] = {}
        self.told: list[tuple[int, int, dict[int, int]]] = []  # (ps, index in the history, host -> ps), from the beginning
        self.until = -NEVER  # ps from the beginning: nothing else is told by then
        self.used: Answer | None = None  # the links' use, where the episode ended with the last report


class Episodes:
    """FIFO links that remember. ``remember=False`` makes them plain ones: same answers."""

    def __init__(self, links: FifoLinks, topology: Topology, *, remember: bool) -> None:
        self._live = links
        self._remember = remember
        self._root = _Step()
        self._held = 0
        self._followed = self._left = 0  # steps that were known, that were not
        self._ledger = Ledger(topology.links)
        self._sent = np.zeros(topology.links, dtype=np.int64)  # by the network when it was last idle
        self._busy = np.zeros(topology.links, dtype=np.int64)
        self._now = 0  # where the last run stopped
        self._step = self._root
        self._history: list[tuple[Transfers, int, int, Outline]] = []  # (dag, at, number, outline) of this episode
        self._index: dict[int, int] = {}  # number -> index in the history
        self._sorted: list[int] = []  # numbers
        self._begin = 0  # ps, of the first in the history
        self._before = 0  # how many had come when the last run began
        self._taken = 0  # reports of this step
        self._open = 0  # groups that have not finished
        self._real = False  # the network has the history
        self._plain = False  # no history is kept

    def admit(self, transfers: Transfers, at: int, number: int, outline: Outline) -> None:
        """As FifoLinks.admit."""
        if not self._open:
            self._begin, self._step = at, self._root
            self._real = self._plain = not self._remember or at >= _LATEST
        if not self._plain:
            self._follow((at - self._begin, bisect.bisect(self._sorted, number), self._taken, transfers), outline.rows)
        if not self._plain:
            bisect.insort(self._sorted, number)
            self._index[number] = len(self._history)
            self._history.append((transfers, at, number, outline))
        self._open += 1
        if self._real:
            self._live.admit(transfers, at, number)

    def next_event(self) -> int:
        """A lower bound on the next event."""
        if self._real or not self._open:
            return self._live.next_event()
        told = self._step.told
        if self._taken < len(told):
            return self._begin + told[self._taken][0]
        return max(self._now, self._begin + self._step.until + 1)

    def run_until(self, limit: int) -> list[Finished]:
        """As FifoLinks.run_until."""
        finished = None if self._real else self._recall(limit)
        if finished is None:
            finished = self._happen(limit)
        self._before = len(self._history)
        self._now = finished[0].at if finished else max(self._now, limit)
        self._open -= len(finished)
        if finished and not self._open:
            self._close()
        return finished

    def change(self, topology: Topology) -> None:
        """As FifoLinks.change. What is known is of other links: it is forgotten, and the episode under way is not kept."""
        if self._open:
            self.realise()
            self._plain = True
            self._forget()
        self._root = self._step = _Step()
        self._held = 0
        self._live.change(topology)

    @property
    def retransmitted(self) -> int:
        """As FifoLinks.retransmitted."""
        return self._live.retransmitted

    @property
    def events(self) -> int:
        """As FifoLinks.events."""
        return self._live.events

    def usage(self) -> LinkUsage:
        """As FifoLinks.usage."""
        if self._open:
            self.realise()
        whole, live = self._ledger.usage(), self._live.usage()
        return LinkUsage(bytes=whole.bytes + live.bytes, busy=whole.busy + live.busy)

    def _follow(self, key: tuple[int, int, int, Transfers], rows: int) -> None:
        """One admission on."""
        step = self._step.went_on.get(key)
        self._followed += step is not None
        self._left += step is None
        self._remember = self._left <= self._followed + _TRIALS
        if not self._remember or len(self._history) == _LONGEST:
            self.realise()
            self._plain = True
            self._forget()
        elif step is None:
            self._held += rows + 10
            step = self._step.went_on[key] = _Step()
        if step is not None:
            self._step = step
        self._taken = 0

    def _recall(self, limit: int) -> list[Finished] | None:
        """The next reports from memory, None if it does not know."""
        step, begin = self._step, self._begin
        if not self._open:
            return []
        if self._taken == len(step.told):
            return [] if limit - begin <= step.until else None
        at = step.told[self._taken][0]
        if begin + at > limit:
            return []
        finished = []
        for time, index, ends in step.told[self._taken :]:
            if time != at:
                break
            end = {host: begin + last for host, last in ends.items()}
            finished.append(Finished(self._history[index][2], begin + at, end))
        self._taken += len(finished)
        return finished

    def _happen(self, limit: int) -> list[Finished]:
        """The next reports from the network, which become known."""
        self.realise()
        finished = self._live.run_until(limit)
        if not self._plain:
            step, begin = self._step, self._begin
            for done in finished:
                # NOTE: known all the same where the history was handed over for its use of links.
                if self._taken == len(step.told):
                    ends = {host: last - begin for host, last in done.host_end.items()}
                    step.told.append((done.at - begin, self._index[done.group], ends))
                self._taken += 1
            self._held += len(finished)
            step.until = max(step.until, (finished[0].at if finished else limit) - begin)
        return finished

    def realise(self) -> None:
        """Hand the history to the network, and have it run to where the last run stopped, telling again what has been told."""
        if self._real:
            return
        self._real = True
        self._live.expect(len(self._history), sum(outline.rows for _, _, _, outline in self._history))
        for transfers, at, number, _ in self._history[: self._before]:
            self._live.admit(transfers, at, number)
        while self._before and self._live.run_until(self._now):
            pass
        for transfers, at, number, _ in self._history[self._before :]:
            self._live.admit(transfers, at, number)

    def _close(self) -> None:
        """The episode is over: note what it used."""
        step = self._step
        if not self._real:
            assert step.used is not None
            self._ledger.count(step.used)
        elif self._plain:
            if self._remember:
                total = self._live.usage()
                self._sent, self._busy = total.bytes, total.busy
        else:
            links = np.unique(np.concatenate([outline.links for _, _, _, outline in self._history]))
            sent, busy = self._live.used(links)
            if step.used is None:
                step.used = Answer(0, [], links, sent - self._sent[links], busy - self._busy[links])
            self._sent[links], self._busy[links] = sent, busy
        if self._held > _REMEMBER:
            self._root = _Step()
            self._held = 0
        self._forget()
        self._real = self._plain = False

    def _forget(self) -> None:
        """Drop the history."""
        self._history.clear()
        self._index.clear()
        self._sorted.clear()
        self._before = self._taken = 0
