"""What NCCL sees of a communicator: GPUs, ranks, nodes (NVLink domains), rings inside a node, NICs between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from distsim.errors import CollectiveError, ConfigError, TopologyError, UnknownNameError
from distsim.hardware.gpu import gpu
from distsim.nccl.constants import GENERATIONS, MAX_CHANNELS, Generation
from distsim.nccl.gpus import GPUS, Gpu, gpu_name
from distsim.topology.graph import Topology

#: fabric -> (us that NCCL's choice reckons with, us that a message spends beyond NCCL's own hop latency). NCCL's InfiniBand
#: plugin (RoCE too) reports 0 (``net_ib``). aws-ofi-nccl reports 75 for p4d and p5, but brings a tuner that puts measured
#: regions in place of NCCL's choice, so that what it really takes stands in both. The second is the way GPU flag, CPU
#: proxy, NIC, switches, NIC, CPU proxy, GPU flag, most of which NCCL's hop (2.7 us for LL) leaves out.
FABRICS = {"ib": (0.0, 5.0), "roce": (0.0, 5.0), "efa": (20.0, 20.0)}
DEFAULT_FABRIC = "ib"
NVLINK, PCIE = "nvlink", "pcie"
#: link classes inside a box: what they connect is one of NCCL's nodes
LOCAL = (NVLINK, PCIE)


@dataclass(frozen=True, slots=True)
class System:
    """One communicator. A node is an NVLink domain, or the GPUs of one box where there is none.

    Attributes:
        gpu: name in ``gpus.GPUS``.
        ranks, nodes: at least 2 ranks, at most as many nodes. Where ranks are not even over nodes, only rings are modelled.
        nics: of the ranks of one node; nic_rate: GB/s of each. Not used with one node.
        fabric: key of FABRICS.
        cpu: intel, amd or arm: bounds LL between nodes, and the cost of posting to the network.
        nvls: the NVLink switch can reduce (data type included: no 8-bit integers).
        collnet: switches between nodes can reduce (SHARP).
        fullest: ranks of the fullest node; 0: they are as even as can be.
        nvlink: rate of its NVLink over the GPU's own, where all ranks are on one node (what-if studies).
    """

    gpu: str
    ranks: int
    nodes: int = 1
    nics: int = 0
    nic_rate: float = 0.0
    fabric: str = DEFAULT_FABRIC
    cpu: str = "intel"
    nvls: bool = True
    collnet: bool = False
    fullest: int = 0
    nvlink: float = 1.0

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise UnknownNameError("GPU", self.gpu, GPUS)
        if self.fabric not in FABRICS:
            raise UnknownNameError("fabric", self.fabric, FABRICS)
        if self.ranks < 2:
            raise CollectiveError(f"NCCL with {self.ranks} ranks", expected="at least 2")
        if not 1 <= self.nodes <= self.ranks:
            raise CollectiveError(f"{self.ranks} ranks on {self.nodes} nodes", where="nccl", expected="1 to as many as ranks")
        if self.nodes > 1 and not (self.nics > 0 and self.nic_rate > 0):
            raise ConfigError(f"{self.nodes} nodes without a network", where="nccl", expected="NICs per node and their rate")

    @property
    def per_node(self) -> int:
        """Ranks of one node, of the fullest."""
        return max(self.fullest, -(-self.ranks // self.nodes))

    @property
    def even(self) -> bool:
        """Every node has as many ranks."""
        return self.ranks == self.nodes * self.per_node

    @property
    def kind(self) -> Gpu:
        """The GPU's row."""
        return GPUS[self.gpu]

    @property
    def generation(self) -> Generation:
        """NCCL's constants for the GPU."""
        return GENERATIONS[self.kind.generation]

    @property
    def net_rate(self) -> float:
        """GB/s that one node sends to others."""
        return self.nics * self.nic_rate

    @property
    def reported_us(self) -> float:
        """Network latency that the plugin tells NCCL."""
        return FABRICS[self.fabric][0]

    @property
    def fabric_us(self) -> float:
        """Network latency beyond NCCL's own hop."""
        return FABRICS[self.fabric][1]

    @property
    def rings(self) -> int:
        """Channels that the topology search finds: between nodes, one per NIC (at least 2, at most 16)."""
        return self.kind.rings if self.nodes == 1 else min(16, max(2, self.nics))

    @property
    def ring_rate(self) -> float:
        """GB/s of one channel inside a node."""
        if self.nodes == 1:
            return self.kind.ring_rate
        return _speed(self.kind.rate / self.rings, self.generation.speeds + self.generation.net_speeds)

    @property
    def ring_net_rate(self) -> float:
        """GB/s of one channel between nodes."""
        return _speed(self.net_rate / self.rings, self.generation.net_speeds) if self.nodes > 1 else self.ring_rate

    @property
    def channels(self) -> int:
        """Channels at run time: the search's, doubled."""
        return min(MAX_CHANNELS, 2 * self.rings)

    @property
    def heads(self) -> int:
        """GPUs of a node that own a shard under NVLS (NCCL_MAX_NVLS_ARITY = 32)."""
        return min(32, self.per_node)

    @property
    def head_rate(self) -> float:
        """GB/s of one NVLS head."""
        return _speed(self.kind.rate / self.heads, self.generation.speeds)

    @property
    def has_nvls(self) -> bool:
        """NVLink SHARP is there; NCCL wants more than two GPUs behind the switch."""
        return self.nvls and self.kind.link == NVLINK and self.generation.nvls_share > 0 and self.per_node > 2


def _speed(rate: float, ladder: Sequence[float]) -> float:
    """The fastest speed of the search's ladder that a rate allows; below the ladder the rate itself."""
    return max((speed for speed in ladder if speed <= rate + 1e-9), default=rate)


def system_of(
    gpu: str, ranks: int, nodes: int = 1, nics: int | None = None, nic_rate: float | None = None, *,
    fabric: str = DEFAULT_FABRIC, nvls: bool = True, collnet: bool = False,
) -> System:  # fmt: skip
    """The system of a GPU by name.

    Args:
        gpu: ``h100``, ``NVIDIA A100-SXM4-80GB`` ...
        ranks: of the communicator, even over the nodes.
        nodes: boxes that the ranks are in. Boxes of one NVL72 rack (gb200, gb300) are folded into one NVLink domain.
        nics: of one box, for the ranks there (default: the GPU's usual share).
        nic_rate: bytes/s of each (default: usual).
        fabric: ib, roce or efa.
        nvls, collnet: see System.

    Raises: UnknownNameError, CollectiveError (ranks not even over nodes), ConfigError.
    """
    name = gpu_name(gpu)
    kind = GPUS[name]
    if nodes < 1 or ranks % max(nodes, 1):
        raise CollectiveError(f"{ranks} ranks are not even over {nodes} nodes", where="nccl", expected="a divisor")
    per_node = ranks // nodes
    if nics is None:
        nics = max(1, kind.nics * per_node // kind.per_node)
    if nics < 1 or (nic_rate is not None and not nic_rate > 0):
        raise ConfigError(f"{nics} NICs of {nic_rate} bytes/s", where="nccl", expected="at least one, with a positive rate")
    domains = nodes
    if kind.domain > kind.per_node and per_node <= kind.per_node:
        least = -(-ranks // kind.domain)
        domains = next(count for count in range(least, nodes + 1) if nodes % count == 0)
    rate = kind.nic_rate if nic_rate is None else nic_rate / 1e9
    return System(name, ranks, domains, nics * (nodes // domains), rate, fabric, kind.cpu, nvls, collnet)


def _of_classes(topology: Topology, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Which links are of these classes."""
    return np.isin(topology.link_domain, [number for number, name in enumerate(topology.domains) if name in classes])


@lru_cache(maxsize=8)
def _domains(topology: Topology) -> NDArray[np.int64]:
    """Box of every network node: the lowest number among those that it reaches over local links."""
    label = np.arange(topology.nodes, dtype=np.int64)
    mine = _of_classes(topology, LOCAL)
    src, dst = topology.link_src[mine], topology.link_dst[mine]
    while True:
        before = label.copy()
        np.minimum.at(label, dst, label[src])
        label = label[label]
        if np.array_equal(before, label):
            return label


@lru_cache(maxsize=8)
def _ports(topology: Topology) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Per host: ports to other boxes and bytes/s of all of them; whether it has an NVLink.

    A NIC behind PCIe counts once for all GPUs of its box that share it: each has its part.
    """
    local = _of_classes(topology, LOCAL)
    count = np.bincount(topology.link_src[~local], minlength=topology.nodes).astype(np.float64)
    widths = topology.link_bandwidth[~local]
    rate = np.asarray(np.bincount(topology.link_src[~local], weights=widths, minlength=topology.nodes), dtype=np.float64)
    pcie = np.flatnonzero(_of_classes(topology, (PCIE,)) & (topology.link_src < topology.hosts))
    sharers = np.bincount(topology.link_dst[pcie], minlength=topology.nodes)
    for link in pcie:
        host, card = topology.link_src[link], topology.link_dst[link]
        count[host] += count[card] / sharers[card]
        rate[host] += min(topology.link_bandwidth[link], rate[card] / sharers[card])
    linked = np.bincount(topology.link_src[_of_classes(topology, (NVLINK,))], minlength=topology.nodes) > 0
    return count[: topology.hosts], rate[: topology.hosts], linked[: topology.hosts]


@lru_cache(maxsize=8)
def _nvlinks(topology: Topology) -> NDArray[np.float64]:
    """bytes/s that every host sends over NVLink."""
    mine = _of_classes(topology, (NVLINK,))
    rates = np.bincount(topology.link_src[mine], weights=topology.link_bandwidth[mine], minlength=topology.nodes)
    return np.asarray(rates[: topology.hosts], dtype=np.float64)


def node_of_hosts(topology: Topology, hosts: Sequence[int]) -> list[int]:
    """NCCL's node of each host, numbered by first use. Raises TopologyError on a number that is not a host."""
    numbers: dict[int, int] = {}
    label = _domains(topology)
    for host in hosts:
        if not 0 <= host < topology.hosts:
            raise TopologyError(f"there is no host {host}", where=topology.name, expected=f"0 to {topology.hosts - 1}")
    return [numbers.setdefault(int(label[host]), len(numbers)) for host in hosts]


def box_of_hosts(topology: Topology) -> NDArray[np.int64]:
    """A number for the node of every host: equal where NCCL sees one node."""
    return _domains(topology)[: topology.hosts]


def traits_of_hosts(topology: Topology) -> NDArray[np.int64]:
    """A number for all that :func:`system_of_topology` looks at in a host: equal where hosts can stand for each other."""
    ports, rates, linked = _ports(topology)
    device = np.zeros(topology.hosts) if topology.host_device is None else topology.host_device
    table = np.stack([device.astype(np.float64), ports, rates, linked.astype(np.float64), _nvlinks(topology)], axis=1)
    return np.unique(table, axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def system_of_topology(
    topology: Topology, hosts: Sequence[int], *, fabric: str = DEFAULT_FABRIC, nvls: bool = True, collnet: bool = False
) -> System:
    """The system of ranks that sit on these hosts.

    NCCL's nodes are what links of class ``nvlink`` and ``pcie`` connect; NICs are the other links, of the group's hosts or of
    the cards that they reach over ``pcie``. The rate of NVLink is NCCL's for that GPU, times what the topology's links are over
    the GPU's own. Of several kinds of GPU the oldest counts, of several nodes the one with the slowest network.

    Raises:
        TopologyError: the topology does not say what devices its hosts are, or a host has no link to other nodes.
        UnknownNameError: a device that is no GPU of NCCL's.
        CollectiveError: fewer than two hosts.
    """
    if not topology.devices:
        raise TopologyError(
            "does not say which GPUs its hosts are", where=topology.spec, expected="devices, such as h100",
            fix="Take a cluster preset (distsim topo lists them), or another --collectives.",
        )  # fmt: skip
    nodes = node_of_hosts(topology, hosts)
    count = Counter(nodes)
    kinds = {gpu_name(name, where=topology.spec) for name in {topology.device(host) for host in hosts}}
    # NCCL goes by the lowest compute capability of a communicator
    name = min(kinds, key=lambda kind: (list(GENERATIONS).index(GPUS[kind].generation), GPUS[kind].rate, kind))
    ports, rates, linked = _ports(topology)
    members = np.asarray(hosts, dtype=np.int64)
    if len(hosts) > len(count) and not linked[members].all() and f"{name}_pcie" in GPUS:
        name = f"{name}_pcie"
    nics, rate = 0, 0.0
    if len(count) > 1:
        if not ports[members].all():
            lost = topology.node_names[int(members[ports[members] == 0][0])]
            raise TopologyError(f"{lost} has no link out of its box, yet its group spans several", where=topology.spec)
        # NOTE: the slowest node sets the pace of every ring
        totals = np.bincount(nodes, weights=rates[members])
        slowest = int(totals.argmin())
        nics = max(1, round(float(ports[members][np.asarray(nodes) == slowest].sum())))
        rate = float(totals[slowest]) / nics / 1e9
    fullest = max(count.values())
    even = fullest * len(count) == len(hosts)
    usual = gpu(name).nvlink if len(count) == 1 and GPUS[name].link == NVLINK else 0.0
    own = float(_nvlinks(topology)[members].min()) / usual if usual else 0.0
    return System(
        name, len(hosts), len(count), nics, rate, fabric, GPUS[name].cpu, nvls, collnet, 0 if even else fullest, own or 1.0
    )  # fmt: skip
