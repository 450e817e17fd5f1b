"""Loads of collectives: what goes in comes out, what crosses nodes is spread over rails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim.engine.loads import EXCHANGE, GATHER, RING, SCATTER, edges, factor, pattern_of, steps
from distsim.errors import CollectiveError, ConfigError


@st.composite
def laid_out(draw):
    """(hosts of some instances, node of every host)."""
    n, count = draw(st.integers(2, 12)), draw(st.integers(1, 3))
    node = np.array(draw(st.lists(st.integers(0, 4), min_size=n * count, max_size=n * count)))
    hosts = np.array(draw(st.permutations(range(n * count)))).reshape(count, n)
    return hosts, node


def sums(hosts, found, side):
    return np.bincount(getattr(found, side), found.share, hosts.size)


@given(layout=laid_out(), root=st.integers(0, 1))
def test_law_1_every_instance_has_its_own_edges_between_its_own_members(layout, root):
    hosts, node = layout
    for pattern in (RING, EXCHANGE, GATHER, SCATTER):
        found = edges(pattern, hosts, node, root)
        owner = np.empty(hosts.size, np.int64)
        owner[hosts] = np.arange(len(hosts))[:, None]
        assert (owner[found.src] == found.instance).all()
        assert (owner[found.dst] == found.instance).all()
        assert (found.src != found.dst).all()
        assert (found.share > 0).all()


@given(layout=laid_out())
def test_law_1_a_ring_hands_on_what_it_gets(layout):
    """One share leaves every node and one comes in, where there are several; one passes every member, where there is one."""
    hosts, node = layout
    found = edges(RING, hosts, node)
    apart = node[found.src] != node[found.dst]
    for instance in range(len(hosts)):
        nodes = set(node[hosts[instance]].tolist())
        mine = found.instance == instance
        for one in nodes:
            out = found.share[mine & apart & (node[found.src] == one)].sum()
            into = found.share[mine & apart & (node[found.dst] == one)].sum()
            assert (out, into) == pytest.approx((1.0, 1.0) if len(nodes) > 1 else (0.0, 0.0))
        if len(nodes) == 1:
            assert (sums(hosts, found, "src")[hosts[instance]] == 1).all()
            assert (sums(hosts, found, "dst")[hosts[instance]] == 1).all()


@pytest.mark.parametrize(("nodes", "local"), [(1, 4), (2, 4), (4, 8), (8, 1), (3, 2)])
def test_an_exchange_between_even_nodes_goes_by_rail(nodes, local):
    n = nodes * local
    hosts = np.arange(n)[None, :]
    node = np.arange(n) // local
    found = edges(EXCHANGE, hosts, node)
    apart = node[found.src] != node[found.dst]
    # between nodes every byte crosses once: each member's rail carries what its node sends to the others' rails
    assert (np.bincount(found.src[apart], found.share[apart], n) == local * (nodes - 1)).all()
    assert (found.src % local == found.dst % local)[apart].all() or local == 1
    # inside, a member hands over what is for the other local ranks of all nodes
    assert (np.bincount(found.src[~apart], found.share[~apart], n) == (local - 1) * nodes).all()


def test_uneven_nodes_exchange_directly():
    found = edges(EXCHANGE, np.arange(5)[None, :], np.array([0, 0, 0, 1, 1]))
    assert len(found.share) == 20
    assert set(found.share.tolist()) == {1.0}


def test_factors_and_steps_are_those_of_the_algorithms():
    assert factor("all_reduce", 100, 4) / 4 == 150
    assert factor("all_gather", 100, 4) / 4 == 300
    assert factor("reduce_scatter", 100, 4) / 4 == factor("broadcast", 100, 4) / 4 == factor("reduce", 100, 4) / 4 == 75
    assert factor("all_to_all", 100, 4) / 4 == factor("scatter", 100, 4) / 4 == 25
    assert factor("gather", 100, 4) / 4 == 100
    assert factor("barrier", 100, 4) == 0
    assert [steps(one, 8) for one in ("all_reduce", "all_gather", "all_to_all", "gather")] == [14, 7, 1, 1]


def test_what_cannot_be_laid_out_is_refused():
    with pytest.raises(CollectiveError, match="no pattern of links for all_swap"):
        pattern_of("all_swap")
    with pytest.raises(ConfigError, match="an exchange of 1 x 3000 ranks has 9,000,000 edges"):
        edges(EXCHANGE, np.arange(3000)[None, :], np.arange(3000))
