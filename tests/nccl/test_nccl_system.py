"""What NCCL sees: GPUs by name, boxes of a topology, NICs."""

from __future__ import annotations

import pytest

from distsim.errors import CollectiveError, ConfigError, TopologyError, UnknownNameError
from distsim.nccl.gpus import gpu_name
from distsim.nccl.system import System, node_of_hosts, system_of, system_of_topology
from distsim.topology.custom import load
from distsim.topology.spec import build


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a100_sxm", "a100"), ("NVIDIA A100-SXM4-80GB", "a100"), ("h100", "h100"), ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA B300 SXM6 AC", "b300"), ("GB200 NVL72", "gb200"), ("l40s", "l40s"), ("NVIDIA A100-PCIE-40GB", "a100_pcie"),
        ("Tesla V100-SXM2-32GB", "v100"), ("dgx_h200", "h200"),
    ],
)  # fmt: skip
def test_names(text, name):
    assert gpu_name(text) == name


def test_an_unknown_gpu_gets_near_names():
    with pytest.raises(UnknownNameError, match="Nearest: h100"):
        system_of("h1000", 8)


def test_what_the_search_finds():
    assert (system_of("a100", 8).rings, system_of("a100", 8).ring_rate) == (12, 20.0)
    assert (system_of("h100", 8).rings, system_of("h100", 8).ring_rate) == (12, 30.0)
    assert (system_of("b200", 8).rings, system_of("b200", 8).ring_rate) == (16, 45.0)
    pod = system_of("h100", 16, 2)
    assert (pod.nics, pod.nic_rate, pod.rings, pod.ring_rate, pod.ring_net_rate) == (8, 50.0, 8, 45.0, 48.0)
    assert system_of("h100", 8).channels == 24
    assert (system_of("h100", 8).head_rate, system_of("b200", 8).head_rate) == (40.0, 90.0)


def test_trays_of_a_rack_are_one_nvlink_domain():
    assert system_of("gb200", 64, 16).nodes == 1
    two = system_of("gb200", 128, 32)
    assert (two.nodes, two.per_node, two.nics) == (2, 64, 64)
    assert system_of("h100", 128, 16).nodes == 16


def test_part_of_a_box_has_its_part_of_the_nics():
    assert system_of("h100", 4, 4).nics == 1
    assert system_of("h100", 8, 2).nics == 4
    assert system_of("h100", 8, 2, 2, 12.5e9).net_rate == 25.0


def test_systems_of_a_preset():
    topology = build("h100_superpod", 64)
    assert system_of_topology(topology, range(8)) == System("h100", 8)
    assert system_of_topology(topology, range(64)) == System("h100", 64, 8, 8, 50.0)
    assert system_of_topology(topology, range(0, 64, 8)) == System("h100", 8, 8, 1, 50.0)
    assert node_of_hosts(topology, [9, 8, 1, 0, 17]) == [0, 0, 1, 1, 2]
    uneven = system_of_topology(topology, [0, 1, 2, 8])
    assert (uneven.nodes, uneven.even, uneven.per_node) == (2, False, 3)


SHARED = """
node_types:
  box:
    gpus: 4
    device: a100
    pcie: {bandwidth: 25GBps, latency: 500ns}
    nics: {count: 2, bandwidth: 100Gbps, latency: 500ns, to: leaf0, pairs: all}
nodes: {box: 2}
switches: [leaf0]
"""


def test_gpus_behind_pcie_share_their_nics(tmp_path):
    path = tmp_path / "boxes.yaml"
    path.write_text(SHARED)
    topology = load(str(path))
    assert node_of_hosts(topology, range(8)) == [0, 0, 1, 1, 2, 2, 3, 3]
    found = system_of_topology(topology, [0, 1, 2, 3])
    assert (found.gpu, found.nodes, found.nics, found.nic_rate) == ("a100_pcie", 2, 1, 12.5)


def test_refusals():
    with pytest.raises(TopologyError, match="does not say which GPUs"):
        system_of_topology(build("ring", 4), range(4))
    with pytest.raises(TopologyError, match="no host 99"):
        system_of_topology(build("h100_superpod", 64), [0, 99])
    with pytest.raises(CollectiveError, match="not even over 3"):
        system_of("h100", 8, 3)
    with pytest.raises(CollectiveError, match="with 1 ranks"):
        system_of("h100", 1)
    with pytest.raises(ConfigError, match="without a network"):
        System("h100", 16, 2)
    with pytest.raises(UnknownNameError, match="fabric 'ether'"):
        system_of("h100", 16, 2, fabric="ether")
    with pytest.raises(ConfigError, match="0 NICs"):
        system_of("h100", 16, 2, 0)
