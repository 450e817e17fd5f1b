"""LogGOPS as its authors describe it, one queue of all operations, every one tried again when its CPU or NIC was taken.

Slow and plain: what the kernel's lines, lanes and records are checked against. Sorting of up to 16 released operations is
stable, which is all that these tests need.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from distsim.trace.schedule import CALC, RECV, SEND, Schedule


@dataclass
class Found:
    """Ends in ns per rank; operations that ended; messages without a receive and receives without a message."""

    finish: list[int]
    done: set[int]
    lost: int
    events: int


def simulate(schedule: Schedule, L: int, o: int, g: int, G: int, O: int, S: int) -> Found:  # noqa: E741, N803
    """Run with integer parameters in ns."""
    n = len(schedule)
    rank, kind = schedule.rank.tolist(), schedule.kind.tolist()
    size = [int(d) // 1000 if k == CALC else int(b) for d, b, k in zip(schedule.duration, schedule.bytes, kind, strict=True)]
    peer, tag, cpu, nic = (column.tolist() for column in (schedule.peer, schedule.tag, schedule.cpu, schedule.nic))
    waits, ends, starts = [0] * n, [[] for _ in range(n)], [[] for _ in range(n)]
    for child, parent, at_start in zip(
        schedule.child.tolist(), schedule.parent.tolist(), schedule.at_start.tolist(), strict=True
    ):
        (starts if at_start else ends)[parent].append(child)
        waits[child] += 1
    cpu_free: dict[tuple[int, int], int] = {}
    out_free: dict[tuple[int, int], int] = {}
    in_free: dict[tuple[int, int], int] = {}
    came: list[list[int]] = [[] for _ in range(schedule.ranks)]
    open_: list[list[int]] = [[] for _ in range(schedule.ranks)]
    queue: list[tuple[int, int, str, int]] = []
    done: set[int] = set()
    stamp = 0

    def put(ops: list[int], first: bool = False) -> None:
        nonlocal stamp
        assert len(ops) <= 16
        for op in sorted(ops, key=lambda op: kind[op]):
            time = 0 if first else cpu_free.get((rank[op], cpu[op]), 0)
            if kind[op] == SEND and not first:
                time = max(time, out_free.get((rank[op], nic[op]), 0))
            heapq.heappush(queue, (time, stamp, "op", op))
            stamp += 1

    def matches(receive: int, send: int) -> bool:
        return peer[receive] in (-1, rank[send]) and (tag[receive] == -1 or tag[send] == -1 or tag[receive] == tag[send])

    for r in range(schedule.ranks):
        put([op for op in range(n) if rank[op] == r and not waits[op]], first=True)
    while queue:
        time, number, what, op = heapq.heappop(queue)
        freed: dict[int, list[int]] = {}

        def free(followers: list[int], freed: dict[int, list[int]] = freed) -> None:
            for follower in followers:
                waits[follower] -= 1
                if not waits[follower]:
                    freed.setdefault(rank[follower], []).append(follower)

        def end(op: int) -> None:
            done.add(op)
            free(ends[op])

        extra = max(size[op] - 1, 0)
        mine = (rank[op], cpu[op])
        if what == "message":
            at = peer[op]
            ready = max(cpu_free.get((at, cpu[op]), 0), in_free.get((at, nic[op]), 0))
            if ready > time:
                heapq.heappush(queue, (ready, number, what, op))
                continue
            cpu_free[at, cpu[op]] = time + o + max(extra * O, extra * G)
            in_free[at, nic[op]] = time + g + extra * G
            receive = next((r for r in open_[at] if matches(r, op)), None)
            if receive is None:
                came[at].append(op)
            else:
                open_[at].remove(receive)
                if size[op] > S:
                    end(op)
                    cpu_free[mine] = max(cpu_free[mine], time)
                    out_free[rank[op], nic[op]] = max(out_free[rank[op], nic[op]], time)
                end(receive)
        elif kind[op] == RECV:
            free(starts[op])
            send = next((s for s in came[rank[op]] if matches(op, s)), None)
            if send is None:
                open_[rank[op]].append(op)
            else:
                came[rank[op]].remove(send)
                if size[send] > S:
                    end(send)
                    far = (rank[send], cpu[op])
                    cpu_free[far] = max(cpu_free.get(far, 0), time)
                    out = (rank[send], nic[op])
                    out_free[out] = max(out_free.get(out, 0), time)
                end(op)
        else:
            ready = cpu_free.get(mine, 0)
            if kind[op] == SEND:
                ready = max(ready, out_free.get((rank[op], nic[op]), 0))
            if ready > time:
                heapq.heappush(queue, (ready, number, what, op))
                continue
            free(starts[op])
            if kind[op] == CALC:
                cpu_free[mine] = time + size[op]
                end(op)
            else:
                cpu_free[mine] = time + o + extra * O
                out_free[rank[op], nic[op]] = time + g + extra * G
                heapq.heappush(queue, (time + o + L, stamp, "message", op))
                stamp += 1
                if size[op] <= S:
                    end(op)
        for r in sorted(freed):
            put(freed[r])
    finish = [max((t for (r, _), t in cpu_free.items() if r == at), default=0) for at in range(schedule.ranks)]
    return Found(finish, done, sum(map(len, came)) + sum(map(len, open_)), stamp)
