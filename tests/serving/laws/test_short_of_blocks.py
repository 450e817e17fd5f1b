"""Whoever runs short of KV blocks goes on in the end: no request is lost, none waits for ever."""

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

MANY = 20_000  #: events: a hundred times what these runs take


class Same:
    """Every stage takes as long, whatever is in a batch."""

    def __init__(self, stages):
        self.stages = stages

    def times(self, shape):
        return (10 + shape.tokens,) * self.stages

    def steady(self, sequences, kv, longest):
        return 10 + sequences, 1 << 40


def serve(scheduler, blocks, stages, arrival, prompt, output, priority=None, stepped=False):
    columns = (np.array(column, np.int64) for column in (arrival, prompt, output))
    table = requests_of(*columns, priority=None if priority is None else np.array(priority, np.int32))
    clock, log = Clock(), IterationLog()
    router = lookup("router", "round_robin")
    service = Service(clock, table, router(router.Params(), np.random.default_rng(0)))
    policy = make_scheduler(scheduler, blocks, stages)
    service.start([Replica(0, clock, policy, Same(stages), log, service.ended, stepped)])

    def watch(now):
        assert clock.events < MANY, "it never ends"

    clock.run(watch=watch, every=1000)
    assert service.unfinished == 0
    assert policy.kv.used == 0
    assert not policy.seated
    return service


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_prompts_that_take_each_others_blocks_come_to_an_end(stages):
    """Without whole_prompt several are begun that do not fit the cache together; a pipeline has parts of some in flight, whose
    blocks nobody can take."""
    options = "max_num_batched_tokens=2,max_num_seqs=4,whole_prompt=false"
    serve(f"vllm_v1:{options}", 11, stages, [0, 20, 20], [124, 105, 129], [9, 20, 1])


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("stepped", [False, True])
def test_an_iteration_in_which_nobody_is_served_is_followed_by_another(stages, stepped):
    """Priority: who needs a block is the last by rank, gives way, and nobody after it is served in this iteration."""
    serve("priority", 4, stages, [20, 60], [12, 37], [8, 6], [3, 1], stepped)
    serve("priority", 3, stages, [0, 0, 3], [26, 3, 8], [9, 2, 11], [1, 3, 0], stepped)
