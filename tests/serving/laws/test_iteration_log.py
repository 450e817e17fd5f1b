"""The iteration log tells the same stepped and fast-forwarded: iteration by iteration, and whether anybody waited."""

from __future__ import annotations

import numpy as np
import pytest

from distsim.kernel.clock import Clock
from distsim.registry import lookup
from distsim.serving.fleet import make_scheduler
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.requests.table import requests_of
from distsim.serving.service import Service


class Bucketed:
    """A time for every 32 tokens of mean length."""

    stages = 1

    def times(self, shape):
        mean = shape.kv // shape.sequences // 32 if shape.sequences else 0
        return (20 + shape.tokens + mean,)

    def steady(self, sequences, kv, longest):
        mean = kv // sequences
        return 20 + sequences + mean // 32, (mean // 32 + 1) * 32 - mean


def log_of(name, seed, *, stepped):
    rng = np.random.default_rng(seed)
    table = requests_of(np.cumsum(rng.integers(0, 900, 60)), rng.integers(1, 120, 60), rng.integers(1, 90, 60))
    clock, log = Clock(), IterationLog()
    router = lookup("router", "round_robin")
    service = Service(clock, table, router(router.Params(), rng))
    service.start([Replica(0, clock, make_scheduler(f"{name}:max_num_seqs=6", 60, 1), Bucketed(), log, service.ended, stepped)])
    clock.run()
    return log.columns()


def expanded(log):
    """A row per iteration: start, ps, sequences, kv, prefills, tokens, whether anybody waited; KV blocks where a row starts."""
    rows, used = [], {}
    for at in range(len(log["start"])):
        start, ps, n, kv = (int(log[name][at]) for name in ("start", "ps", "sequences", "kv"))
        used[start] = int(log["used"][at])
        for step in range(int(log["count"][at])):
            rows.append((start + ps * step, ps, n, kv + n * step, int(log["prefills"][at]), int(log["tokens"][at]),
                         bool(log["waiting"][at])))  # fmt: skip
    return rows, used


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["vllm_v1", "vllm_v0", "sarathi"])
def test_stretches_are_the_iterations_that_they_stand_for(name, seed):
    stepped, every = expanded(log_of(name, seed, stepped=True))
    forwarded, some = expanded(log_of(name, seed, stepped=False))
    assert len(some) < len(every) / 2, "nothing was fast-forwarded"
    assert forwarded == stepped
    assert all(every[start] == used for start, used in some.items())
