"""Clusters of several node types from YAML: what is built, who sits where, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distsim.errors import TopologyError
from distsim.topology.check import check_topology
from distsim.topology.graph import Topology
from distsim.topology.routed import routed
from distsim.topology.spec import build

CLUSTER = """\
node_types:
  big:
    gpus: 4
    device: h100
    nvlink: {bandwidth: 450GBps, latency: 500ns}
    nics: {count: 4, bandwidth: 400Gbps, latency: 500ns, to: "leaf[*]", pairs: cyclic}
  store:
    nics: {count: 2, bandwidth: 100Gbps, latency: 1us, to: "leaf[0-1]", pairs: cyclic}
nodes: {big: 2, store: 1}
switches: {leaf: 4, spine: 1}
link_types:
  up: {bandwidth: 800Gbps, latency: 500ns}
links:
  - {from: "leaf[*]", to: spine0, type: up}
"""

TIE = """\
node_types:
  box:
    gpus: 4
    nvlink: {bandwidth: 450GBps, latency: 500ns}
    nics: {count: 4, bandwidth: 400Gbps, latency: 500ns, to: leaf0, domain: fabric}
nodes: {box: 2}
switches: [leaf0]
"""


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def route(topology: Topology, start: str, end: str) -> tuple[list[str], list[float]]:
    """Names of the nodes that a route visits, and the bandwidths of its links in GB/s."""
    at = {name: node for node, name in enumerate(topology.node_names)}
    links = topology.paths(np.array([at[start]], np.int32), np.array([at[end]], np.int32))[1]
    rates = (topology.link_bandwidth[links] / 1e9).tolist()
    return [topology.node_names[node] for node in topology.link_dst[links]], rates


def test_the_shipped_mixed_cluster() -> None:
    mixed = build("mixed_h100_a100.yaml")
    assert mixed.hosts == 4 * 8 + 8 * 8 + 2
    assert mixed.devices == ("h100", "a100", "")
    assert [mixed.device(host) for host in (0, 31, 32, 95, 96, 97)] == ["h100", "h100", "a100", "a100", "", ""]
    assert route(mixed, "h100.gpu0", "h100.gpu7") == (["h100.nvswitch0", "h100.gpu7"], [450, 450])
    assert route(mixed, "a100.gpu8", "a100.gpu15") == (["a100.nvswitch1", "a100.gpu15"], [300, 300])
    assert route(mixed, "h100.gpu3", "a100.gpu11") == (["leaf3", "a100.gpu11"], [50, 25])
    stops, rates = route(mixed, "h100.gpu3", "a100.gpu12")
    assert [stops[0], stops[1][:5], *stops[2:]] == ["leaf3", "spine", "leaf4", "a100.gpu12"]
    assert rates == [50, 50, 50, 25]
    assert route(mixed, "storage1", "h100.gpu1") == (["leaf1", "h100.gpu1"], [12.5, 50])
    assert route(mixed, "storage0", "a100.gpu7") == (["leaf7", "a100.gpu7"], [3.125, 25])
    check_topology(mixed, host_forwarding=False)


def test_names_counts_and_domains(file) -> None:
    topology = build(file(CLUSTER))
    switches = ("big.nvswitch0", "big.nvswitch1", "leaf0", "leaf1", "leaf2", "leaf3", "spine0")
    assert topology.node_names == (*(f"big.gpu{gpu}" for gpu in range(8)), "store0", *switches)
    assert topology.domains == ("nvlink", "nic", "up")
    assert topology.links == 2 * (8 + 8 + 2 + 4)
    assert topology.levels == ()
    alike = (
        CLUSTER.replace(", store: 1}", "}").replace("  store:\n    nics", "  # ").replace("nodes: {big: 2", "nodes: {big: 3")
    )
    assert build(file(alike)).levels == (4, 3)


def test_shared_nics_stand_between_the_gpus_and_the_fabric(file) -> None:
    text = CLUSTER.replace("    nics: {count: 4", "    pcie: {bandwidth: 64GBps, latency: 200ns}\n    nics: {count: 2")
    topology = build(file(text))
    stops, rates = route(topology, "big.gpu1", "big.gpu4")
    assert stops == ["big.nic0", "leaf0", "spine0", "leaf2", "big.nic2", "big.gpu4"]
    assert rates == [64, 50, 100, 100, 50, 64]
    check_topology(topology, host_forwarding=False)


def test_two_ports_on_two_planes(file) -> None:
    text = CLUSTER.replace(
        'nics: {count: 4, bandwidth: 400Gbps, latency: 500ns, to: "leaf[*]", pairs: cyclic}',
        'nics:\n      - {count: 4, bandwidth: 200Gbps, latency: 500ns, to: "leaf[0-1]", pairs: cyclic, domain: a}\n'
        '      - {count: 4, bandwidth: 200Gbps, latency: 500ns, to: "leaf[2-3]", pairs: cyclic, domain: b}',
    )
    topology = build(file(text))
    assert topology.domains == ("nvlink", "a", "b", "nic", "up")
    ports = {topology.node_names[node] for node in topology.link_dst[topology.link_src == 5]}
    assert ports == {"big.nvswitch1", "leaf1", "leaf3"}


def test_devices_of_plain_graphs(file) -> None:
    plain = "hosts: {node: 3, box: 1}\nswitches: [hub]\nlink_types: {w: {bandwidth: 1GB/s, latency: 0}}\n"
    plain += 'links: [{from: ["node[*]", "box[*]"], to: hub, type: w}]\n'
    everywhere = build(file(plain + "devices: a100\n"))
    assert (everywhere.devices, everywhere.host_device) == (("a100",), None)
    some = build(file(plain + 'devices: {"node[0-1]": h100, box: b200}\n'))
    assert [some.device(host) for host in range(4)] == ["h100", "h100", "", "b200"]
    assert build(file(plain)).device(0) == ""
    assert build(file("spec: switch:hosts=4,device=h200")).device(3) == "h200"
    assert build(file("spec: h100_superpod:nodes=2")).device(15) == "h100"


BAD = {
    "no such type": (CLUSTER.replace("nodes: {big", "nodes: {bigg"), "nodes.bigg: no such node type; there are big, store"),
    "idle type": (CLUSTER.replace(", store: 1", ""), "node_types.store: of this type there are no nodes"),
    "unknown key": (CLUSTER.replace("gpus: 4", "gpu: 4"), "Nearest: gpus"),
    "uneven": (CLUSTER.replace("count: 4", "count: 3"), "node_types.big.nics.count: 3 NICs and 4 GPUs"),
    "shared without pcie": (CLUSTER.replace("count: 4", "count: 2"), "say over what `pcie"),
    "pcie without GPUs": (CLUSTER.replace("  store:\n", "  store:\n    pcie: {bandwidth: 1GB/s, latency: 0}\n"), "has none"),
    "pcie to nowhere": (
        "node_types: {a: {gpus: 2, pcie: {bandwidth: 1GB/s, latency: 0}}}\nnodes: {a: 1}\n",
        "node_types.a.pcie: leads to no NIC",
    ),
    "port to nowhere": (CLUSTER.replace('to: "leaf[*]"', 'to: "laef[*]"'), "node_types.big.nics: 'laef[*]'"),
    "same name": (CLUSTER.replace("switches: {", "switches: {big.nvswitch: 1, "), "two nodes are called 'big.nvswitch0'"),
    "cut off": (
        CLUSTER.replace('to: "leaf[0-1]"', 'to: "alone[*]"').replace("leaf: 4,", "leaf: 4, alone: 2,"),
        "1 of 9 hosts cannot be reached",
    ),
    "no way without a third host": (
        "node_types:\n  a: {gpus: 1, nics: {count: 1, bandwidth: 1GB/s, latency: 0, to: 'leaf[*]'}}\nnodes: {a: 3}\n"
        "switches: {leaf: 2}\nlink_types: {w: {bandwidth: 1GB/s, latency: 0}}\nlinks: [{from: a.gpu0, to: leaf1, type: w}]\n",
        "host_forwarding: true",
    ),
    "nodes alone": ("nodes: {a: 1}\n", "node_types: Field required"),
    "negative": (CLUSTER.replace("gpus: 4", "gpus: -4"), "node_types.big.gpus"),
    "device twice": (CLUSTER + "devices: {big.gpu: a100}\n", "'big.gpu0' is 'h100' already, not 'a100'"),
    "device of a switch": (CLUSTER + "devices: {leaf: a100}\n", "'leaf0' is a switch"),
    "device of nobody": (CLUSTER + "devices: {'gpu[*]': a100}\n", "there is no node 'gpu'"),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(file, case: str) -> None:
    text, words = BAD[case]
    path = file(text)
    with pytest.raises(TopologyError) as caught:
        build(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(path)


def test_a_leaf_that_is_no_farther_than_the_nvswitch_carries_nothing_of_a_node(tmp_path):
    """Without PCIe both are two hops away; routing policies keep what the builder chose."""
    path = tmp_path / "tie.yaml"
    path.write_text(TIE, encoding="utf-8")
    topology = build(str(path))
    src, dst = (side.ravel().astype(np.int32) for side in np.meshgrid(np.arange(8), np.arange(8)))
    for one in (topology, routed("ecmp", topology), routed("spray", topology)):
        offsets, links = one.paths(src, dst)
        for pair in range(len(src)):
            used = {topology.domains[d] for d in topology.link_domain[links[offsets[pair] : offsets[pair + 1]]]}
            local = src[pair] // 4 == dst[pair] // 4
            assert used == (set() if src[pair] == dst[pair] else {"nvlink"} if local else {"fabric"})
