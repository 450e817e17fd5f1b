"""Meetings of representatives: each simulated rank stands for a class of symmetric ranks, each coflow for a class of images.

A collective starts when the representatives of all classes in the group have come; its coflow carries the load of all instances
of the class at once. Messages of a class pair in order on their channel. Unfolded, every class has one member: the same code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from distsim.engine.communication import agree
from distsim.errors import TraceError
from distsim.kernel.clock import Clock
from distsim.network.coflow import Coflow, Coflows
from distsim.record import CollectiveRow, Recorder


@dataclass(frozen=True, slots=True, eq=False)
class FoldedCollective:
    """A representative's part in a collective. Those whose ``key`` is equal meet; they must agree on the rest.

    Attributes:
        key: (instance class, how many collectives its communicator has had before).
        members: the representatives (devices) that have to come, one for each class of ranks in the group.
        size: ranks of an instance; instances: how many instances it stands for.
        root: index of the root among the ranks of the instance.
        coflow: what moves; None in a group of one.
        paced: how many times as long computation takes beside it (None: no longer).
    """

    key: tuple[int, int]
    operation: str
    bytes: int
    members: tuple[int, ...]
    label: str
    root: int
    size: int
    instances: int
    coflow: Coflow | None
    moved: int  #: index of what the images of this class have moved
    factor: int  #: bytes times members, see engine/loads.py
    paced: Fraction | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FoldedWay:
    """From one representative to another (or its likes): what all sends, or all receives, of one size have in common."""

    channel: tuple[int, int]  #: (class of the sender, its slot)
    src: int  #: representatives
    dst: int
    bytes: int
    coflow: Coflow | None  #: of a send
    moved: int = -1
    factor: int = 0


class FoldedMessage(NamedTuple):
    """A representative's send or receive: the k-th send on a channel and tag is for the k-th receive."""

    way: FoldedWay
    tag: int


class _Meeting:
    __slots__ = ("began", "call", "come", "tasks")

    def __init__(self, call: FoldedCollective, now: int) -> None:
        self.call = call
        self.tasks: list[int] = []
        self.come: list[int] = []
        self.began = now


class FoldedCommunication:
    """The executor's way to a network of coflows: a plane of the clock, in the place of engine.communication.

    Args:
        moved: bytes times members that the images of each class have moved so far; counted here, at the start of each coflow.
    """

    def __init__(self, clock: Clock, network: Coflows, recorder: Recorder, moved: list[int]) -> None:
        self._clock = clock
        self._network = network
        self._recorder = recorder
        self._moved = moved
        self._meetings: dict[tuple[int, int], _Meeting] = {}
        # per channel and tag: sends whose receive has not come, receives whose send has not
        self._sends: dict[tuple[tuple[int, int], int], deque[tuple[int, FoldedMessage]]] = {}
        self._receives: dict[tuple[tuple[int, int], int], deque[tuple[int, FoldedMessage]]] = {}
        self._arrived: set[int] = set()  #: sends that have been delivered before their receive came
        self._receiver: dict[int, int] = {}  #: sends under way -> the receive that waits for them
        self._running: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self._done: Callable[[list[int]], None] = lambda tasks: None
        self._beside: Callable[[Collection[int], Fraction, int], None] = lambda devices, factor, change: None
        clock.attach(self)

    def on_done(self, done: Callable[[list[int]], None]) -> None:
        """Who is told which tasks have ended."""
        self._done = done

    def on_paced(self, beside: Callable[[Collection[int], Fraction, int], None]) -> None:
        """Who is told that computation on these devices is slowed (+1) or no longer (-1) by a communication beside it."""
        self._beside = beside

    # --- what the executor asks -----------------------------------------------------------------------------------------

    def enter(self, task: int, device: int, call: FoldedCollective) -> None:
        """A representative has come to its collective. Raises CollectiveError when members disagree."""
        now = self._clock.env._now
        if call.coflow is None:
            self._record(call, now, now, "none")
            self._soon([task])
            return
        meeting = self._meetings.get(call.key)
        if meeting is None:
            meeting = self._meetings[call.key] = _Meeting(call, now)
        elif meeting.call is not call:
            self._agree(meeting, call, device)
        meeting.tasks.append(task)
        meeting.come.append(device)
        if len(meeting.tasks) == len(call.members):
            del self._meetings[call.key]
            self._moved[call.moved] += call.factor
            number = self._network.start(call.coflow, now)
            self._running[number] = (self._collective_done, (meeting, now))
            if call.paced is not None:
                self._beside(call.members, call.paced, 1)

    def send(self, task: int, call: FoldedMessage) -> None:
        """A send is issued: the message sets out at once."""
        way, tag = call
        key = (way.channel, tag)
        if key in self._receives:
            self._receiver[task], other = _first(self._receives, key)
            self._fits(call, way.bytes, other.way.bytes)
        elif key in self._sends:
            self._sends[key].append((task, call))
        else:
            self._sends[key] = deque(((task, call),))
        assert way.coflow is not None
        self._moved[way.moved] += way.factor
        number = self._network.start(way.coflow, self._clock.env._now)
        self._running[number] = (self._message_done, (task,))

    def receive(self, task: int, call: FoldedMessage) -> None:
        """A receive is posted."""
        key = (call.way.channel, call.tag)
        if key in self._sends:
            sender, other = _first(self._sends, key)
            self._fits(call, other.way.bytes, call.way.bytes)
            if sender in self._arrived:
                self._arrived.remove(sender)
                self._soon([task])
            else:
                self._receiver[sender] = task
        elif key in self._receives:
            self._receives[key].append((task, call))
        else:
            self._receives[key] = deque(((task, call),))

    def blame(self) -> list[str]:
        """Who waits for whom, one sentence each; ranks named are representatives."""
        found = []
        for meeting in self._meetings.values():
            call = meeting.call
            missing = [m for m in call.members if m not in meeting.come]
            verb = "waits" if len(meeting.come) == 1 else "wait"
            found.append(
                f"{_names(meeting.come)} {verb} in {call.operation} number {call.key[1]} of {call.label or 'all ranks'} "
                f"({call.bytes} bytes), where {_names(missing)} never came" + _also(call.instances, "group")
            )
        for (_, tag), waiting in self._receives.items():
            way = waiting[0][1].way
            found.append(
                f"rank {way.dst} waits for a message of {way.bytes} bytes from rank {way.src} with tag {tag}, "
                "which is never sent"
            )
        for (_, tag), waiting in self._sends.items():
            way = waiting[0][1].way
            found.append(f"rank {way.src} sent rank {way.dst} {way.bytes} bytes with tag {tag}, which are never received")
        return found

    # --- what the network answers ---------------------------------------------------------------------------------------

    def next_event(self) -> int:
        """See kernel.clock.Plane."""
        return self._network.next_event()

    def advance(self, limit: int) -> tuple[int, Callable[[Any], None]] | None:
        """See kernel.clock.Plane."""
        at, finished = self._network.run_until(limit)
        if not finished:
            return None

        def deliver(_: Any) -> None:
            for number in finished:
                done, rest = self._running.pop(number)
                done(*rest)

        return at, deliver

    def _collective_done(self, meeting: _Meeting, start: int) -> None:
        call = meeting.call
        self._record(call, meeting.began, start, "coflow")
        if call.paced is not None:
            self._beside(call.members, call.paced, -1)
        self._done(meeting.tasks)

    def _message_done(self, sender: int) -> None:
        receiver = self._receiver.pop(sender, -1)
        if receiver >= 0:
            self._done([sender, receiver])
        else:
            self._arrived.add(sender)
            self._done([sender])

    # --- inside ---------------------------------------------------------------------------------------------------------

    def _record(self, call: FoldedCollective, first: int, start: int, algorithm: str) -> None:
        self._recorder.collectives.append(CollectiveRow(
            call.operation, call.label, call.bytes, call.members, algorithm, first, start, self._clock.now, call.size,
            call.instances,
        ))  # fmt: skip

    def _soon(self, tasks: list[int]) -> None:
        """End tasks in this instant, but not within the call that started them."""
        self._clock.call_at(self._clock.now, lambda _: self._done(tasks))

    def _agree(self, meeting: _Meeting, call: FoldedCollective, device: int) -> None:
        """Members of one collective must ask for the same."""
        agree(meeting.call, call, ("operation", "bytes", "root"), meeting.come, device)

    def _fits(self, call: FoldedMessage, sent: int, wanted: int) -> None:
        if sent != wanted:
            raise TraceError(
                f"rank {call.way.src} sends rank {call.way.dst} {sent} bytes with tag {call.tag}, but the receive wants "
                f"{wanted} bytes",
                expected="equal sizes on both sides",
            )


def _first(queues: dict[Any, deque[Any]], key: Any) -> Any:
    """Take the first of a queue; an empty queue goes."""
    queue = queues[key]
    found = queue.popleft()
    if not queue:
        del queues[key]
    return found


def _names(ranks: Collection[int]) -> str:
    shown = ", ".join(str(r) for r in sorted(ranks)[:8])
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {shown}{more}"


def _also(count: int, what: str) -> str:
    return f", and likewise in {count - 1:,} other {what}s" if count > 1 else ""
