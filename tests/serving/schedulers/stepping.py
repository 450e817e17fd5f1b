"""Drive one scheduler by hand, an iteration at a time, with no clock and no durations."""

from __future__ import annotations

from hypothesis import strategies as st

from distsim.serving.fleet import make_scheduler
from distsim.serving.kv.swap import Swap
from distsim.serving.kv.tiers import Tier, Tiers
from distsim.serving.kv.transfers import Transfers
from distsim.serving.request import Request
from distsim.serving.speculation import Acceptance, DraftParams

HASH_BLOCK = 16


def drive(scheduler, requests, *, most=20_000):
    """Yields (batch, planned, done) after every iteration. Arrivals count iterations. planned: row -> (new, had)."""
    coming, finished, step = sorted(requests, key=lambda r: r.arrival), 0, 0
    while finished < len(requests):
        while coming and coming[0].arrival <= step:
            scheduler.enqueue(coming.pop(0))
        batch = scheduler.next_batch()
        if batch is None:
            assert coming, "nothing runs, and nobody comes any more"
            step = max(step + 1, coming[0].arrival)
            continue
        if scheduler.transfers is not None:
            scheduler.transfers.charge(batch)
        planned = {request.row: (new, request.computed) for request, new in batch.prefills}
        if batch.decodes is not None:
            planned |= {request.row: (1, batch.decodes.computed(request)) for request in batch.decodes.members}
        assert len(planned) == len(batch.requests), "a request runs twice in a batch"
        step += 1
        done = scheduler.finish(batch, 1, step)
        finished += len(done)
        yield batch, planned, done
        assert step < most, "no end"


def run(scheduler, requests):
    """To the end; the iterations."""
    return list(drive(scheduler, requests))


def held(scheduler):
    """Blocks of all requests between two iterations, shared ones once."""
    pool, kv = scheduler.pool, scheduler.kv
    copies, total = set(), 0
    for request in (*pool.members, *scheduler.prefilling):
        mine = request.held or []
        if request.cohort is None or scheduler.reserves or scheduler.acceptance is not None:
            blocks = request.blocks
        else:
            blocks = kv.need(pool.computed(request))
        total += blocks - len(mine) * getattr(kv, "weight", 1)
        copies.update(mine)
    return total + len(copies) * getattr(kv, "weight", 1)


@st.composite
def crowds(draw, *, most=20):
    """Requests of few classes and tenants, some with a common beginning. Fresh ones at every call."""
    rows = []
    for row in range(draw(st.integers(1, most))):
        prompt, output = draw(st.integers(1, 90)), draw(st.one_of(st.integers(1, 4), st.integers(1, 60)))
        group = draw(st.integers(0, 3))
        hashes = [1000 * group + at for at in range(prompt // HASH_BLOCK)] if group else []
        rows.append((row, draw(st.integers(0, 60)), prompt, output, group % 2, -1, group, hashes))
    return lambda: [Request(*row) for row in rows]


def scheduler_of(text, blocks, *, hashed=True, tiers=False, swap_room=0, draft=None):
    """A scheduler with what may be added to it."""
    scheduler = make_scheduler(text, blocks, 1, HASH_BLOCK if hashed else 0)
    if tiers or swap_room:
        scheduler.transfers = Transfers()
    if swap_room:
        scheduler.swap = Swap(swap_room, 5, scheduler.transfers)
    if tiers:
        scheduler.kv.tiers = Tiers([Tier("cpu", 3, 7), Tier("ssd", 5, 31, overlap=True)], scheduler.transfers)
    if draft:
        scheduler.speculate(Acceptance(DraftParams(tokens=draft, acceptance=0.6)))
    return scheduler
