"""Presets: the sizes of the machines they name, within the ports of their switches, and as oversubscribed as they say."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import TopologyError
from distsim.registry import lookup, names
from distsim.topology.check import check_topology
from distsim.topology.equal_cost import EqualCost
from distsim.topology.graph import Topology
from distsim.topology.metrics import bisection_found, kind_of
from distsim.topology.presets import ALIASES, PRESETS
from distsim.topology.spec import build

#: NVIDIA DGX B200 SuperPOD reference architecture, table of component counts: units -> (leaf, spine, core) switches, and
#: cables (node to leaf, leaf to spine, spine to core)
SUPERPOD = {
    2: ((16, 8, 0), (512, 512, 0)),
    4: ((32, 16, 0), (1024, 1024, 0)),
    8: ((64, 32, 0), (2048, 2048, 0)),
    16: ((128, 128, 64), (4096, 4096, 4096)),
    32: ((256, 256, 128), (8192, 8192, 8192)),
    64: ((512, 512, 256), (16384, 16384, 16384)),
}


def kinds(topology: Topology) -> Counter[str]:
    """How many nodes there are of each kind."""
    return Counter(kind_of(name) for name in topology.node_names)


def ports(topology: Topology) -> np.ndarray:
    """Cables at every node, in cables of the fastest kind outside NVLink: slower ones share a port (breakout)."""
    outside = np.array([topology.domains[domain] != "nvlink" for domain in topology.link_domain.tolist()])
    rate = np.where(outside, topology.link_bandwidth, 0.0)
    return np.bincount(topology.link_src, weights=rate / rate.max(), minlength=topology.nodes)


@pytest.mark.parametrize("units", SUPERPOD)
@pytest.mark.parametrize("name", ["h100_superpod", "b200_superpod"])
def test_superpods_have_the_switches_and_cables_of_the_reference_architecture(name: str, units: int) -> None:
    topology = build(f"{name}:nodes={32 * units}")
    found, cables = kinds(topology), np.bincount(topology.link_domain, minlength=4) // 2
    assert (found["rail"], found["spine"], found["core"]) == SUPERPOD[units][0]
    assert tuple(cables[1:].tolist()) == SUPERPOD[units][1]
    assert topology.hosts == 256 * units
    assert topology.bisection == 128 * units * 50e9


def test_a_superpod_of_a_few_nodes_keeps_its_leaves() -> None:
    topology = build("h100_superpod:nodes=16,oversubscription=2")
    assert kinds(topology)["rail"] == 8
    assert (topology.link_domain == topology.domains.index("spine")).sum() // 2 == 8 * 16
    assert build("h100_superpod:nodes=100").hosts == 800


def test_gpu_j_hangs_on_leaf_j_of_its_unit() -> None:
    topology = build("h100_superpod", 1024)
    rail = topology.domains.index("rail")
    for link in np.flatnonzero(topology.link_domain == rail)[::2].tolist():
        gpu = int(topology.link_src[link])
        assert topology.node_names[topology.link_dst[link]] == f"rail{gpu // 256}.{gpu % 8}"


SIZES = {
    # preset: (ranks, hosts, device, kinds besides gpu)
    "dgx_a100": (None, 8, "a100", {"nvswitch": 1, "rail": 8, "spine": 1}),
    "dgx_h100": (20, 24, "h100", {"nvswitch": 3, "rail": 8, "spine": 3}),
    "hgx_h200": (16, 16, "h200", {"nvswitch": 2, "rail": 8, "spine": 2}),
    "dgx_b200": (8, 8, "b200", {"nvswitch": 1, "rail": 8, "spine": 1}),
    "gb200_nvl72": (576, 576, "gb200", {"nvswitch": 8, "rail": 32, "spine": 9}),
    "a100_superpod": (1120, 1120, "a100", {"nvswitch": 140, "rail": 56, "spine": 80, "core": 28}),
    "meta_clos": (None, 24576, "h100", {"nvswitch": 3072, "rail": 1536, "spine": 144, "core": 24}),
    "alibaba_hpn": (
        15360,
        15360,
        "",
        {"nvswitch": 1920, "plane0.rail": 120, "plane1.rail": 120, "plane0.spine": 60, "plane1.spine": 60},
    ),
    "tpu_v4": (4096, 4096, "tpu_v4", {}),
    "tpu_v5p": (6144, 6144, "tpu_v5p", {}),
    "tpu_v5e": (256, 256, "tpu_v5e", {}),
    "dragonfly_plus_ndr": (2048, 2048, "", {"leaf": 64, "spine": 64}),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    ranks, hosts, device, switches = SIZES[name]
    topology = build(name, ranks)
    assert topology.hosts == hosts
    assert topology.device(hosts - 1) == device
    assert dict(kinds(topology)) == {"gpu": hosts, **switches}


@pytest.mark.parametrize("name", [*PRESETS, *ALIASES])
def test_every_preset_builds_and_its_spec_is_complete(name: str) -> None:
    topology = build(name)
    again = build(topology.spec)
    assert topology.name == ALIASES.get(name, name)
    assert again.spec == topology.spec
    assert again.devices == topology.devices
    assert np.array_equal(again.link_dst, topology.link_dst)
    assert ("nvlink" in topology.domains) == (PRESETS[topology.name].builder == "rail_optimized")


@pytest.mark.parametrize("name", PRESETS)
def test_every_figure_has_a_source_and_is_used(name: str) -> None:
    preset = PRESETS[name]
    fields = lookup("topology", preset.builder).Params.model_fields
    assert preset.about
    assert preset.source
    for key, figure in preset.figures.items():
        assert key in fields
        assert figure.source.strip()
    # NOTE: no bandwidth or latency of a link may come from a builder's default, which has no source in the preset
    needed = {"bandwidth", "latency"} | ({"nvlink_bandwidth", "nvlink_latency"} & set(fields))
    assert needed <= set(preset.figures)


@pytest.mark.parametrize(
    ("spec", "ranks", "radix"),
    [
        ("h100_superpod", 1024, 64),
        ("h100_superpod:oversubscription=2", 4096, 64),
        ("h100_superpod", 16384, 64),
        ("h100_superpod:nodes=777", None, 64),
        ("a100_superpod", 1120, 40),
        ("a100_superpod", 800, 40),
        ("meta_clos", None, 576),
        ("alibaba_hpn", 30720, 128),
        ("gb200_nvl72", 1152, 64),
        ("dragonfly_plus_ndr", None, 64),
    ],
)
def test_no_switch_has_more_ports_than_its_model(spec: str, ranks: int | None, radix: int) -> None:
    topology = build(spec, ranks)
    used = ports(topology)[topology.hosts :]
    assert used.max() <= radix + 1e-9
    assert used.max() > 0.3 * radix, "and they are not far too large either"


@pytest.mark.parametrize(
    ("spec", "ranks", "ratio"),
    [
        ("h100_superpod", 1024, 1.0),
        ("h100_superpod:oversubscription=2", 1024, 2.0),
        ("h100_superpod:oversubscription=4:1", 1024, 4.0),
        ("h100_superpod:oversubscription=2", 4096, 2.0),
        ("h100_superpod:core_oversubscription=2", 4096, 1.0),  # same-rail cables under the spines join all units of a pod
        ("meta_clos", 6144, 3072 / 432),  # 7:1 to the nearest whole cable: 24 from each of 18 cluster switches
        ("meta_clos:core_oversubscription=1", 6144, 3072 / (171 * 18)),
        ("alibaba_hpn", 2048, 128 / 120),
        ("alibaba_hpn", 30720, 16.0),  # 15:1 on top of 128:120
    ],
)
def test_oversubscription_as_the_bisection_shows_it(spec: str, ranks: int, ratio: float) -> None:
    topology = build(spec, ranks)
    port = topology.link_bandwidth[topology.link_domain == topology.domains.index("rail")]
    sent = topology.hosts / 2 * port.sum() / (2 * topology.hosts)
    found = topology.bisection if topology.bisection is not None else bisection_found(topology)
    assert found == pytest.approx(min(sent, sent / ratio))


CHECKED = [
    "dgx_h100:nodes=3",
    "h100_superpod:nodes=66",
    "h100_superpod:nodes=40,nodes_per_unit=4,radix=16",  # cores
    "h100_superpod:nodes=20,nodes_per_unit=4,radix=16,cross_rail=pxn",  # one pod: over cores PXN costs more hops
    "a100_superpod:nodes=130",
    "meta_clos:nodes=24,units_per_pod=4",
    "alibaba_hpn:nodes=30,nodes_per_unit=2,units_per_pod=5,radix=64,spines=1,oversubscription=1",
    "gb200_nvl72:nodes=3",
    "tpu_v4:dims=8x4x4",
    "tpu_v5p:dims=4x4x4",
    "dragonfly_plus:k=4",
    "dragonfly_plus:k=6,groups=4",
    "dragonfly_plus:k=8,groups=1",
    "dragonfly_plus:k=2",
]


@pytest.mark.parametrize("spec", CHECKED)
def test_routes_are_minimal_and_never_lead_through_other_hosts(spec: str) -> None:
    topology = build(spec)
    pxn = "pxn" in spec
    # NOTE: under PXN the GPU on the destination's rail forwards; of a dragonfly+ two global hops may save local ones
    cost = {"global": 3} if topology.name.startswith("dragonfly") else {}
    if pxn:
        with pytest.raises(TopologyError, match="through a host"):
            check_topology(topology, host_forwarding=False)
        check_topology(topology)
    else:
        check_topology(topology, domain_cost=cost, host_forwarding=bool(topology.dimensions))


@st.composite
def rail_networks(draw: st.DrawFn) -> str:
    """Any small network of units, pods and planes."""
    gpus = draw(st.sampled_from([1, 2, 4]))
    rails = draw(st.sampled_from([rails for rails in (1, 2, 4) if gpus % rails == 0]))
    per_unit, nodes = draw(st.integers(1, 3)), draw(st.integers(1, 12))
    planes, radix = draw(st.integers(1, 2)), draw(st.sampled_from([24, 32, 64]))
    pods = draw(st.sampled_from(["", ",units_per_pod=1", ",units_per_pod=2"]))
    return (
        f"rail_optimized:nodes={nodes},gpus_per_node={gpus},rails={rails},nodes_per_unit={per_unit},planes={planes}"
        f",radix={radix}{pods}"
    )


@settings(max_examples=40, deadline=None)
@given(spec=rail_networks())
def test_any_network_of_units_keeps_the_contract(spec: str) -> None:
    topology = build(spec)
    check_topology(topology, host_forwarding=False)
    assert ports(topology)[topology.hosts :].max() <= int(spec.split("radix=")[1].split(",")[0]) + 1e-9
    again = build(topology.spec)
    assert np.array_equal(again.link_dst, topology.link_dst)
    if topology.bisection is not None:
        # the closed form against a search that does not know it: never above what a split was found to cost
        assert topology.bisection <= bisection_found(topology) * (1 + 1e-12)


def test_planes_are_both_used_and_both_offered() -> None:
    topology = build("alibaba_hpn", 64)
    src = np.repeat(np.arange(64, dtype=np.int32), 64)
    dst = np.tile(np.arange(64, dtype=np.int32), 64)
    other = src // 8 != dst // 8
    offsets, links = topology.paths(src[other], dst[other])
    plane = [topology.node_names[node].startswith("plane1") for node in topology.link_dst[links[offsets[:-1]]].tolist()]
    assert np.mean(plane) == 0.5
    # both ports of a GPU are plain cables of the graph, to two leaves at the same distance
    leaves = {topology.node_names[topology.link_dst[link]] for link in np.flatnonzero(topology.link_src == 9).tolist()}
    assert leaves == {"nvswitch1", "plane0.rail1", "plane1.rail1"}
    # 60 aggregation switches in each of two planes join two rail switches
    assert EqualCost(topology).count(np.array([1], np.int32), np.array([10], np.int32)).tolist() == [120]


def test_optical_links_are_the_faces_of_the_cubes() -> None:
    pod = build("tpu_v4")
    ocs = pod.link_domain == pod.domains.index("ocs")
    assert ocs.sum() // 2 == 6144 // 2, "64 cubes of 96 optical ports each"  # glennklockwood.com/garden/processors/TPUv4
    cube = build("tpu_v4", 64)
    assert (cube.link_domain == cube.domains.index("ocs")).sum() // 2 == 48
    assert build("tpu_v4", 100).spec.startswith("torus:dims=8x4x4")


def test_absurd_sizes_are_refused_at_once() -> None:
    begun = time.process_time()
    with pytest.raises(TopologyError, match="links are too many"):
        build("h100_superpod:nodes=100000000")
    with pytest.raises(TopologyError, match="cannot be joined by switches of 64 ports"):
        build("h100_superpod:nodes=1000000")
    assert time.process_time() - begun < 5


def test_a_16k_gpu_cluster_builds_in_reasonable_time() -> None:
    for spec, ranks in (("h100_superpod", 16384), ("meta_clos", None), ("alibaba_hpn", 15360)):
        start = time.process_time()
        build(spec, ranks)
        assert time.process_time() - start < 3


BAD = {
    "unknown key": ("h100_superpod:nods=4", None, ["h100_superpod: unknown key 'nods'", "Nearest: nodes"]),
    "too few": ("h100_superpod:nodes=16", 1024, ["Write h100_superpod:nodes=128", "job: h100_superpod."]),
    "broken ratio": ("h100_superpod:oversubscription=3", 64, ["10.6667 up-links", "not a whole number"]),
    "no ratio": ("h100_superpod:oversubscription=two", 64, ["oversubscription=two"]),
    "ratio by zero": ("h100_superpod:oversubscription=2:0", 64, ["not a ratio"]),
    "small switches": ("h100_superpod:radix=32", 64, ["needs 64 ports", "has 32"]),
    "too large for the radix": ("h100_superpod:nodes=100000", None, ["cannot be joined by switches of 64 ports"]),
    "spines that do not divide": ("alibaba_hpn:oversubscription=2", 64, ["32 up-links", "60 spines"]),
    "pods without units": ("rail_optimized:units_per_pod=2", 64, ["nodes_per_unit"]),
    "cores without units": ("rail_optimized:core_oversubscription=2", 64, ["nodes_per_unit"]),
    "no up-links in units": ("h100_superpod:spines=0", 64, ["0 spines"]),
    "infinite": ("h100_superpod:core_oversubscription=inf", 64, ["core_oversubscription=inf"]),
    "rails that do not divide": ("dgx_h100:rails=3", 64, ["8 GPUs", "3 rails"]),
    "contradiction": ("rail_optimized:nodes=8,spines=3,oversubscription=2", None, ["needs 4 spines"]),
    "pxn without rails": ("meta_clos:cross_rail=pxn", 64, ["PXN"]),
    "beyond the machine": ("tpu_v5p", 7000, ["6,144", "torus:bandwidth=100GBps"]),
    "broken cubes": ("tpu_v4:dims=4x4x6", None, ["cube=4"]),
    "too many groups": ("dragonfly_plus:k=4,groups=6", None, ["(k/2)^2+1 = 5"]),
    "odd k": ("dragonfly_plus:k=5", None, ["k=5"]),
    "device": ("switch:device=4 you", None, ["device=4 you"]),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals(case: str) -> None:
    spec, ranks, texts = BAD[case]
    with pytest.raises(TopologyError) as caught:
        build(spec, ranks)
    for text in texts:
        assert text in str(caught.value)


@pytest.mark.parametrize("name", names("topology"))
def test_any_builder_carries_a_device(name: str) -> None:
    topology = build(f"{name}:device=h100")
    assert topology.device(0) == "h100"
    assert topology.spec.endswith("device=h100")
    assert build(name).device(0) == ""


def test_the_documentation_lists_every_preset() -> None:
    from building import ROOT

    text = (ROOT / "docs" / "topologies.md").read_text(encoding="utf-8")
    for name in PRESETS:
        assert f"`{name}`" in text
