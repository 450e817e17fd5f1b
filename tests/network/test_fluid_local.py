"""Level fluid: a solve that takes in few flows finds what one over all of them finds, for less."""

import numpy as np
import pytest
from network_reference import dag

from distsim.network.check import star
from distsim.network.fluid import Fluid
from distsim.network.fluid_kernel import DIRTY, EVERYTHING, STEPS
from distsim.topology.spec import build


def drained(topology, rows, everything, **options):
    """({group: ps}, elementary steps) of rows that are groups, started 0.2 us apart."""
    network = Fluid(topology, **options)
    for number, row in enumerate(rows):
        network.start(dag([row]), 200_000 * (number % 40))
    ends = {}
    while len(ends) < len(rows):
        state = network._links._state["value"]
        state[EVERYTHING] = int(everything and state[DIRTY] > 0)  # rates are about to be found
        ends.update((done.group, done.at) for done in network.run_until(network.next_event()))
    return ends, int(state[STEPS])


@pytest.mark.parametrize("options", [{}, {"rtt_weighted": True}, {"cap": 20e9}], ids=["plain", "weighted", "capped"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spec", ["star", "fat_tree:k=4", "torus:dims=4x4"])
def test_few_flows_or_all_of_them_makes_no_difference(spec, seed, options):
    """Random sizes and ends, so that hardly two flows have one rate; a picosecond may be rounded another way."""
    dice = np.random.default_rng(seed)
    topology = star(16) if spec == "star" else build(spec)
    rows = []
    for _ in range(150):
        src, other = dice.choice(topology.hosts, 2, replace=False).tolist()
        rows.append((src, other, int(dice.integers(1, 3_000_000))))
    few, cost = drained(topology, rows, False, **options)
    every, full = drained(topology, rows, True, **options)
    assert few.keys() == every.keys()
    assert max(abs(few[group] - every[group]) for group in few) <= 20
    assert cost < 0.8 * full
