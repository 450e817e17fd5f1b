"""Shared by the tests of NCCL's schedules: plans, groups, and what a schedule takes on idle links."""

from __future__ import annotations

import numpy as np

from distsim.collectives.schedule import Collective
from distsim.engine.placement import place
from distsim.nccl.model import plan as plan_for
from distsim.nccl.plan import Plan
from distsim.nccl.schedules.build import schedule_of
from distsim.nccl.schedules.grouping import Grouping
from distsim.nccl.schedules.wires import Wire, Wires, wires_of
from distsim.nccl.system import system_of_topology
from distsim.network.model import NEVER
from distsim.network.spec import build_network
from distsim.topology.spec import build

US = 1_000_000
MIB = 1 << 20
#: NVLink at 450 GB/s, NICs at 50 GB/s
WIRES = Wires(Wire(1e6, 1e12 / 450e9), Wire(1e6, 20.0), Wire(2e6, 20.0))


def grouped(nodes, per_node):
    return Grouping.of([member // per_node for member in range(nodes * per_node)])


def whole(collective):
    return collective.bytes * (collective.size if collective.operation == "all_gather" else 1)


def handmade(collective, nodes, algorithm, *, channels=16, chunk=512 << 10, slices=1, time_us=None, hop_us=2):
    """A plan that no model made: 300 GB/s inside, 8 us before the first byte."""
    size = whole(collective)
    time = 8 * US + size * 8 + collective.size * 4 * US if time_us is None else time_us * US
    return Plan(
        collective.operation, algorithm, "simple", size, collective.size, nodes, channels, chunk, slices, 8 * US, hop_us * US,
        14 * US, 300e9, 330e9 if nodes > 1 else 0.0, time,
    )  # fmt: skip


def cluster(nodes, per_node=8):
    return build(f"rail_optimized:nodes={nodes},gpus_per_node={per_node},device=h100")


def modelled(topology, operation, size, algorithm=""):
    """The collective of all hosts on ``size`` bytes as NCCL counts them, and its plan."""
    hosts = list(range(topology.hosts))
    each = size // len(hosts) if operation == "all_gather" else size
    plan = plan_for(operation, size, system_of_topology(topology, hosts), None, algorithm)
    return Collective(operation, len(hosts), each), plan


def placed(plan, collective, topology, level, grouping, *, pxn=True):
    """(network with nothing started, transfers)."""
    network = build_network(level, topology)
    stores = getattr(network, "stores", 0.0)
    hosts = np.arange(topology.hosts, dtype=np.int32)
    made = schedule_of(plan, collective, grouping, wires_of(topology, hosts, grouping, stores), pxn=pxn)
    return network, place(made.timed(), hosts)


def alone(plan, collective, topology, level, grouping, *, pxn=True):
    """(ps on idle links, use of links)."""
    network, transfers = placed(plan, collective, topology, level, grouping, pxn=pxn)
    network.start(transfers, 0)
    (done,) = network.run_until(NEVER)
    return done.at, network.usage()
