"""Level fluid when links and routes change under way: bytes that have moved stay moved, and every row is delivered once."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_reference import dag

from distsim.errors import ConfigError, PartitionError, TopologyError
from distsim.network.check import drain, random_transfers, star
from distsim.network.fluid import Fluid
from distsim.network.model import NEVER
from distsim.network.transfers import single
from distsim.topology.graph import Topology


class Way:
    """A router from host 0 to host 1 (and back, over the next link) over one of several parallel links."""

    def __init__(self, link, chooses=False, ways=1):
        self.link, self.chooses, self.ways = link, chooses, ways

    def __call__(self, src, dst, lane=None):
        if self.link is None:
            raise TopologyError("no path for 1 of 1 pairs: h0 -> h1", where="parallel")
        lane = np.zeros(len(src), np.int32) if lane is None else lane
        crosses = src != dst
        return np.concatenate(([0], np.cumsum(crosses))), (self.link + 2 * lane + src)[crosses].astype(np.int32)


def parallel(link=0, bandwidth=(1e9, 1e9), latency=1_000_000, **router):
    """Two hosts and a cable per bandwidth; traffic takes the one that begins with ``link``."""
    cables = len(bandwidth)
    return Topology(
        name="parallel", spec="parallel", hosts=2, node_names=("h0", "h1"), link_src=np.tile([0, 1], cables).astype(np.int32),
        link_dst=np.tile([1, 0], cables).astype(np.int32), link_bandwidth=np.repeat(np.array(bandwidth, float), 2),
        link_latency=np.full(2 * cables, latency), link_domain=np.zeros(2 * cables, np.int16), domains=("link",),
        router=Way(link, **router),
    )  # fmt: skip


def slower(topology, factor, links=slice(None)):
    bandwidth = topology.link_bandwidth.copy()
    bandwidth[links] *= factor
    return dataclasses.replace(topology, link_bandwidth=bandwidth)


def test_half_the_bandwidth_from_half_way_on(form):
    """1 MB at 1 GB/s: 1 us of latency, 0.5 ms at full rate, the other half at half rate."""
    network = Fluid(parallel())
    network.start(single(0, 1, 1_000_000), 0)
    assert network.run_until(501_000_000) == []
    network.change(slower(parallel(), 0.5))
    assert network.run_until(NEVER)[0].at == 1_000_000 + 500_000_000 + 1_000_000_000
    assert network.usage().bytes.tolist() == [1_000_000, 0, 0, 0]
    assert network.retransmitted == 0


def test_a_link_that_is_down_holds_what_is_on_it_until_it_is_back(form):
    network = Fluid(parallel())
    network.start(dag([(0, 1, 1_000_000), (1, 0, 5_000_000)]), 0)
    network.run_until(501_000_000)
    network.change(slower(parallel(), 0, [0]))
    network.run_until(2_000_000_000)
    assert network.next_event() < NEVER  # the other direction goes on
    network.change(parallel())
    (done,) = network.run_until(NEVER)
    assert done.host_end == {0: 5_001_000_000, 1: 5_001_000_000}
    alone = Fluid(slower(parallel(), 0))
    alone.start(single(0, 1, 1), 0)
    assert alone.run_until(2_000_000) == []
    assert alone.next_event() == NEVER
    alone.change(parallel())
    assert alone.run_until(NEVER)[0].at == 2_001_000


def test_flows_in_flight_go_on_over_their_new_route_with_what_is_left(form):
    """Half the bytes, then the new route's 1 us once more, then the rest at 2 GB/s; use is counted where the bytes went."""
    network = Fluid(parallel(bandwidth=(1e9, 2e9)))
    network.start(dag([(0, 1, 1_000_000)] * 2), 0)  # one flow of two transfers, 0.5 GB/s each
    network.run_until(1_001_000_000)
    network.change(parallel(link=2, bandwidth=(0, 2e9)))
    assert network.run_until(NEVER)[0].at == 1_001_000_000 + 1_000_000 + 500_000_000
    assert network.usage().bytes.tolist() == [1_000_000, 0, 1_000_000, 0]
    assert network.usage().busy.tolist() == [1_000_000_000, 0, 500_000_000, 0]


def test_first_bytes_on_the_way_begin_their_latencies_again(form):
    network = Fluid(parallel())
    network.start(single(0, 1, 1_000), 0)
    network.run_until(400_000)
    network.change(parallel(link=2))
    assert network.run_until(NEVER)[0].at == 400_000 + 1_000_000 + 1_000_000
    assert network.usage().bytes.tolist() == [0, 0, 1_000, 0]


def test_rows_that_wait_take_the_new_routes(form):
    network = Fluid(parallel())
    network.start(dag([(0, 1, 1_000), (1, 0, 1_000, [0], 7), (0, 1, 0, [1])]), 0)
    network.run_until(1_500_000)
    network.change(parallel(link=2, latency=3_000_000))
    # the first is re-sent with 500 bytes left; then 3 us + 1 us + 7 ps, then 3 us
    assert network.run_until(NEVER)[0].at == 1_500_000 + 3_500_000 + 4_000_007 + 3_000_000
    assert network.usage().bytes.tolist() == [500, 0, 500, 1_000]


def test_no_route_left_is_an_error_and_changes_nothing(form):
    network = Fluid(parallel())
    network.start(single(0, 1, 1_000_000), 0)
    network.run_until(501_000_000)
    with pytest.raises(PartitionError, match="h0 -> h1"):
        network.change(parallel(link=None))
    assert network.run_until(NEVER)[0].at == 1_001_000_000
    network.change(parallel(link=None))  # nobody asks for it
    with pytest.raises(TopologyError):
        network.start(single(0, 1, 1), network.now)


def test_another_topology_is_refused():
    network = Fluid(parallel())
    with pytest.raises(ConfigError, match="another topology"):
        network.change(star(3))
    with pytest.raises(ConfigError, match="1 ways"):
        Fluid(parallel(ways=2)).change(parallel())


def test_transfers_that_choose_take_the_least_crowded_route(form):
    """Four over two equal cables, two each; when one cable dies, those on it move over."""
    network = Fluid(parallel(ways=2, chooses=True))
    network.start(dag([(0, 1, 1_000_000)] * 4), 0)
    network.run_until(1_001_000_000)
    assert network.usage().bytes.tolist() == [2_000_000, 0, 2_000_000, 0]
    network.change(parallel(bandwidth=(0, 1e9), ways=2, chooses=True))
    # 500 KB of each are left; those that stay have the link alone for 1 us
    (done,) = network.run_until(NEVER)
    assert done.at == 1_001_000_000 + 2_000_000_000
    assert network.usage().bytes.tolist() == [1_000_000, 0, 3_000_000, 0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 3_000_000), max_size=6), st.booleans())
def test_law_a_change_to_the_same_changes_nothing(seed, steps, weighted):
    def answer(change):
        network = Fluid(star(6), rtt_weighted=weighted)
        network.start(random_transfers(6, 60, seed=seed), 3)
        network.start(random_transfers(6, 30, seed=seed + 1), 1_000_000)
        seen, now = [], 0
        for step in steps:
            now += step
            while network.now < now:
                seen += [(done.group, done.at, done.host_end) for done in network.run_until(now)]
            if change:
                network.change(star(6))
        rest = [(group, at, dict(ends)) for group, at, ends in drain(network)]
        return [*seen, *rest], network.usage().bytes.tolist(), network.usage().busy.tolist()

    (plain, *use), (changed, *use_changed) = answer(False), answer(True)
    assert use == use_changed
    # float64 may round the rest of a flow's bytes another way: a picosecond
    for one, other in zip(plain, changed, strict=True):
        assert one[0] == other[0]
        assert one[2].keys() == other[2].keys()
        assert all(abs(one[2][host] - other[2][host]) <= 60 for host in one[2])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(1, 2_000_000), st.sampled_from([0, 0.25, 1, 3])), max_size=8))
def test_law_1_whatever_changes_every_row_is_delivered_once(seed, changes):
    topology = star(6)
    network = Fluid(topology)
    transfers = random_transfers(6, 60, seed=seed)
    network.start(transfers, 0)
    dice, now, reports = np.random.default_rng(seed), 0, 0
    for step, factor in changes:
        now += step
        while network.now < now:
            reports += len(network.run_until(now))
        network.change(slower(topology, factor, dice.integers(0, topology.links, 3)))
    network.change(topology)
    reports += len(drain(network))
    assert (reports, network.delivered) == (1, 60)
    offsets, ids = topology.paths(transfers.src, transfers.dst)
    expected = np.bincount(ids, weights=np.repeat(transfers.bytes, np.diff(offsets)), minlength=topology.links)
    assert network.usage().bytes.tolist() == expected.tolist()
