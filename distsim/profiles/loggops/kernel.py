"""The event loop of LogGOPSim, event for event: which operation gets a CPU and a NIC when, and what that releases.

LogGOPSim keeps every operation in one queue by (time, number). One whose CPU or NIC is taken is put back with the time at
which they will be free, and tried again then: n messages that wait for one NIC cost n^2 tries. Here the operations that
want the same CPU and NIC form a *line*: only its first, by number, stands in the queue. That changes no answer: a CPU's or
NIC's free time only grows, so that of a line none but the first can succeed, and it succeeds where its own try would have.

Ordinary events go by (time, number) too: a receive looks for a message that has come already, a message arrives.

What LogGOPSim does, kept as it is:

- what a finished operation releases is dated by the CPU that it is to run on, not by the end of what it waited for. On one
  CPU that is the same. Across CPUs of a rank a dependency orders, but does not delay.
- the operations released by one event are numbered sends first, then receives, then calcs, within a kind in the order in
  which ``std::sort`` of libstdc++ leaves them: :func:`arrange`.
- an arriving message takes the CPU and NIC of the *sender's* numbers; a receive that finds its message costs nothing more.

Where a receive names another size than its message, the message's counts. (LogGOPSim asks the receive of one that came before
it whether its sender waits: such senders then never end, or end twice.)
"""

from __future__ import annotations

from typing import Any

from distsim.kernel.jit import kernel

#: kinds of operations, in LogGOPSim's order
SEND, RECV, CALC = 1, 2, 3
#: times stay below
FAR = 1 << 62
TOO_LONG = -1  #: run: a time left the range of the clock
_SMALL = 16  #: libstdc++'s _S_threshold

# Records of the kernel's memory, each a flat sequence: ``op[row * OP + KIND]``. One record is what an event touches at once.
# What an operation is. LINE: the line that it waits in; IN_...: those of the message of a send, at its receiver.
OP = 16
KIND, RANK, CPU, NIC, BUSY, GAP, LATE, LANE, LINE, IN_LINE, IN_CPU, IN_NIC, TAKE, SRC, TAG = range(15)
# What has become of it. START, TAKEN (of a send: when the receiver's CPU took its message), PARTNER (of a receive: its send),
# BY (whose end or start released it): -1 where there is none. BEHIND: the next in its lane.
LIVE = 8
WAITING, START, TAKEN, PARTNER, DONE, BY, BEHIND = range(7)
# A member of a line: an operation, or n + send, its message. NUMBER is its place in the order of all events.
MEMBER = 3
NUMBER, BEFORE, AFTER = range(3)
# A line: its first and last member (-1), the time at which the first stands in the queue, the CPU and NIC that all want.
WAIT = 5
FIRST, LAST, KEY, LINE_CPU, LINE_NIC = range(5)
# A lane, where sends and receives look for each other: ends of the unexpected messages and of the open receives (-1).
PLACE = 4
CAME, CAME_LAST, OPEN, OPEN_LAST = range(4)
# An entry of the queue: a receive; n + send: its message arrives; 2 n + line.
ENTRY = 3
TIME, STAMP, ITEM = range(3)
# Who follows whom: where the followers of an operation's end and start begin (those of its start end where those of the next
# one's end begin).
FOLLOW = 2


@kernel
def push(queue: Any, size: int, time: int, stamp: int, item: int) -> int:
    """Add an entry to a 4-ary heap by (time, stamp); its new size."""
    at = size
    while at > 0:
        above = (at - 1) >> 2
        other = queue[above * ENTRY + TIME]
        if other < time or (other == time and queue[above * ENTRY + STAMP] <= stamp):
            break
        queue[at * ENTRY + TIME] = other
        queue[at * ENTRY + STAMP] = queue[above * ENTRY + STAMP]
        queue[at * ENTRY + ITEM] = queue[above * ENTRY + ITEM]
        at = above
    queue[at * ENTRY + TIME] = time
    queue[at * ENTRY + STAMP] = stamp
    queue[at * ENTRY + ITEM] = item
    return size + 1


@kernel
def settle(queue: Any, size: int, time: int, stamp: int, item: int) -> None:
    """Put an entry into the free root of a 4-ary heap of ``size`` entries."""
    at = 0
    child = 1
    while child < size:
        best = child
        best_time = queue[child * ENTRY + TIME]
        best_stamp = queue[child * ENTRY + STAMP]
        stop = min(child + 4, size)
        child += 1
        while child < stop:
            other = queue[child * ENTRY + TIME]
            if other < best_time or (other == best_time and queue[child * ENTRY + STAMP] < best_stamp):
                best = child
                best_time = other
                best_stamp = queue[child * ENTRY + STAMP]
            child += 1
        if best_time > time or (best_time == time and best_stamp >= stamp):
            break
        queue[at * ENTRY + TIME] = best_time
        queue[at * ENTRY + STAMP] = best_stamp
        queue[at * ENTRY + ITEM] = queue[best * ENTRY + ITEM]
        at = best
        child = 4 * at + 1
    queue[at * ENTRY + TIME] = time
    queue[at * ENTRY + STAMP] = stamp
    queue[at * ENTRY + ITEM] = item


@kernel
def pull(queue: Any, size: int) -> int:
    """Drop the first entry of a 4-ary heap; its new size."""
    size -= 1
    settle(queue, size, queue[size * ENTRY + TIME], queue[size * ENTRY + STAMP], queue[size * ENTRY + ITEM])
    return size


@kernel
def arrange(rows: Any, count: int, op: Any, stack: Any) -> None:
    """Sort by kind as libstdc++'s std::sort does, which decides how operations of one kind follow each other.

    Up to 16 rows: insertion, stable. Above: quicksort of the median of three down to parts of 16, then insertion. (Its
    fall-back, a heap sort after 2 log2(n) bad pivots, is left out: three kinds of rows give no such pivots.)
    """
    first = 0
    last = count
    depth = 0
    while True:
        while last - first > _SMALL:
            middle = first + (last - first) // 2
            a = op[rows[first + 1] * OP + KIND]
            b = op[rows[middle] * OP + KIND]
            c = op[rows[last - 1] * OP + KIND]
            if a < b:
                chosen = middle if b < c else (last - 1 if a < c else first + 1)
            else:
                chosen = first + 1 if a < c else (last - 1 if b < c else middle)
            swapped = rows[first]
            rows[first] = rows[chosen]
            rows[chosen] = swapped
            pivot = op[rows[first] * OP + KIND]
            low = first + 1
            high = last
            while True:
                while op[rows[low] * OP + KIND] < pivot:
                    low += 1
                high -= 1
                while pivot < op[rows[high] * OP + KIND]:
                    high -= 1
                if low >= high:
                    break
                swapped = rows[low]
                rows[low] = rows[high]
                rows[high] = swapped
                low += 1
            stack[depth] = low
            stack[depth + 1] = last
            depth += 2
            last = low
        if depth == 0:
            break
        depth -= 2
        first = stack[depth]
        last = stack[depth + 1]
    for i in range(1, count):
        row = rows[i]
        at = i
        while at > 0 and op[row * OP + KIND] < op[rows[at - 1] * OP + KIND]:
            rows[at] = rows[at - 1]
            at -= 1
        rows[at] = row


@kernel
def release(of: int, first: int, last: int, followers: Any, live: Any, rows: Any, count: int) -> int:
    """One dependency on ``of`` less for these followers; those without any more are put behind ``rows``. Their new count."""
    for k in range(first, last):
        row = followers[k]
        left = live[row * LIVE + WAITING] - 1
        live[row * LIVE + WAITING] = left
        if left == 0:
            live[row * LIVE + BY] = of
            rows[count] = row
            count += 1
    return count


@kernel
def join(line: int, member: int, stamp: int, time: int, lines: Any, members: Any, queue: Any, size: int, base: int) -> int:
    """Put a member into its line, by number; the size of the queue."""
    members[member * MEMBER + NUMBER] = stamp
    last = lines[line * WAIT + LAST]
    if last < 0:
        lines[line * WAIT + KEY] = time
        lines[line * WAIT + FIRST] = member
        lines[line * WAIT + LAST] = member
        members[member * MEMBER + BEFORE] = -1
        members[member * MEMBER + AFTER] = -1
        return int(push(queue, size, time, stamp, base + line))
    while last >= 0 and members[last * MEMBER + NUMBER] > stamp:
        last = members[last * MEMBER + BEFORE]
    members[member * MEMBER + BEFORE] = last
    if last < 0:
        first = lines[line * WAIT + FIRST]
        members[member * MEMBER + AFTER] = first
        members[first * MEMBER + BEFORE] = member
        lines[line * WAIT + FIRST] = member
        return int(push(queue, size, lines[line * WAIT + KEY], stamp, base + line))
    after = members[last * MEMBER + AFTER]
    members[member * MEMBER + AFTER] = after
    members[last * MEMBER + AFTER] = member
    if after < 0:
        lines[line * WAIT + LAST] = member
    else:
        members[after * MEMBER + BEFORE] = member
    return size


@kernel
def admit(
    rows: Any, count: int, stamp: int, op: Any, lines: Any, members: Any, free: Any, stack: Any, queue: Any, size: int,
    base: int,
) -> int:  # fmt: skip
    """Number the released rows of one rank, from ``stamp`` on, and queue them; the size of the queue."""
    if count > 1:
        arrange(rows, count, op, stack)
    for k in range(count):
        row = rows[k]
        if op[row * OP + KIND] == RECV:
            size = push(queue, size, free[op[row * OP + CPU]], stamp + k, row)
        else:
            line = op[row * OP + LINE]
            time = max(free[lines[line * WAIT + LINE_CPU]], free[lines[line * WAIT + LINE_NIC]])
            size = join(line, row, stamp + k, time, lines, members, queue, size, base)
    return size


@kernel
def meet(row: int, ends: int, op: Any, lanes: Any, live: Any) -> int:
    """Take the first entry that ``row`` matches out of its lane's CAME or OPEN (``ends``); -1 where there is none.

    SRC is the sender that a send or receive speaks of; negative: any.
    """
    at_first = op[row * OP + LANE] * PLACE + ends
    before = -1
    at = lanes[at_first]
    src = op[row * OP + SRC]
    tag = op[row * OP + TAG]
    while at >= 0:
        other = op[at * OP + SRC]
        mark = op[at * OP + TAG]
        if (src < 0 or other < 0 or src == other) and (tag < 0 or mark < 0 or tag == mark):
            if before < 0:
                lanes[at_first] = live[at * LIVE + BEHIND]
            else:
                live[before * LIVE + BEHIND] = live[at * LIVE + BEHIND]
            if lanes[at_first + 1] == at:
                lanes[at_first + 1] = before
            return int(at)
        before = at
        at = live[at * LIVE + BEHIND]
    return -1


@kernel
def leave(row: int, ends: int, op: Any, lanes: Any, live: Any) -> None:
    """Put ``row`` at the end of its lane's CAME or OPEN."""
    at_first = op[row * OP + LANE] * PLACE + ends
    last = lanes[at_first + 1]
    live[row * LIVE + BEHIND] = -1
    if last < 0:
        lanes[at_first] = row
    else:
        live[last * LIVE + BEHIND] = row
    lanes[at_first + 1] = row


@kernel
def run(
    n: int, ranks: int, cpus: int, nics: int, flight: int, op: Any, live: Any, members: Any, lines: Any, lanes: Any, queue: Any,
    free: Any, follow: Any, followers: Any, roots: Any, root_ptr: Any, fresh: Any, other: Any, stack: Any,
) -> int:  # fmt: skip
    """Run until nothing more happens; the number of events (operations begun and messages sent), or TOO_LONG.

    What has become of the operations is in ``live``, when CPUs and NICs are free in ``free``.
    """
    base = 2 * n
    size = 0
    stamp = 0
    for host in range(ranks):
        count = 0
        for k in range(root_ptr[host], root_ptr[host + 1]):
            fresh[count] = roots[k]
            count += 1
        size = admit(fresh, count, stamp, op, lines, members, free, stack, queue, size, base)
        stamp += count
    while size > 0:
        time = queue[TIME]
        now = queue[STAMP]
        item = queue[ITEM]
        count = 0  # released on the host of the event
        far = 0  # released on the sender's
        host = 0
        row = -1  # operation that ended
        send = -1  # rendezvous send that ended
        sender = -1
        if time >= FAR:
            return TOO_LONG
        if item < n:
            size = pull(queue, size)
            host = op[item * OP + RANK]
            live[item * LIVE + START] = time
            count = release(item, follow[item * FOLLOW + 1], follow[item * FOLLOW + 2], followers, live, fresh, count)
            found = meet(item, CAME, op, lanes, live)
            if found >= 0:
                row = item
                live[row * LIVE + PARTNER] = found
                if op[found * OP + LATE]:
                    send = found
                    sender = op[send * OP + RANK]
                    a = op[row * OP + CPU] + (sender - host) * cpus
                    b = op[row * OP + NIC] + (sender - host) * nics
                    free[a] = max(free[a], time)
                    free[b] = max(free[b], time)
            else:
                leave(item, OPEN, op, lanes, live)
        else:
            if item < base:
                size = pull(queue, size)
                member = item
                line = op[(item - n) * OP + IN_LINE]
            else:
                line = item - base
                member = lines[line * WAIT + FIRST]
                if member < 0 or lines[line * WAIT + KEY] != time or members[member * MEMBER + NUMBER] != now:
                    size = pull(queue, size)
                    continue  # an entry that another member of the line has overtaken
            free_at = max(free[lines[line * WAIT + LINE_CPU]], free[lines[line * WAIT + LINE_NIC]])
            if free_at > time:
                if item < base:
                    size = join(line, member, now, free_at, lines, members, queue, size, base)
                else:
                    lines[line * WAIT + KEY] = free_at
                    settle(queue, size, free_at, now, item)
                continue
            if member >= n:
                found = member - n
                free[op[found * OP + IN_CPU]] = time + op[found * OP + TAKE]
                free[op[found * OP + IN_NIC]] = time + op[found * OP + GAP]
            else:
                free[op[member * OP + CPU]] = time + op[member * OP + BUSY]
                if op[member * OP + KIND] == SEND:
                    free[op[member * OP + NIC]] = time + op[member * OP + GAP]
            if item >= base:
                after = members[member * MEMBER + AFTER]
                lines[line * WAIT + FIRST] = after
                if after < 0:
                    lines[line * WAIT + LAST] = -1
                    size = pull(queue, size)
                else:
                    members[after * MEMBER + BEFORE] = -1
                    free_at = max(free[lines[line * WAIT + LINE_CPU]], free[lines[line * WAIT + LINE_NIC]])
                    lines[line * WAIT + KEY] = free_at
                    settle(queue, size, free_at, members[after * MEMBER + NUMBER], item)
            if member >= n:
                found = member - n
                live[found * LIVE + TAKEN] = time
                row = meet(found, OPEN, op, lanes, live)
                if row >= 0:
                    host = op[row * OP + RANK]
                    live[row * LIVE + PARTNER] = found
                    if op[found * OP + LATE]:
                        send = found
                        sender = op[send * OP + RANK]
                        free[op[send * OP + CPU]] = max(free[op[send * OP + CPU]], time)
                        free[op[send * OP + NIC]] = max(free[op[send * OP + NIC]], time)
                else:
                    leave(found, CAME, op, lanes, live)
            else:
                host = op[member * OP + RANK]
                live[member * LIVE + START] = time
                count = release(member, follow[member * FOLLOW + 1], follow[member * FOLLOW + 2], followers, live, fresh, count)
                if op[member * OP + KIND] == SEND:
                    size = push(queue, size, time + flight, stamp, n + member)
                    stamp += 1
                if op[member * OP + KIND] == CALC or not op[member * OP + LATE]:
                    row = member
        if send >= 0:
            live[send * LIVE + DONE] = 1
            if sender == host:
                count = release(send, follow[send * FOLLOW], follow[send * FOLLOW + 1], followers, live, fresh, count)
            else:
                far = release(send, follow[send * FOLLOW], follow[send * FOLLOW + 1], followers, live, other, far)
        if row >= 0:
            live[row * LIVE + DONE] = 1
            count = release(row, follow[row * FOLLOW], follow[row * FOLLOW + 1], followers, live, fresh, count)
        if far > 0 and sender < host:
            size = admit(other, far, stamp, op, lines, members, free, stack, queue, size, base)
            stamp += far
        if count > 0:
            size = admit(fresh, count, stamp, op, lines, members, free, stack, queue, size, base)
            stamp += count
        if far > 0 and sender > host:
            size = admit(other, far, stamp, op, lines, members, free, stack, queue, size, base)
            stamp += far
    return stamp
