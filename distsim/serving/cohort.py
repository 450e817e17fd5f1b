"""Requests that generate in lockstep, one token each per iteration, counted instead of stepped."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from distsim.serving.request import Request


class Cohort:
    """An ordered set of generating requests. An iteration of all of them costs a few additions, k iterations cost the same.

    steps: iterations so far. members: in the order in which their scheduler serves them. kv: tokens in cache of all together.
    block: tokens of a KV block that requests take as they grow; 0 where they have reserved what they will need.
    """

    #: tokens that each member computes in an iteration
    width = 1

    __slots__ = ("_ends", "_growth", "_longest", "_serial", "_sorted", "block", "kv", "members", "steps")

    def __init__(self, block: int) -> None:
        self.block = block
        self.steps = 0
        self.kv = 0
        self.members: list[Request] = []
        self._ends: list[tuple[int, int, Request]] = []  #: heap: step at whose end a request is done; stale entries are skipped
        self._growth = [0] * block  #: requests that begin a new block at a step, by step modulo block
        self._longest: int | None = None  #: largest relative count of tokens of a member; None: to be found again
        self._serial = 0
        self._sorted = True  #: members are in order of arrival

    def __len__(self) -> int:
        return len(self.members)

    def computed(self, request: Request) -> int:
        """Tokens of a member in cache."""
        return request.computed + self.steps

    def left(self, request: Request) -> int:
        """Tokens that a member has still to emit."""
        return request.left - self.steps

    @property
    def longest(self) -> int:
        """Tokens in cache of the longest member, 0 without any."""
        if not self.members:
            return 0
        if self._longest is None:
            self._longest = max([request.computed for request in self.members])
        return self._longest + self.steps

    # --- who is in it ------------------------------------------------------------------------------------------------------

    def add(self, request: Request) -> None:
        """Let a request join at the end of the order. It has emitted its first token and has more to emit."""
        steps = self.steps
        self.kv += request.computed
        if self.block:
            self._growth[(steps - request.computed) % self.block] += 1
        request.computed -= steps
        if not self.members or (self._longest is not None and request.computed > self._longest):
            self._longest = request.computed
        request.left += steps
        request.cohort = self
        self._serial += 1
        request.serial = self._serial
        members = self.members
        if members and self._sorted:
            last = members[-1]
            self._sorted = last.arrival < request.arrival or _by_arrival(last) <= _by_arrival(request)
        members.append(request)
        heappush(self._ends, (request.left, self._serial, request))

    def remove(self, request: Request) -> None:
        """Take a member out; its own counts are true again."""
        self.members.remove(request)
        self._leave(request)

    def _leave(self, request: Request) -> None:
        steps, block = self.steps, self.block
        if request.computed == self._longest:
            self._longest = None
        request.computed += steps
        request.left -= steps
        request.cohort = None
        self.kv -= request.computed
        if block:
            self._growth[(steps - request.computed) % block] -= 1
            request.blocks = -(-request.computed // block)

    def absorb(self, other: Cohort) -> None:
        """All members of another cohort join, in its order."""
        for request in other.empty():
            self.add(request)

    def empty(self) -> list[Request]:
        """Take all members out, in order."""
        members, self.members, self._sorted = self.members, [], True
        for request in members:
            self._leave(request)
        self._ends.clear()
        return members

    def like(self) -> Cohort:
        """An empty one of the same kind."""
        return Cohort(self.block)

    def split(self, count: int) -> Cohort:
        """The first ``count`` members as a cohort of their own; the others stay."""
        made = self.like()
        for request in self.members[:count]:
            self._leave(request)
            made.add(request)
        del self.members[:count]
        return made

    def sort(self) -> None:
        """Order by arrival, first come first served."""
        if not self._sorted:
            self.members.sort(key=_by_arrival)
            self._sorted = True

    # --- time -----------------------------------------------------------------------------------------------------------------

    def until_end(self) -> int:
        """Iterations until the first member has emitted its last token."""
        ends = self._ends
        while ends[0][1] != ends[0][2].serial or ends[0][2].cohort is not self:
            heappop(ends)
        if len(ends) > 64 and len(ends) > 4 * len(self.members):
            self._ends = ends = [e for e in ends if e[1] == e[2].serial and e[2].cohort is self]
            heapify(ends)
        return ends[0][0] - self.steps

    def begins(self, request: Request) -> int:
        """Blocks that the next iteration begins for a member."""
        return 1 if self.block and (request.computed + self.steps) % self.block == 0 else 0

    def growth(self) -> int:
        """Blocks that the next iteration begins."""
        return self._growth[self.steps % self.block] if self.block else 0

    def grown(self, count: int) -> int:
        """Blocks that ``count`` iterations begin, after the next one."""
        block = self.block
        if not block or count <= 0:
            return 0
        total = count // block * len(self.members)
        growth, at = self._growth, (self.steps + 1) % block
        end = at + count % block
        if end <= block:
            return total + sum(growth[at:end])
        return total + sum(growth[at:]) + sum(growth[: end - block])

    def headroom(self, free: int, most: int) -> int:
        """How many iterations after the next one, at most ``most``, begin no more than ``free`` blocks in all."""
        block = self.block
        if not block:
            return most
        if free < 0 or most <= 0:
            return 0
        n = len(self.members)
        whole = free // n
        if whole * block >= most:
            return most
        free -= whole * n
        growth, at = self._growth, self.steps + 1
        count = whole * block
        while count < most:
            free -= growth[(at + count) % block]
            if free < 0:
                break
            count += 1
        return count

    def advance(self, count: int) -> list[Request]:
        """``count`` iterations have ended, no more than until_end(). Returns who is done, in order; they have left."""
        members = self.members
        self.steps += count
        self.kv += count * len(members)
        ends, steps = self._ends, self.steps
        done: list[Request] = []
        while ends and ends[0][0] <= steps:
            _, serial, request = heappop(ends)
            if serial == request.serial and request.cohort is self:
                done.append(request)
        if len(done) > 1:
            ended = {request.serial for request in done}
            done = [request for request in members if request.serial in ended]
        for request in done:
            self.remove(request)
        return done


def _by_arrival(request: Request) -> tuple[int, int]:
    return request.arrival, request.row
