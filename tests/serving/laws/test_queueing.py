"""Queueing theory: systems built from the service's own parts wait as long as theory says.

A replica whose iterations take the same time whatever is in them, and that admits at most k requests, is k servers with one
queue: a request of L output tokens is served for L iterations. Geometric lengths are exponential service times, as nearly as
an iteration is short.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from distsim.kernel.clock import Clock
from distsim.serving.kv.blocks import Blocks
from distsim.serving.log import IterationLog
from distsim.serving.replica import Replica
from distsim.serving.requests.table import requests_of
from distsim.serving.routers.round_robin import RoundRobin
from distsim.serving.schedulers.vllm_v1 import VllmV1
from distsim.serving.service import Service

ITERATION = 1_000_000_000  #: ps
MEAN = 400  #: iterations of a request
REQUESTS = 24_000


class Constant:
    """Every iteration takes as long."""

    stages = 1

    def times(self, shape):
        return (ITERATION,)

    def steady(self, sequences, kv, longest):
        return ITERATION, 1 << 40


def waits(servers, load, lengths, seed):
    """Queueing times, in mean service times."""
    rng = np.random.default_rng(seed)
    service = MEAN * ITERATION
    arrival = np.cumsum(rng.exponential(service / (load * servers), REQUESTS)).astype(np.int64)
    table = requests_of(arrival, np.ones(REQUESTS, np.int64), lengths(rng))
    clock, log = Clock(), IterationLog()
    system = Service(clock, table, RoundRobin(RoundRobin.Params(), rng))
    scheduler = VllmV1(VllmV1.Params(max_num_seqs=servers), Blocks(1 << 40, 16))
    system.start([Replica(0, clock, scheduler, Constant(), log, system.ended)])
    clock.run()
    assert system.finished == REQUESTS
    # admission waits for the end of the iteration under way: half of one on average, which theory does not know
    return np.array([r.scheduled - r.arrival for r in system.requests]) / service


def agrees(found, theory):
    """Within the confidence interval of 40 batch means (99.9 %), and a discretisation of one iteration."""
    warm = found[len(found) // 20 :]
    batches = warm[: len(warm) // 40 * 40].reshape(40, -1).mean(axis=1)
    half = 3.55 * batches.std(ddof=1) / math.sqrt(len(batches))
    assert half < 0.5 * theory, "the run is too short to tell anything"
    assert abs(batches.mean() - theory) <= half + 1 / MEAN


def exponential(rng):
    return rng.geometric(1 / MEAN, REQUESTS)


def fixed(rng):
    return np.full(REQUESTS, MEAN)


def erlang_c(k, load):
    """Mean wait of M/M/k in mean service times (Erlang, 1917)."""
    a = load * k
    below = sum(a**i / math.factorial(i) for i in range(k))
    top = a**k / math.factorial(k) / (1 - load)
    return top / (below + top) / (k * (1 - load))


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_m_m_1(load):
    agrees(waits(1, load, exponential, 1), load / (1 - load))


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_m_d_1(load):
    agrees(waits(1, load, fixed, 2), load / (2 * (1 - load)))


@pytest.mark.parametrize(("k", "load"), [(2, 0.7), (8, 0.85)])
def test_m_m_k(k, load):
    agrees(waits(k, load, exponential, 3), erlang_c(k, load))


def test_longer_queues_than_theory_would_be_noticed():
    found = waits(1, 0.5, exponential, 4)
    with pytest.raises(AssertionError):
        agrees(found * 1.5, 1.0)
