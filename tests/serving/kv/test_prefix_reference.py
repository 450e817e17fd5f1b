"""The prefix cache against vLLM V1 written out, block by block and token by token: every decision is equal."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.serving.kv.prefix import PrefixBlocks
from distsim.serving.request import Request
from distsim.serving.schedulers.vllm_v1 import VllmV1

BLOCK = 4


class Block:
    def __init__(self, number):
        self.id, self.references, self.name = number, 0, None


class Manager:
    """vLLM's BlockPool and KVCacheManager: a queue of free blocks, and blocks by hash, several per hash."""

    def __init__(self, total):
        self.free = deque(Block(number) for number in range(total))
        self.named: dict[int, dict[int, Block]] = {}

    def find(self, request):
        found = []
        for name in request.names[: (request.tokens - 1) // BLOCK]:
            if name not in self.named:
                break
            found.append(next(iter(self.named[name].values())))
        return found

    def allocate(self, request, new, found=(), whole=0):
        """Blocks for ``new`` more tokens, or nothing."""
        have = request.blocks or list(found)
        after = request.computed + new
        wanted = -(-(whole or after) // BLOCK) - len(have)
        unheld = sum(1 for block in found if not block.references)
        if wanted > len(self.free) - unheld:
            return False
        wanted = -(-after // BLOCK) - len(have)
        for block in found:
            if not block.references:
                self.free.remove(block)
            block.references += 1
        for _ in range(wanted):
            block = self.free.popleft()
            if block.name is not None:
                del self.named[block.name][block.id]
                if not self.named[block.name]:
                    del self.named[block.name]
                block.name = None
            block.references = 1
            have.append(block)
        request.blocks = have
        for at in range(min(after // BLOCK, len(request.names))):
            block = have[at]
            if block.name is None:
                block.name = request.names[at]
                self.named.setdefault(block.name, {})[block.id] = block
        return True

    def release(self, request):
        for block in reversed(request.blocks):
            block.references -= 1
            if not block.references:
                self.free.append(block)
        request.blocks = []


class Simple:
    def __init__(self, row, prompt, output, names):
        self.row, self.tokens, self.left, self.names = row, prompt, output, names
        self.computed, self.blocks, self.cached, self.restarts = 0, [], 0, 0


class Reference:
    """vLLM V1's Scheduler.schedule(), first come first served."""

    def __init__(self, blocks, seats, budget, whole):
        self.manager, self.seats, self.budget, self.whole = Manager(blocks), seats, budget, whole
        self.waiting, self.running = deque(), []

    def step(self):
        budget, planned, preempted = self.budget, [], False
        at = 0
        while at < len(self.running) and budget:
            request = self.running[at]
            new = min(request.tokens - request.computed, budget)
            while not self.manager.allocate(request, new):
                preempted = True
                victim = self.running.pop()
                self.manager.release(victim)
                victim.computed = 0
                victim.restarts += 1
                self.waiting.appendleft(victim)
                if victim is request:
                    break
            else:
                planned.append((request.row, new, request.computed))
                budget -= new
                at += 1
                continue
            break
        while not preempted and self.waiting and budget and len(self.running) < self.seats:
            request = self.waiting[0]
            found = self.manager.find(request)
            request.computed = len(found) * BLOCK
            new = min(request.tokens - request.computed, budget)
            if not self.manager.allocate(request, new, found, request.tokens if self.whole else 0):
                request.computed = 0
                break
            self.running.append(self.waiting.popleft())
            if not request.restarts:
                request.cached = request.computed
            planned.append((request.row, new, request.computed))
            budget -= new
        done = []
        news = {row: new for row, new, _ in planned}
        for request in list(self.running):
            request.computed += news.get(request.row, 0)
            if request.row in news and request.computed == request.tokens:
                request.tokens += 1
                request.left -= 1
                if not request.left:
                    done.append(request.row)
                    self.running.remove(request)
                    self.manager.release(request)
        return planned, sorted(done)


@st.composite
def workloads(draw):
    """Few beginnings, many ends: prompts that are equal, that extend each other, and that end with a block."""
    rows = []
    for row in range(draw(st.integers(1, 14))):
        prompt = draw(st.one_of(st.integers(1, 40), st.sampled_from([8, 16, 24])))
        output = draw(st.integers(1, 20))
        group, common = draw(st.integers(0, 2)), draw(st.integers(0, 8))
        full = prompt // BLOCK
        shared = [1000 * (group + 1) + at for at in range(min(full, common))]
        own = [10_000 * (row + 1) + at for at in range(len(shared), (prompt + output) // BLOCK)]
        rows.append((draw(st.integers(0, 30)), prompt, output, shared + own))
    rows.sort(key=lambda row: row[0])
    return rows, draw(st.integers(16, 40)), draw(st.sampled_from([2, 4, 20])), draw(st.sampled_from([7, 16, 64]))


@settings(max_examples=150, deadline=None)
@given(workload=workloads(), whole=st.booleans())
def test_every_decision_is_vllms(workload, whole):
    rows, blocks, seats, budget = workload
    reference = Reference(blocks, seats, budget, whole)
    kv = PrefixBlocks(blocks, BLOCK, BLOCK)
    params = VllmV1.Params(max_num_seqs=seats, max_num_batched_tokens=budget, whole_prompt=whole, block=BLOCK)
    scheduler = VllmV1(params, kv)
    simple = [Simple(row, prompt, output, names) for row, (_, prompt, output, names) in enumerate(rows)]
    requests = [Request(row, at, prompt, output, hashes=names) for row, (at, prompt, output, names) in enumerate(rows)]
    finished = step = 0
    while finished < len(rows):
        for request, twin in zip(requests, simple, strict=True):
            if request.arrival == step:
                scheduler.enqueue(request)
                reference.waiting.append(twin)
        expected, ended = reference.step()
        batch = scheduler.next_batch()
        planned, done = [], []
        if batch is not None:
            members = batch.decodes.members if batch.decodes is not None else []
            planned = [(r.row, 1, batch.decodes.computed(r)) for r in members]
            planned += [(r.row, new, r.computed) for r, new in batch.prefills]
            done = [request.row for request in scheduler.finish(batch, 1, step)]
        assert planned == expected
        assert sorted(done) == ended
        assert kv.free == len(reference.manager.free)
        finished += len(done)
        step += 1
        assert step < 5000
    assert [(r.cached, r.restarts) for r in requests] == [(r.cached, r.restarts) for r in simple]
    assert kv.used == 0
    # NOTE: generated blocks are named when their request releases them, vLLM names them as they fill
    assert kv.shared() == sum(map(len, reference.manager.named.values()))
