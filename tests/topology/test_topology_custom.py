"""YAML files: what they build, and what is refused with which words."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from building import ROOT

from distsim.errors import TopologyError
from distsim.topology.check import check_topology
from distsim.topology.custom import shipped
from distsim.topology.spec import build

GRAPH = """\
hosts: 4
switches: {leaf: 2, spine: 2}
link_types:
  port: {bandwidth: 400Gbps, latency: 500ns}
  up: {bandwidth: 5.0e+10, latency: 250}
links:
  - {from: "gpu[*]", to: "leaf[*]", type: port, pairs: blocks}
  - {from: "leaf[*]", to: "spine[*]", type: up, pairs: all}
"""


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_a_graph(file) -> None:
    topology = build(file(GRAPH), 4)
    assert topology.name == "mine"
    assert topology.node_names == ("gpu0", "gpu1", "gpu2", "gpu3", "leaf0", "leaf1", "spine0", "spine1")
    assert topology.domains == ("port", "up")
    assert topology.links == 16
    assert topology.link_name(0) == "gpu0->leaf0"
    assert set(topology.link_bandwidth) == {50e9}
    assert set(topology.link_latency[topology.link_domain == 1]) == {250_000}
    check_topology(topology)


@pytest.mark.parametrize("name", shipped())
def test_shipped_files_keep_the_contract(name: str) -> None:
    topology = build(name)
    check_topology(topology, host_forwarding=name not in ("hpn_dual_plane.yaml", "mixed_h100_a100.yaml"))
    assert topology.hosts >= 8


def test_hosts_that_do_not_forward_are_never_in_between() -> None:
    topology = build("hpn_dual_plane.yaml")
    everyone = np.arange(topology.hosts, dtype=np.int32)
    offsets, links = topology.paths(np.repeat(everyone, 64), np.tile(everyone, 64))
    last = np.zeros(len(links), bool)
    last[offsets[1:][np.diff(offsets) > 0] - 1] = True
    assert (topology.link_dst[links[~last]] >= topology.hosts).all()


def test_shipped_files_are_what_the_script_writes(tmp_path: Path) -> None:
    folder, script = ROOT / "topologies", ROOT / "scripts" / "make_topologies.py"
    module_spec = importlib.util.spec_from_file_location("make_topologies", script)
    assert module_spec
    assert module_spec.loader
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    module.main(tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {p.name: p.read_text() for p in folder.iterdir()}


def test_a_shipped_file_is_found_by_bare_name_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert build("two_racks.yaml").hosts == 16
    (tmp_path / "two_racks.yaml").write_text(GRAPH)
    assert build("two_racks.yaml").hosts == 4


def test_a_preset_infers_sizes(file) -> None:
    topology = build(file("spec: rail_optimized:gpus_per_node=4"), 10)
    assert topology.hosts == 12
    assert topology.inferred == ("nodes=3 inferred from 10 ranks: 12 GPUs",)
    assert topology.spec.startswith("rail_optimized:nodes=3,gpus_per_node=4")


def test_pairings(file) -> None:
    rails = GRAPH.replace("pairs: blocks", "pairs: cyclic")
    assert build(file(rails)).link_name(4) == "gpu2->leaf0"
    each = GRAPH.replace("gpu[*]", "gpu[0,3]").replace("pairs: blocks", "pairs: each")
    each += '  - {from: ["gpu1", "gpu[2-2]"], to: leaf0, type: port, count: 3}\n'
    topology = build(file(each))
    assert [topology.link_name(link) for link in (0, 2)] == ["gpu0->leaf0", "gpu3->leaf1"]
    assert topology.links == 2 * (2 + 4 + 6)


def test_named_nodes_and_strides(file) -> None:
    text = """\
hosts: [ada, bob, cy]
switches: [hub]
link_types: {wire: {bandwidth: 1GB/s, latency: 1us}}
links:
  - {from: [ada, bob, cy], to: hub, type: wire}
"""
    assert build(file(text)).node_names == ("ada", "bob", "cy", "hub")
    text = GRAPH.replace("hosts: 4", "hosts: {node: 4}").replace("gpu[*]", "node[0-3:2]")
    with pytest.raises(TopologyError, match="2 of 4 hosts cannot be reached from node0: node1, node3"):
        build(file(text))


BAD = {
    "disconnected": (GRAPH.replace("gpu[*]", "gpu[0-1]"), "2 of 4 hosts cannot be reached from gpu0: gpu2, gpu3"),
    "two islands": (
        GRAPH.replace('to: "spine[*]", type: up, pairs: all', 'to: "spine[*]", type: up, pairs: each'),
        "gpu2, gpu3",
    ),
    "idle switch": (GRAPH.replace("spine: 2", "spine: 2, top: 1"), "no links at top0"),
    "zero bandwidth": (GRAPH.replace("400Gbps", "0Gbps"), "link_types.port.bandwidth: bandwidth '0Gbps' must be positive"),
    "unknown type": (GRAPH.replace("type: port", "type: prt"), "unknown link type 'prt'"),
    "unknown node": (GRAPH.replace("leaf[*]", "laef[*]"), "there is no node 'laef'"),
    "beyond the range": (GRAPH.replace("gpu[*]", "gpu[0-7]"), "there is no node 'gpu4'"),
    "bad range": (GRAPH.replace("gpu[*]", "gpu[0-]"), "unreadable range '0-'"),
    "bad pattern": (GRAPH.replace("gpu[*]", "gpu[*"), "selects no nodes"),
    "who meets whom": (GRAPH.replace(", pairs: blocks", ""), "who meets whom of 4 x 2 nodes"),
    "each of unequal": (GRAPH.replace("pairs: blocks", "pairs: each"), "as many nodes on both sides"),
    "uneven blocks": (GRAPH.replace("gpu[*]", "gpu[0-2]"), "cannot divide 3 x 2 nodes evenly"),
    "self": (GRAPH + "  - {from: leaf0, to: leaf0, type: up}\n", "joins a node to itself"),
    "unknown key": (GRAPH.replace("type: port", "typ: port"), "Nearest: type"),
    "unknown pairs": (GRAPH.replace("pairs: all", "pairs: some"), "links.1.pairs"),
    "no hosts": (GRAPH.replace("hosts: 4", "hosts: 0"), "there are no hosts"),
    "same name": (GRAPH.replace("hosts: 4", "hosts: [gpu0, gpu0]"), "two nodes are called 'gpu0'"),
    "not YAML": ("hosts: [", "not a readable YAML file"),
    "not a mapping": ("- 1", "not a topology"),
    "key twice": (GRAPH + "hosts: 5\n", "the key 'hosts' is given twice"),
    "missing links": ("hosts: 3\nlink_types: {}\n", "links: Field required"),
    "bad preset": ("spec: fat_tre", "unknown topology 'fat_tre'"),
    "no way without forwarding": (
        "hosts: 3\nhost_forwarding: false\nlink_types: {w: {bandwidth: 1GB/s, latency: 0}}\n"
        "links: [{from: gpu0, to: gpu1, type: w}, {from: gpu1, to: gpu2, type: w}]\n",
        "host_forwarding: true",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(file, case: str) -> None:
    text, words = BAD[case]
    path = file(text)
    with pytest.raises(TopologyError) as caught:
        build(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize(
    "text",
    [
        "hosts: 4000000000\nlink_types: {}\nlinks: []\n",
        "hosts: 40000\nlink_types: {p: {bandwidth: 1GB/s, latency: 1ns}}\n"
        "links:\n  - {from: 'gpu[*]', to: 'gpu[*]', type: p, pairs: all}\n",
        "hosts: 2\nlink_types: {p: {bandwidth: 1GB/s, latency: 1ns}}\n"
        "links:\n  - {from: gpu0, to: gpu1, type: p, count: 2000000000}\n",
        "hosts: 2\nlink_types: {p: {bandwidth: 1GB/s, latency: 1ns}}\n"
        "links:\n  - {from: gpu0, to: 'gpu[1-99999999999]', type: p}\n",
        "node_types: {a: {gpus: 8}}\nnodes: {a: 2000000000}\n",
        "node_types: {a: {gpus: 2000000000}}\nnodes: {a: 2}\n",
        "node_types: {a: {gpus: 8}}\nnodes: {a: 2}\nswitches: {leaf: 2000000000}\n",
    ],
)
def test_absurd_counts_are_refused_at_once(file, text: str) -> None:
    path = file(text)
    with pytest.raises(TopologyError, match="are too many"):
        build(path)


def test_a_key_of_another_part_is_not_offered_as_the_nearest(file) -> None:
    text = "hosts: 2\nlink_types: {}\nlinks:\n  - {from: gpu0, to: gpu1, type: p, bandwidth: 1GB/s}\n"
    with pytest.raises(TopologyError, match="bandwidth: unknown key") as caught:
        build(file(text))
    assert "Nearest: bandwidth" not in str(caught.value)


def test_too_few_hosts(file) -> None:
    with pytest.raises(TopologyError, match="has 4 hosts, but the job has 9 ranks"):
        build(file(GRAPH), 9)
