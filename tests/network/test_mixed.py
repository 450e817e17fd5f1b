"""Levels mixed by link domain: like one level where they should be, by hand where routes pass from one to another."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.collectives.schedule import Collective, schedule
from distsim.engine.placement import place
from distsim.errors import ConfigError, UnknownNameError
from distsim.network.check import check_network_model, drain, random_transfers, star
from distsim.network.chunk import Chunk
from distsim.network.cut_through import CutThrough
from distsim.network.mixed import Mixed
from distsim.network.model import NEVER
from distsim.network.spec import build_network, level_of
from distsim.network.transfers import single
from distsim.topology.spec import build

RAILS = "rail_optimized:nodes=4,gpus_per_node=4,nvlink_bandwidth=400GBps,bandwidth=50GBps,cross_rail=pxn,spines=0"


def _time(spec, transfers, topology):
    network = build_network(spec, topology)
    network.start(transfers, 0)
    (done,) = network.run_until(NEVER)
    return done.at


def _every(levels):
    def make(topology):
        return Mixed(topology, [level_of(text) for text in levels], np.arange(topology.links) % len(levels))

    return make


@pytest.mark.parametrize("levels", [("cut_through",), ("chunk",), ("analytic",)])
def test_the_contract_holds_for_a_coordinator_of_one_level(levels):
    check_network_model(_every(levels), contends=levels[0] != "analytic")


def test_a_coordinator_of_one_level_answers_as_the_level():
    topology = build("fat_tree:k=4")
    for seed in range(3):
        transfers = random_transfers(16, 60, seed=seed)
        network, plain = _every(("chunk",))(topology), build_network("chunk", topology)
        for one in (network, plain):
            one.start(transfers, 5)
        mine, theirs = drain(network), drain(plain)
        # what meets at one instant may go in another order: as many bytes, the same end up to one turn
        assert mine[0][1] == pytest.approx(theirs[0][1], rel=0.05)
        assert network.usage().bytes.tolist() == plain.usage().bytes.tolist()


def test_a_route_over_two_levels_takes_the_sum_of_its_stretches():
    """PXN: 400 GB/s to the neighbour on the right rail, then 50 GB/s to the other node; each 2 hops of 500 ns."""
    topology = build(RAILS)
    message = single(0, 5, 50_000_000)
    whole = _time("analytic", message, topology)
    assert whole == 4 * 500_000 + 10**9
    assert _time("nvlink=cut_through+*=chunk", message, topology) == 2_000_000 + 125_000_000 + 2 * 10**9
    assert _time("nvlink=analytic+rail=fluid", message, topology) == whole
    assert _time("nvlink=analytic+rail=cut_through", message, topology) == whole
    # whole on arrival at the rail, and stored by its switch
    assert _time("nvlink=analytic+rail=chunk", message, topology) == 2_000_000 + 125_000_000 + 2 * 10**9


def test_without_contention_on_nvlink_only_the_fabric_is_shared():
    """Four messages leave one GPU over NVLink at once: free on an analytic domain, one after the other in queues."""
    topology = build(RAILS)
    fan = [single(0, 1, 400_000_000) for _ in range(4)]
    for spec, end in (
        ("nvlink=analytic+*=fluid", 1), ("nvlink=analytic+*=cut_through", 1), ("nvlink=analytic+*=chunk", 1),
        ("nvlink=fluid+*=analytic", 4), ("nvlink=chunk+*=cut_through", 5), ("nvlink=cut_through+*=analytic", 4),
    ):  # fmt: skip
        network = build_network(spec, topology)
        for one in fan:
            network.start(one, 0)
        assert drain(network)[-1][1] == pytest.approx(end * 10**9, rel=0.01), spec


@pytest.mark.parametrize("level", [Chunk, CutThrough])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.5, 1.0]))
def test_leases_do_not_change_what_uncontended_links_do(level, seed, share):
    """All links masked is analytic; whatever the mask, groups that share only such links keep leases and answers."""
    topology = build("fat_tree:k=4")
    mask = np.random.default_rng(seed).random(topology.links) < share
    seen, used = [], []
    for network in (
        level(topology, uncontended=mask), level(topology, uncontended=mask, leases=False), build_network("analytic", topology),
    ):  # fmt: skip
        for number in range(3):
            network.start(random_transfers(16, 30, seed=seed + number), 0)
        network.run_until(1000)
        amid = network.usage()
        ends = sorted((group, at, dict(hosts)) for group, at, hosts in drain(network))
        seen.append((ends, network.usage().bytes.tolist(), network.usage().busy.tolist()))
        used.append((amid.bytes.tolist(), amid.busy.tolist()))
    assert seen[0] == seen[1]
    assert used[0] == used[1]
    assert (seen[0] == seen[2]) >= (share == 1.0)
    assert seen[0][1:] == seen[2][1:]


@pytest.mark.parametrize("level", [Chunk, CutThrough])
def test_only_shared_links_revoke_leases(level):
    topology = build(RAILS)
    inside = topology.link_domain == topology.domains.index("nvlink")
    for mask, live in ((inside, False), (None, True)):
        network = level(topology, uncontended=mask)
        for _ in range(3):
            network.start(single(0, 1, 1000), 0)
        drain(network)
        assert (network.events > 0) == live


@pytest.mark.parametrize("level", [Chunk, CutThrough])
def test_uncontended_links_that_die_lose_what_is_on_them(level):
    """100 ps into a message of 2000 ps a hop its first link dies; it is sent again, whole, once the link is back."""
    topology = star(3, 50e9, 1000)
    bandwidth = topology.link_bandwidth.copy()
    network = level(topology, uncontended=np.ones(topology.links, dtype=np.bool_))
    network.start(single(0, 1, 100), 0)
    assert network.run_until(100) == []
    bandwidth[topology.paths(np.array([0], np.int32), np.array([1], np.int32))[1][0]] = 0
    network.change(dataclasses.replace(topology, link_bandwidth=bandwidth))
    assert network.retransmitted == 100
    network.start(single(0, 2, 100), 100)  # on the dead link as well: no lease may answer this
    assert network.run_until(10_000) == []
    network.change(topology)
    assert [(done.group, done.at) for done in drain_reports(network)] == [(0, 14_000), (1, 14_000)]


def drain_reports(network):
    reports = []
    while network.next_event() < NEVER:
        reports += network.run_until(NEVER)
    return sorted(reports, key=lambda done: done.group)


@pytest.mark.parametrize("level", [Chunk, CutThrough])
def test_a_mask_must_have_an_entry_a_link(level):
    with pytest.raises(ConfigError, match="one a link"):
        level(star(3), uncontended=np.ones(2, dtype=np.bool_))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_law_1_every_byte_is_carried_whatever_the_mix(seed):
    topology = build(RAILS)
    transfers = random_transfers(16, 40, seed=seed)
    plain = build_network("analytic", topology)
    plain.start(transfers, 0)
    drain(plain)
    for spec in ("nvlink=analytic+*=fluid", "nvlink=analytic+*=chunk", "nvlink=cut_through+*=fluid", "nvlink=fluid+*=chunk"):
        network = build_network(spec, topology)
        network.start(transfers, 0)
        assert len(drain(network)) == 1
        assert network.usage().bytes.tolist() == plain.usage().bytes.tolist()


def test_a_collective_inside_a_node_does_not_feel_the_fabrics_level():
    topology = build(RAILS)
    ring = place(schedule("ring", Collective("all_reduce", 4, 1 << 24)), np.arange(4, dtype=np.int32))
    alone = _time("analytic", ring, topology)
    assert _time("nvlink=analytic+*=chunk", ring, topology) == alone
    assert _time("nvlink=cut_through+*=chunk", ring, topology) == alone


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ("nvlnk=analytic+*=fluid", UnknownNameError, "Nearest: nvlink"),
        ("nvlink=analytic", ConfigError, "no level for the links of rail"),
        ("nvlink=analytic+nvlink=fluid", ConfigError, "named twice"),
        ("nvlink=fluid+*=", ConfigError, "'*=' names no level"),
        ("nvlink=loggops+*=fluid", ConfigError, "loggops is no level"),
        ("nvlink=analytc+*=fluid", UnknownNameError, "Nearest: analytic"),
        ("nvlink=fluid:cep=3+*=chunk", ConfigError, "unknown key 'cep'"),
    ],
)
def test_bad_mixtures_are_refused(spec, error, said):
    with pytest.raises(error) as caught:
        build_network(spec, build(RAILS))
    assert said in str(caught.value)
