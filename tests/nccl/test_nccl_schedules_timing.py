"""NCCL's schedules on networks: what the closed form says on idle links, more where others use them, even over rails."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from nccl_schedules import MIB, alone, cluster, grouped, handmade, modelled, placed

from distsim.collectives.check import check
from distsim.collectives.schedule import Collective
from distsim.errors import CollectiveError
from distsim.nccl.schedules import nvls, tree
from distsim.nccl.schedules.build import schedule_of
from distsim.nccl.schedules.wires import wires_of
from distsim.network.model import NEVER
from distsim.network.spec import build_network
from distsim.topology.spec import build

LEVELS = ("cut_through", "chunk", "fluid")
#: the bar of the issue: above 1 MiB
TOLERANCE = 0.03
IDLE = [
    (operation, algorithm, nodes, sizes)
    for operation, algorithm in [
        ("all_reduce", "ring"), ("all_gather", "ring"), ("reduce_scatter", "ring"), ("all_reduce", "tree"),
        ("all_reduce", "nvls"), ("all_gather", "nvls"), ("reduce_scatter", "nvls"), ("all_reduce", "nvls_tree"),
        ("all_to_all", ""),
    ]
    for nodes, sizes in [(1, (2, 64, 1024)), (2, (2, 64, 1024)), (4, (2, 64)), (16, (4,))]
    if not (algorithm == "nvls" and nodes > 1) and not (algorithm == "nvls_tree" and nodes == 1)
]  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("operation", "algorithm", "nodes", "sizes"), IDLE)
def test_idle_links_take_the_closed_form(operation, algorithm, nodes, sizes, level):
    topology = cluster(nodes)
    for size in sizes:
        collective, plan = modelled(topology, operation, size * MIB, algorithm)
        time, _ = alone(plan, collective, topology, level, grouped(nodes, 8))
        assert time == pytest.approx(plan.time_ps, rel=TOLERANCE), (size, plan.protocol, plan.channels)


#: operation, algorithm, whether all_to_all goes by rail
SHAPES = [
    ("all_reduce", "ring", True), ("all_gather", "ring", True), ("reduce_scatter", "ring", True), ("broadcast", "ring", True),
    ("reduce", "ring", True), ("all_reduce", "tree", True), ("all_reduce", "nvls_tree", True), ("all_to_all", "", True),
    ("all_to_all", "", False),
]  # fmt: skip


def off_by(operation, algorithm, nodes, size, level, *, pxn=True):
    """Relative error of a schedule on idle links, from the closed form."""
    topology = cluster(nodes)
    collective, plan = modelled(topology, operation, size, algorithm)
    return alone(plan, collective, topology, level, grouped(nodes, 8), pxn=pxn)[0] / plan.time_ps - 1


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("operation", "algorithm", "pxn"), SHAPES)
def test_odd_nodes_and_large_messages(operation, algorithm, pxn, level):
    for nodes, size in ((3, 1024), (5, 1), (7, 64)):
        assert abs(off_by(operation, algorithm, nodes, size * MIB, level, pxn=pxn)) <= TOLERANCE, (nodes, size)


@pytest.mark.parametrize(
    ("operation", "algorithm", "nodes", "size", "level"),
    [
        ("all_reduce", "tree", 128, 1024, "cut_through"), ("all_reduce", "nvls_tree", 128, 8192, "chunk"),
        ("all_reduce", "ring", 100, 1024, "chunk"), ("all_to_all", "", 128, 8192, "chunk"),
        ("all_reduce", "nvls_tree", 32, 8192, "fluid"), ("all_reduce", "ring", 32, 8192, "fluid"),
    ],
)  # fmt: skip
def test_large_groups(operation, algorithm, nodes, size, level):
    assert abs(off_by(operation, algorithm, nodes, size * MIB, level)) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("nodes", [3, 12, 32, 100, 128])
@pytest.mark.parametrize(("operation", "algorithm"), [(operation, algorithm) for operation, algorithm, pxn in SHAPES if pxn])
def test_every_size_of_group(operation, algorithm, nodes, level):
    for size in (1, 8192):
        assert abs(off_by(operation, algorithm, nodes, size * MIB, level)) <= TOLERANCE, size


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("nodes", [3, 12])
def test_messages_of_every_pair(nodes, level):
    """PXN off. Beyond a dozen nodes rows run out on chunk (docs/collectives.md); 1,024 ranks would have a million messages."""
    for size in (1, 8192):
        assert abs(off_by("all_to_all", "", nodes, size * MIB, level, pxn=False)) <= TOLERANCE, size


@pytest.mark.parametrize("algorithm", ["tree", "nvls_tree"])
def test_streams_put_the_same_bytes_on_the_same_links(monkeypatch, algorithm):
    topology = cluster(4)
    collective, plan = modelled(topology, "all_reduce", 64 * MIB, algorithm)
    used = []
    for busy in (10.0, 0.0):
        monkeypatch.setattr(tree, "BUSY", busy)
        monkeypatch.setattr(nvls, "BUSY", busy)
        time, usage = alone(plan, collective, topology, "cut_through", grouped(4, 8))
        assert time == pytest.approx(plan.time_ps, rel=TOLERANCE)
        used.append(usage.bytes)
    assert used[1] == pytest.approx(used[0], rel=0.001, abs=2000)  # cut elsewhere: a byte a piece
    hosts = np.arange(topology.hosts, dtype=np.int32)
    made = schedule_of(plan, collective, grouped(4, 8), wires_of(topology, hosts, grouped(4, 8)))
    with pytest.raises(CollectiveError, match="too coarse"):
        check(made.schedule, collective)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("per_node", [2, 3, 8])
@pytest.mark.parametrize(
    ("operation", "algorithm"),
    [("all_reduce", "ring"), ("all_gather", "ring"), ("broadcast", "ring"), ("reduce", "ring"), ("all_reduce", "tree"),
     ("all_to_all", "p2p")],
)  # fmt: skip
def test_a_switch_of_450_GBps(operation, algorithm, per_node, level):
    topology = build(f"switch:hosts={per_node},bandwidth=450GBps,latency=250ns")
    for size in (4 * MIB, 256 * MIB):
        collective = Collective(operation, per_node, size // per_node if operation == "all_gather" else size)
        moved = {"all_to_all": 1.0, "all_gather": 1.0, "broadcast": 1.0, "reduce": 1.0}.get(operation, 2.0)
        plan = handmade(collective, 1, algorithm, channels=24, slices=2, time_us=30 + int(moved * size / 340e3), hop_us=1)
        time, _ = alone(plan, collective, topology, level, grouped(1, per_node))
        assert time == pytest.approx(plan.time_ps, rel=TOLERANCE)


@pytest.mark.parametrize("level", ["cut_through", "chunk:size=256KiB"])
def test_pieces_that_the_level_cuts_do_not_make_it_slower(level):
    topology = cluster(2)
    for operation, algorithm in (("all_reduce", "ring"), ("all_to_all", "")):
        collective, plan = modelled(topology, operation, 64 * MIB, algorithm)
        time, _ = alone(plan, collective, topology, level, grouped(2, 8))
        assert time == pytest.approx(plan.time_ps, rel=TOLERANCE)


@pytest.mark.parametrize(("operation", "algorithm"), [("all_gather", "pat"), ("reduce_scatter", "pat"), ("all_reduce", "tree")])
def test_one_gpu_per_node(operation, algorithm):
    topology = cluster(8, 1)
    collective, plan = modelled(topology, operation, 64 * MIB, algorithm)
    for level in LEVELS:
        assert alone(plan, collective, topology, level, grouped(8, 1))[0] == pytest.approx(plan.time_ps, rel=TOLERANCE)


def nic_bytes(topology, usage):
    """Bytes from every host to its rail switch."""
    out = (topology.link_src < topology.hosts) & (topology.link_domain == topology.domains.index("rail"))
    assert out.sum() == topology.hosts
    return usage.bytes[out]


@pytest.mark.parametrize("nodes", [2, 3, 4])
@pytest.mark.parametrize(
    ("operation", "algorithm"),
    [("all_reduce", "ring"), ("all_gather", "ring"), ("all_reduce", "nvls_tree"), ("all_to_all", "")],
)
def test_rails_carry_the_same(operation, algorithm, nodes):
    topology = cluster(nodes)
    collective, plan = modelled(topology, operation, 64 * MIB, algorithm)
    _, usage = alone(plan, collective, topology, "cut_through", grouped(nodes, 8))
    by_rail = nic_bytes(topology, usage).reshape(nodes, 8)
    assert by_rail.min() > 0
    assert by_rail.sum(axis=0) == pytest.approx(by_rail.sum() / 8, rel=0.001)
    if operation == "all_gather":  # each of 8 rings brings each of its n segments over a boundary, less what is there already
        assert by_rail.sum(axis=1) == pytest.approx(64 * MIB * (8 * nodes - 1) / (8 * nodes), rel=0.001)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("operation", "algorithm"), [("all_reduce", "ring"), ("all_reduce", "tree"), ("all_to_all", "")])
def test_two_at_once_take_longer(operation, algorithm, level):
    topology = cluster(2)
    collective, plan = modelled(topology, operation, 64 * MIB, algorithm)
    network, transfers = placed(plan, collective, topology, level, grouped(2, 8))
    for _ in range(3):
        network.start(transfers, 0)
    last = 0
    while done := network.run_until(NEVER):
        last = done[-1].at
    assert last > 1.5 * plan.time_ps
    assert last < 3.3 * plan.time_ps


def test_slower_links_decide():
    """On NICs of an eighth of what the plan reckons with, bytes over links are the time."""
    collective, plan = modelled(cluster(2), "all_reduce", 64 * MIB, "ring")
    slow = build("rail_optimized:nodes=2,bandwidth=50Gbps,device=h100")
    time, usage = alone(plan, collective, slow, "cut_through", grouped(2, 8))
    needed = nic_bytes(slow, usage).max() / 6.25e9 * 1e12
    assert 2 * plan.time_ps < needed <= time < 1.15 * needed


def test_analytic_takes_the_closed_form_and_counts_links_all_the_same():
    topology = cluster(2)
    collective, plan = modelled(topology, "all_reduce", 64 * MIB)
    _, transfers = placed(plan, collective, topology, "analytic", grouped(2, 8))
    used = {}
    for name, alone_ps in (("rows", None), ("form", 123_456_789)):
        network = build_network("analytic", topology)
        network.start(dataclasses.replace(transfers, alone=alone_ps), 1000)
        (done,) = network.run_until(NEVER)
        used[name] = network.usage().bytes
        if alone_ps:
            assert done.at == 1000 + alone_ps
            assert set(done.host_end.values()) == {1000 + alone_ps}
            assert set(done.host_end) == set(range(16))
        else:
            assert done.at - 1000 == pytest.approx(plan.time_ps, rel=TOLERANCE)
    assert np.array_equal(used["rows"], used["form"])
