"""Small services to find things in: linear iteration times, requests of a seed, results with and without a deployment."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from distsim.kernel.clock import Clock
from distsim.serving.kv.blocks import Blocks
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.requests.table import requests_of
from distsim.serving.result import ServingResult, replica_row, request_columns
from distsim.serving.routers.round_robin import RoundRobin
from distsim.serving.schedulers.vllm_v1 import VllmV1
from distsim.serving.service import Service

MS = 1_000_000_000  #: ps


class Linear:
    """Every iteration takes ``base`` ps, and more per prompt token and per generating sequence, shared evenly by the stages."""

    def __init__(self, base=10 * MS, token=MS // 100, sequence=MS // 10, stages=1):
        self.base, self.token, self.sequence, self.stages = base, token, sequence, stages

    def times(self, shape):
        ps = self.base + self.token * (shape.tokens - shape.sequences) + self.sequence * shape.sequences
        return (ps // self.stages,) * self.stages

    def steady(self, sequences, kv, longest):
        return self.base + self.sequence * sequences, 1 << 40


class Recording(VllmV1):
    """Writes down when each request emits a token."""

    emitted: dict

    def finish(self, batch, count, now):
        assert count == 1
        members = list(batch.decodes.members) if batch.decodes is not None else []
        rows = [r.row for r in members] + [r.row for r, new in batch.prefills if r.computed + new >= r.prefill]
        for row in rows:
            self.emitted[row].append(now)
        return super().finish(batch, count, now)


def workload(n, seed, rate=20.0, prompt=(1, 400), output=(1, 60), **more):
    """Poisson arrivals, uniform lengths."""
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1e12 / rate, n)).astype(np.int64)
    return requests_of(arrival, rng.integers(*prompt, n), rng.integers(*output, n), **more)


def served(table, replicas=1, kv_blocks=4096, stepped=False, times=None, seats=64, budget=2048, emitted=None, **fields):
    """The result of a run on vLLM's scheduler."""
    times = times or Linear()
    clock, log = Clock(), IterationLog()
    service = Service(clock, table, RoundRobin(RoundRobin.Params(), np.random.default_rng(0)))
    made = []
    for number in range(replicas):
        params = VllmV1.Params(max_num_seqs=seats, max_num_batched_tokens=budget)
        scheduler = (VllmV1 if emitted is None else Recording)(params, Blocks(kv_blocks, 16), times.stages)
        scheduler.emitted = emitted
        made.append(Replica(number, clock, scheduler, times, log, service.ended, stepped))
    service.start(made)
    clock.run()
    return ServingResult(
        request_columns(service.requests, table.names), log.columns(),
        tuple(replica_row(one, "pool 0", "h100_sxm", 2) for one in made), clock.now, **fields,
    )  # fmt: skip


def emissions(table, **options):
    """row -> times of its tokens, ps, from a run of single steps."""
    emitted = defaultdict(list)
    served(table, stepped=True, emitted=emitted, **options)
    return emitted
