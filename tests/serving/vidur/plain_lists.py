"""Vidur's replicas by the letter: every request a record, every iteration a step, plain lists, no cohorts. For comparison.

Times are ps; durations come from an IterationTimes as in distsim.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush

from distsim.serving.iteration import Shape


@dataclass(eq=False)
class Record:
    row: int
    arrival: int
    prefill: int
    decode: int
    done: int = 0  #: tokens processed, the one to be fed in next included
    prefilled: bool = False
    first: int = -1
    completed: int = -1
    restarts: int = 0

    def restart(self):
        total = self.prefill + self.decode
        self.prefill, self.decode = self.done, total - self.done
        self.done, self.prefilled = 0, False
        self.restarts += 1

    def end(self, now, tokens):
        self.done += tokens
        if self.done == self.prefill:
            self.prefilled = True
            self.done += 1
            if self.first < 0:
                self.first = now
        if self.done == self.prefill + self.decode:
            self.completed = now


@dataclass
class Policy:
    """Queue, running list and blocks. A batch is a list of (record, tokens)."""

    total: int
    block: int = 16
    stages: int = 1
    cap: int = 128
    tokens: int = 4096
    chunk: int = 512
    watermark: float = 0.01
    longest: int = 4096
    patience: int = 10
    queue: list = field(default_factory=list)
    running: list = field(default_factory=list)
    held: dict = field(default_factory=dict)
    waited: int = 0

    @property
    def free(self):
        return self.total - sum(self.held.values())

    def ended(self, batch):
        for record, _ in batch:
            if record.completed >= 0:
                del self.held[record.row]
            else:
                self.running.append(record)

    def fits(self, record):
        return self.free - -(-record.prefill // self.block) >= int(self.watermark * self.total)

    def seat(self, blocks):
        record = self.queue.pop(0)
        self.held[record.row] = blocks
        return record

    def goes_on(self, record):
        """A block for the next token, whoever has to give it; False if that is the record itself."""
        while self.free < 1:
            victim = self.running.pop() if self.running else record
            victim.restart()
            del self.held[victim.row]
            self.queue.insert(0, victim)
            if victim is record:
                return False
        if record.done > self.held[record.row] * self.block:
            self.held[record.row] += 1
        return True


class Vllm(Policy):
    def next(self):
        batch = []
        while self.queue and self.fits(self.queue[0]):
            widest = max([tokens for _, tokens in batch] + [self.queue[0].prefill])
            if (len(batch) + 1) * widest > self.tokens or len(self.held) == self.cap or len(batch) == self.cap // self.stages:
                break
            record = self.seat(-(-self.queue[0].prefill // self.block))
            batch.append((record, record.prefill))
        if batch:
            return batch
        self.running.sort(key=lambda record: (record.arrival, record.row))
        while self.running and len(batch) < self.cap // self.stages:
            record = self.running.pop(0)
            if self.goes_on(record):
                batch.append((record, 1))
        return batch


class Sarathi(Policy):
    def next(self):
        batch, begun, skipped = [], [], []
        while self.running and len(batch) < self.cap // self.stages:
            record = self.running.pop(0)
            if not record.prefilled:
                begun.append(record)
            elif self.goes_on(record):
                batch.append((record, 1))
        budget = self.chunk - len(batch)
        for record in begun:
            tokens = min(record.prefill - record.done, budget)
            if tokens > 0:
                batch.append((record, tokens))
                budget -= tokens
            else:
                skipped.append(record)
        self.running = sorted(skipped + self.running, key=lambda record: (record.arrival, record.row))
        while self.queue and budget > 0 and len(self.held) < self.cap and len(batch) < self.cap // self.stages:
            if not self.fits(self.queue[0]):
                break
            record = self.seat(-(-self.queue[0].prefill // self.block))
            tokens = min(record.prefill, budget)
            batch.append((record, tokens))
            budget -= tokens
        return batch


class Orca(Policy):
    def next(self):
        batch = [(record, 1) for record in self.running[: self.cap]]
        del self.running[: self.cap]
        room = self.longest // self.block
        while self.queue and len(batch) < self.cap and self.free >= room:
            record = self.seat(room)
            batch.append((record, record.prefill))
        return batch


class Static(Policy):
    """running: batches. The leak is Vidur's."""

    def ended(self, batch):
        if all(record.completed >= 0 for record, _ in batch):
            for record, _ in batch:
                del self.held[record.row]
        else:
            self.running.append(batch)

    def next(self):
        if self.running:
            return [(record, 1) for record, _ in self.running.pop(0) if record.completed < 0]
        batch = []
        room = self.longest // self.block
        while self.queue and len(batch) < self.cap and self.free >= room:
            record = self.seat(room)
            batch.append((record, record.prefill))
        return batch


class Lightllm(Policy):
    def next(self):
        if not self.running:
            batch = self.prompts()
            if batch:
                self.waited = 0
            return batch
        if self.waited >= self.patience:
            self.waited = 0
            batch = self.prompts()
            if batch:
                return batch
        self.waited += 1
        batch, self.running = [(record, 1) for record in self.running], []
        for record, _ in batch:
            self.held[record.row] += 1
        return batch

    def prompts(self):
        batch = []
        ahead = [(record.done, max(0, record.decode - (record.done - record.prefill) - 1)) for record in self.running]
        while self.queue and len(self.held) < self.cap:
            record = self.queue[0]
            if sum(tokens for _, tokens in batch) + record.prefill > self.tokens:
                break
            ahead.append((record.prefill + 1, max(0, record.decode - 2)))
            ahead.sort(key=lambda one: -one[1])
            if max(left * (n + 1) + sum(has for has, _ in ahead[: n + 1]) for n, (_, left) in enumerate(ahead)) >= self.total:
                break
            self.seat(record.prefill)
            batch.append((record, record.prefill))
        return batch


def simulate(table, policies, times):
    """Records of a table's requests on replicas in turn; events by (time, creation)."""
    stages = times.stages
    records = [
        Record(row, *map(int, one)) for row, one in enumerate(zip(table.arrival, table.prompt, table.output, strict=True))
    ]  # fmt: skip
    events, serial, flying = [], 0, [0] * len(policies)
    free = [[0] * stages for _ in policies]

    def push(time, what, *about):
        nonlocal serial
        serial += 1
        heappush(events, (time, serial, what, about))

    for record in records:
        push(record.arrival, "arrive", record)
    while events:
        now, _, what, about = heappop(events)
        if what == "arrive":
            at = about[0].row % len(policies)
            policies[at].queue.append(about[0])
            push(now, "schedule", at)
        elif what == "end":
            at, batch = about
            for record, tokens in batch:
                record.end(now, tokens)
            flying[at] -= 1
            policies[at].ended(batch)
            push(now, "schedule", at)
        else:
            at = about[0]
            while flying[at] < stages:
                batch = policies[at].next()
                if not batch:
                    break
                flying[at] += 1
                end = now
                for stage, ps in enumerate(times.times(shape_of(batch))):
                    end = free[at][stage] = max(end, free[at][stage]) + ps
                push(end, "end", at, batch)
    return records


def shape_of(batch):
    cached = [record.done - 1 for record, _ in batch if record.prefilled]
    prefills = tuple((tokens, record.done) for record, tokens in batch if not record.prefilled)
    return Shape(prefills, len(cached), sum(cached), max(cached, default=0), 0)
