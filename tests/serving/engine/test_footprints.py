"""Who uses which links, and who may meet whom."""

from __future__ import annotations

import numpy as np
import pytest
from building import graph, program
from hypothesis import given
from hypothesis import strategies as st

from distsim.engine.placement import CollectiveOptions, Placer
from distsim.engine.task import CollectiveCall
from distsim.errors import ConfigError
from distsim.serving.deployment import Deployment
from distsim.serving.network.footprint import Use, alike, contended, meeting, of_replica, of_trace, routes
from distsim.serving.network.seating import Seating
from distsim.serving.network.stage_graph import Ranks
from distsim.topology.spec import build
from distsim.trace.graph import CollectiveType, NodeType

BOXES = build("dgx_h100:gpus=32", None)
TREE = build("fat_tree:tiers=2,k=2,pods=2,hosts_per_leaf=4", None)


@pytest.mark.parametrize("algorithm", ["direct", "ring", "double_binary_tree"])
@pytest.mark.parametrize("topology", [BOXES, TREE])
def test_a_collective_stays_within_its_footprint(topology, algorithm):
    deployment = Deployment.of(model="llama3-8b", gpu="h100", tp=4, pp=2)
    uses = {(use.owner[-1], use.group): use.links for use in of_replica(topology, range(8), deployment, ("r",))}
    placer = Placer(topology, range(8))
    for stage in range(2):
        group = Ranks(deployment).groups(stage, "tp")[0]
        call = CollectiveCall(("g", 0), "all_reduce", 1000, group, algorithm=algorithm)
        transfers, _ = placer.collective(call, CollectiveOptions())
        links = topology.paths(transfers.src, transfers.dst)[1]
        assert uses[stage, "tp"][links].all()


@given(st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 9), min_size=1)), max_size=6))
def test_contended_is_what_two_owners_use(found):
    uses = []
    for owner, links in found:
        mask = np.zeros(10, np.bool_)
        mask[list(links)] = True
        uses.append(Use((owner,), "g", mask))
    for use, flag in zip(uses, contended(uses), strict=True):
        others = [other for other in uses if other.owner != use.owner]
        assert flag == any((other.links & use.links).any() for other in others)
    assert meeting(uses)[0] == sum(len({use.owner for use in uses if use.links[link]}) > 1 for link in range(10))


def test_groups_that_meet_each_other_are_contended():
    moe = Deployment.of(model="qwen3-30b-a3b", gpu="h100", tp=2, dp=2, ep=4)
    boxed = {use.group: use for use in of_replica(BOXES, range(4), moe, ("r",))}
    assert not any(use.among for use in boxed.values())
    across = {use.group: use for use in of_replica(TREE, (0, 4, 1, 5), moe, ("r",))}
    assert across["tp"].among
    assert contended([across["tp"]]) == [True]


def test_alike_is_up_to_names_of_links():
    assert alike(BOXES, range(8)) == alike(BOXES, range(8, 16))
    assert alike(BOXES, range(8)) != alike(BOXES, range(4, 12))
    assert alike(TREE, (0, 1)) == alike(TREE, (6, 5)) != alike(TREE, (3, 4))


def test_a_trace_uses_the_routes_of_its_groups_and_messages():
    rows = [
        (0, NodeType.COMM_COLL, [], {"collective": CollectiveType.ALL_REDUCE, "bytes": 8}),
        (1, NodeType.COMM_SEND, [0], {"peer": 1, "bytes": 8}),
    ]
    use = of_trace(graph(program(rows), program(rows[:1])), TREE, (0, 5), ("t",))
    assert np.array_equal(use.links, routes(TREE, [(0, 5), (5, 0)]))


def test_a_replica_is_not_spread_over_two_boxes_without_need():
    seating = Seating(BOXES, range(32))
    assert [seating.take(ranks)[1] for ranks in (4, 8, 2)] == [(0, 1, 2, 3), tuple(range(8, 16)), (16, 17)]
    assert seating.take(12)[1] == tuple(range(18, 30))  # no box begins with room for it


def test_seats_run_out():
    seating = Seating(BOXES, range(4, 20), first=10)
    assert seating.take(8) == (14, tuple(range(8, 16)))  # not over two boxes
    with pytest.raises(ConfigError, match=r"4 of the service.s 16 are left"):
        seating.take(8)
