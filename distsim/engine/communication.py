"""Meetings: collectives start when their whole group has come, messages pair in order; both end when the network says so.

All members of a collective end together, with its last delivery: measured collectives end within a few microseconds of
each other on all ranks, however far apart they start (HTA traces: 1-7 us).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from distsim.engine.placement import CollectiveOptions, Placer
from distsim.engine.task import CollectiveCall, MessageCall
from distsim.errors import CollectiveError, TraceError
from distsim.kernel.clock import Clock
from distsim.network.model import NetworkModel, Transfers
from distsim.record import Recorder


class _Meeting:
    """A collective whose members are coming, or that is running."""

    __slots__ = ("began", "call", "come", "tasks", "transfers")

    def __init__(self, call: CollectiveCall, now: int) -> None:
        self.call = call
        self.tasks: list[int] = []
        self.come: list[int] = []  #: devices
        self.transfers: list[int] = []  #: ps, recorded, of each task
        self.began = now  #: ps, first arrival


class _Channel:
    """Sends and receives of one (src, dst, tag), paired in order."""

    __slots__ = ("arrived", "receives", "sends")

    def __init__(self) -> None:
        self.sends: deque[tuple[int, int]] = deque()  #: (task, bytes), delivered or not, whose receive has not come
        self.receives: deque[tuple[int, int]] = deque()  #: (task, bytes) whose send has not come
        self.arrived: set[int] = set()  #: sends that have been delivered before their receive came


class Communication:
    """The executor's way to the network. It is a plane of the clock."""

    def __init__(
        self, clock: Clock, network: NetworkModel, placer: Placer, options: CollectiveOptions, recorder: Recorder
    ) -> None:
        self._clock = clock
        self._network = network
        self._placer = placer
        self._options = options
        self._recorder = recorder
        self._meetings: dict[Any, _Meeting] = {}
        self._channels: dict[tuple[int, int, int], _Channel] = {}
        self._receiver: dict[int, int] = {}  #: sends under way -> the receive that waits for them
        self._running: dict[int, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self._done: Callable[[list[int]], None] = lambda tasks: None
        clock.attach(self)

    def on_done(self, done: Callable[[list[int]], None]) -> None:
        """Who is told which tasks have ended."""
        self._done = done

    # --- what the executor asks -----------------------------------------------------------------------------------------

    def enter(self, task: int, device: int, call: CollectiveCall) -> None:
        """A member has come to its collective. Raises CollectiveError when members disagree."""
        now = self._clock.env.now
        if len(call.ranks or call.members) == 1:
            if call.transfer_ps > 0:
                self._recorded(call, now, [task], [call.transfer_ps])
                return
            self._recorder.collective(call, now, now, now, "none")
            self._soon([task])
            return
        meeting = self._meetings.get(call.key)
        if meeting is None:
            meeting = self._meetings[call.key] = _Meeting(call, now)
        elif meeting.call is not call:
            self._agree(meeting, call, device)
        meeting.tasks.append(task)
        meeting.come.append(device)
        meeting.transfers.append(call.transfer_ps)
        if len(meeting.tasks) == len(call.members):
            del self._meetings[call.key]
            if min(meeting.transfers) >= 0:
                self._recorded(meeting.call, meeting.began, meeting.tasks, meeting.transfers)
                return
            transfers, algorithm = self._placer.collective(call, self._options)
            if len(transfers.src) == 0:
                self._recorder.collective(call, meeting.began, now, now, algorithm)
                self._soon(meeting.tasks)
                return
            group = self._network.start(transfers, now)
            self._running[group] = (self._collective_done, (meeting, now, algorithm))

    def send(self, task: int, call: MessageCall) -> None:
        """A send is issued: the message sets out at once."""
        channel = self._channels.setdefault((call.src, call.dst, call.tag), _Channel())
        if channel.receives:
            self._receiver[task], size = channel.receives.popleft()
            self._fits(call, call.bytes, size)
        else:
            channel.sends.append((task, call.bytes))
        transfers = self._placer.message(call)
        group = self._network.start(transfers, self._clock.now)
        self._running[group] = (self._message_done, (channel, task))

    def receive(self, task: int, call: MessageCall) -> None:
        """A receive is posted."""
        channel = self._channels.setdefault((call.src, call.dst, call.tag), _Channel())
        if not channel.sends:
            channel.receives.append((task, call.bytes))
            return
        sender, size = channel.sends.popleft()
        self._fits(call, size, call.bytes)
        if sender in channel.arrived:
            channel.arrived.remove(sender)
            self._soon([task])
        else:
            self._receiver[sender] = task

    def carry(self, transfers: Transfers, done: Callable[[], None]) -> None:
        """Move transfers that no task has asked for, from now on; ``done`` is called at their last delivery."""
        self._running[self._network.start(transfers, self._clock.now)] = (done, ())

    def blame(self) -> list[str]:
        """Who waits for whom, one sentence each."""
        found = []
        for meeting in self._meetings.values():
            call = meeting.call
            missing = [m for m in call.members if m not in set(meeting.come)]
            verb = "waits" if len(meeting.come) == 1 else "wait"
            found.append(
                f"{_names(meeting.come)} {verb} in {call.operation} number {call.key[1]} of {call.label or 'all ranks'} "
                f"({call.bytes} bytes), where {_names(missing)} never came"
            )
        for (src, dst, tag), channel in self._channels.items():
            if channel.receives:
                found.append(
                    f"rank {dst} waits for a message of {channel.receives[0][1]} bytes from rank {src} with tag {tag}, "
                    "which is never sent"
                )
            if channel.sends:
                found.append(f"rank {src} sent rank {dst} {channel.sends[0][1]} bytes with tag {tag}, which are never received")
        return found

    # --- what the network answers ------------------------------------------------------------------------------------------

    def next_event(self) -> int:
        """See kernel.clock.Plane."""
        return self._network.next_event()

    def advance(self, limit: int) -> tuple[int, Callable[[Any], None]] | None:
        """See kernel.clock.Plane."""
        finished = self._network.run_until(limit)
        if not finished:
            return None

        def deliver(_: Any) -> None:
            for group in finished:
                done, rest = self._running.pop(group.group)
                done(*rest)

        return finished[0].at, deliver

    def _collective_done(self, meeting: _Meeting, start: int, algorithm: str) -> None:
        self._recorder.collective(meeting.call, meeting.began, start, self._clock.now, algorithm)
        self._done(meeting.tasks)

    def _message_done(self, channel: _Channel, sender: int) -> None:
        receiver = self._receiver.pop(sender, -1)
        if receiver >= 0:
            self._done([sender, receiver])
        else:
            channel.arrived.add(sender)
            self._done([sender])

    # --- checks --------------------------------------------------------------------------------------------------------------

    def _recorded(self, call: CollectiveCall, began: int, tasks: list[int], transfers: list[int]) -> None:
        """All have come: every member ends after the time that was recorded for it; the network is not asked."""
        now = self._clock.now
        self._recorder.collective(call, began, now, now + max(transfers), "recorded")
        for transfer in sorted(set(transfers)):
            some = [task for task, own in zip(tasks, transfers, strict=True) if own == transfer]
            self._clock.call_at(now + transfer, lambda _, some=some: self._done(some))  # type: ignore[misc]

    def _soon(self, tasks: list[int]) -> None:
        """End tasks in this instant, but not within the call that started them."""
        self._clock.call_at(self._clock.now, lambda _: self._done(tasks))

    def _agree(self, meeting: _Meeting, call: CollectiveCall, device: int) -> None:
        """Members of one collective must ask for the same."""
        agree(meeting.call, call, ("operation", "bytes", "members", "root", "dims"), meeting.come, device)

    def _fits(self, call: MessageCall, sent: int, wanted: int) -> None:
        if sent != wanted:
            raise TraceError(
                f"rank {call.src} sends rank {call.dst} {sent} bytes with tag {call.tag}, but the receive wants {wanted} bytes",
                expected="equal sizes on both sides",
            )


def agree(first: Any, call: Any, fields: Sequence[str], come: Sequence[int], device: int) -> None:
    """Raise CollectiveError unless a member asks for what the first to come (``come[0]``) asked for, and comes once."""
    for name in fields:
        if getattr(first, name) != getattr(call, name):
            raise CollectiveError(
                f"collective number {call.key[1]} of {call.label or 'all ranks'}: rank {come[0]} asks for "
                f"{name} {getattr(first, name)}, rank {device} for {name} {getattr(call, name)}",
                expected="the same collectives in the same order on all ranks of a communicator",
            )
    if device in come:
        raise CollectiveError(f"rank {device} enters collective number {call.key[1]} of {call.label} twice")


def _names(ranks: list[int]) -> str:
    """``ranks 0, 1, 2 and 5 more``."""
    shown = ", ".join(str(r) for r in sorted(ranks)[:8])
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {shown}{more}"
