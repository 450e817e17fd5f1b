"""Specs: what a person writes, what is inferred from the job, what is refused and how."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distsim.errors import DistsimError, TopologyError, UnknownNameError
from distsim.registry import names
from distsim.topology.spec import build, parse


@pytest.mark.parametrize("name", names("topology"))
def test_a_complete_spec_builds_the_same_topology_for_any_job(name: str) -> None:
    first = build(name, 50)
    again = build(first.spec, 3)
    assert again.spec == first.spec
    assert again.inferred == ()
    assert again.node_names == first.node_names
    assert (again.link_src == first.link_src).all()
    assert (again.link_bandwidth == first.link_bandwidth).all()


@pytest.mark.parametrize("name", names("topology"))
@pytest.mark.parametrize("ranks", [1, 2, 7, 64, 100])
def test_inferred_sizes_hold_the_job_and_are_said(name: str, ranks: int) -> None:
    topology = build(name, ranks)
    assert topology.hosts >= ranks
    assert any("inferred from" in sentence for sentence in topology.inferred)


@pytest.mark.parametrize("name", names("topology"))
def test_without_a_job_there_is_a_default_and_it_is_said(name: str) -> None:
    topology = build(name)
    assert topology.hosts >= 8
    assert "by default" in topology.inferred[0]


@pytest.mark.parametrize(
    ("spec", "ranks", "hosts", "sentence"),
    [
        ("fat_tree", 64, 128, "k=8 inferred from 64 ranks: 128 hosts"),
        ("fat_tree", 1024, 1024, "k=16 inferred from 1024 ranks: 1024 hosts"),
        ("fat_tree:tiers=2,oversubscription=3", 100, 384, "k=16 inferred from 100 ranks: 384 hosts"),
        ("torus", 1024, 1024, "dims=16x8x8 inferred from 1024 ranks: 1024 hosts"),
        ("torus", 13, 16, "dims=4x2x2 inferred from 13 ranks: 16 hosts"),
        ("nd:dims=ring4+switch", 64, 64, "dims=ring4+switch16 inferred from 64 ranks: 64 hosts"),
        ("rail_optimized", 20, 24, "nodes=3 inferred from 20 ranks: 24 GPUs"),
        ("dragonfly:p=2", 20, 24, "p=2, a=4, h=2, groups=3 inferred from 20 ranks: 24 hosts"),
        ("switch", 1, 1, "hosts=1 inferred from 1 rank"),
    ],
)
def test_inference(spec: str, ranks: int, hosts: int, sentence: str) -> None:
    topology = build(spec, ranks)
    assert topology.hosts == hosts
    assert topology.inferred == (sentence,)


def test_aliases_are_the_same_network() -> None:
    assert build("star:hosts=5").spec == build("switch:hosts=5").spec
    assert build("mesh", 5).spec == build("fully_connected", 5).spec


@pytest.mark.parametrize("text", ["5e10", "5e+10", "50GB/s", "50GBps", "400Gbps", "50e9"])
def test_bandwidth_may_be_written_in_many_ways(text: str) -> None:
    assert set(build(f"ring:hosts=4,bandwidth={text}").link_bandwidth) == {50e9}


def test_bare_latency_is_nanoseconds() -> None:
    assert set(build("ring:hosts=4,latency=500").link_latency) == {500_000}


def test_spaces_and_a_trailing_comma_do_no_harm() -> None:
    assert parse(" ring : hosts = 4 , ") == ("ring", {"hosts": "4"})


BAD = {
    "unknown name, near names": ("fat_tre", None, UnknownNameError, ["unknown topology 'fat_tre'", "Nearest: fat_tree"]),
    "unknown key, near keys": ("ring:bandwith=1GB/s", None, TopologyError, ["unknown key 'bandwith'", "Nearest: bandwidth"]),
    "a list where one value belongs": ("ring:bandwidth=1GBps+2GBps", None, TopologyError, ["bandwidth=1GBps+2GBps"]),
    "zero bandwidth": ("ring:bandwidth=0Gbps", 4, TopologyError, ["ring", "bandwidth=0Gbps", "positive"]),
    "negative bandwidth": ("torus:bandwidth=-1GB/s", 4, TopologyError, ["positive"]),
    "negative latency": ("ring:latency=-4ns", 4, TopologyError, ["negative"]),
    "no unit of bandwidth": ("ring:bandwidth=4GHz", 4, TopologyError, ["unknown bandwidth unit"]),
    "not a number": ("ring:hosts=x", None, TopologyError, ["hosts=x", "valid integer"]),
    "zero hosts": ("ring:hosts=0", None, TopologyError, ["hosts=0"]),
    "negative job": ("ring", -1, TopologyError, ["-1 hosts"]),
    "not key=value": ("ring:8", None, TopologyError, ["'8' is not key=value"]),
    "key twice": ("ring:hosts=4,hosts=5", None, TopologyError, ["given twice"]),
    "nothing": ("", None, TopologyError, ["has no name"]),
    "too few hosts: fat tree": ("fat_tree:k=4", 64, TopologyError, ["16 hosts", "64 ranks", "Write fat_tree:k=8"]),
    "too few hosts: ring": ("ring:hosts=8", 64, TopologyError, ["Write ring:hosts=64", "leave the size to the job: ring"]),
    "too few hosts: torus": ("torus:dims=4x4,latency=1us", 20, TopologyError, ["Write torus:dims=5x2x2,latency=1us"]),
    "too few hosts: dragonfly": ("dragonfly:p=1", 64, TopologyError, ["Write dragonfly:p=2"]),
    "too few hosts: nd": ("nd:dims=ring2+ring2", 64, TopologyError, ["4 hosts", "64 ranks"]),
    "too many links": ("fully_connected:hosts=100000", None, TopologyError, ["9,999,900,000 links are too many"]),
    "too many hosts": ("fat_tree:k=100000", None, TopologyError, ["links are too many"]),
    "odd k": ("fat_tree:k=5", None, TopologyError, ["even"]),
    "one tier": ("fat_tree:tiers=1", None, TopologyError, ["tiers=1"]),
    "pods beyond the ports": ("fat_tree:k=4,pods=5", None, TopologyError, ["Write k=6"]),
    "broken oversubscription": ("fat_tree:k=8,oversubscription=1.3", None, TopologyError, ["5.2 hosts per leaf"]),
    "contradiction": (
        "fat_tree:k=8,oversubscription=2,hosts_per_leaf=4,uplink_bandwidth=1GBps",
        None,
        TopologyError,
        ["contradicts", "Leave one of the three out"],
    ),
    "torus without a size": ("torus:dims=4x0", None, TopologyError, ["16x8x8"]),
    "kind of dimension": ("nd:dims=rng4", None, TopologyError, ["'rng'", "Nearest: ring"]),
    "two open sizes": ("nd:dims=ring+switch", 8, TopologyError, ["more than one size open"]),
    "empty dimension": ("nd:dims=ring0", 8, TopologyError, ["no hosts"]),
    "malformed dimension": ("nd:dims=4", 8, TopologyError, ["is not a dimension"]),
    "values per dimension": ("nd:dims=ring4,bandwidth=1GBps+2GBps", None, TopologyError, ["2 values for 1 dimension"]),
    "too many groups": ("dragonfly:p=2,groups=99", None, TopologyError, ["a*h+1 = 9", "Write groups=9"]),
    "rails without spines": ("rail_optimized:spines=0", 16, TopologyError, ["cross_rail=pxn"]),
    "unknown choice": ("rail_optimized:cross_rail=magic", 16, TopologyError, ["'spine' or 'pxn'"]),
    "missing file": ("nowhere.yaml", None, TopologyError, ["no such topology file", "two_racks.yaml"]),
    "shipped file, nearly": ("two_rack.yaml", None, TopologyError, ["Nearest: two_racks.yaml"]),
}


@pytest.mark.parametrize("case", BAD)
def test_refusals_say_what_is_wrong_and_how_to_mend_it(case: str) -> None:
    spec, ranks, kind, texts = BAD[case]
    with pytest.raises(DistsimError) as caught:
        build(spec, ranks)
    assert isinstance(caught.value, kind)
    assert caught.value.exit_code == 2
    for text in texts:
        assert text in str(caught.value)


def test_what_a_refusal_proposes_works() -> None:
    assert build("fat_tree:k=8", 64).hosts >= 64
    assert build("torus:dims=5x2x2,latency=1us", 20).hosts >= 20
    assert build("fat_tree:pods=16,tiers=2,hosts_per_leaf=4", 64).hosts >= 64


def test_the_fast_path_imports_no_graph_drawing_or_yaml_library() -> None:
    code = (
        "import sys; from distsim.topology.spec import build; build('fat_tree', 64); build('star', 8);"
        "print([name for name in ('networkx', 'matplotlib', 'yaml', 'numba', 'rich', 'pyarrow') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
