"""SimAI's topology files: what they become, which way messages go, and what is refused in which words."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.cli.main import main
from distsim.errors import TopologyError
from distsim.topology.check import check_topology
from distsim.topology.graph import Topology
from distsim.topology.routing import ShortestPath
from distsim.topology.spec import build, fixed_hosts
from distsim.topology.switch_paths import SwitchPaths


def spectrum(servers: int, per: int = 4, psw: int = 2, *, rails: bool = True, error: str = "0") -> str:
    """A file as SimAI's template writes it: a server's GPUs on a rail switch each, or all on one."""
    gpus, asw = servers * per, per if rails else servers
    first_asw, first_psw = gpus + servers, gpus + servers + asw
    cables = []
    for gpu in range(gpus):
        cables.append(f"{gpu} {gpus + gpu // per} 2880Gbps 0.000025ms {error}")
        cables.append(f"{gpu} {first_asw + (gpu % per if rails else gpu // per)} 400Gbps 0.0005ms 0")
    cables += [f"{first_asw + a} {first_psw + p} 400Gbps 0.0005ms 0" for a in range(asw) for p in range(psw)]
    nodes = first_psw + psw
    head = f"{nodes} {per} {servers} {asw + psw} {len(cables)} H100"
    return "\n".join([head, " ".join(map(str, range(gpus, nodes))) + " ", *cables]) + "\n"


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "Spectrum"
        path.write_text(text)
        return f"simai:{path}"

    return write


def pairs(topology: Topology) -> tuple[np.ndarray, np.ndarray]:
    host = np.arange(topology.hosts, dtype=np.int32)
    return np.repeat(host, len(host)), np.tile(host, len(host))


def stops(topology: Topology, src: int, dst: int) -> list[str]:
    links = topology.paths(np.array([src], np.int32), np.array([dst], np.int32))[1]
    return [topology.node_names[node] for node in topology.link_dst[links]]


def test_a_file_becomes_servers_rails_and_spines(file):
    spec = file(spectrum(3))
    topology = build(spec, 12)
    check_topology(topology)
    assert (topology.hosts, topology.nodes, topology.links) == (12, 12 + 3 + 4 + 2, 2 * (24 + 8))
    assert (topology.levels, topology.devices, topology.device(7)) == ((4, 3), ("h100",), "h100")
    assert topology.domains == ("nvlink", "rail", "spine")
    assert topology.node_names[12:] == ("nvswitch0", "nvswitch1", "nvswitch2", "asw0", "asw1", "asw2", "asw3", "psw0", "psw1")
    assert (topology.link_bandwidth[0], topology.link_latency[0]) == (360e9, 25_000)
    assert (topology.link_bandwidth[2], topology.link_latency[2]) == (50e9, 500_000)
    assert topology.inferred == ()
    assert fixed_hosts(spec) == 12
    assert fixed_hosts("fat_tree:k=4") is None
    assert build(topology.spec).node_names == topology.node_names


@pytest.mark.parametrize("rails", [True, False])
def test_servers_talk_over_nvswitch_and_never_through_gpus(file, rails):
    """Also where all GPUs of a server hang on one switch of the fabric, which is no farther than the NVSwitch."""
    topology = build(file(spectrum(3, rails=rails)))
    src, dst = pairs(topology)
    offsets, links = topology.paths(src, dst)
    for row in np.flatnonzero(src != dst):
        passed = topology.link_dst[links[offsets[row] : offsets[row + 1]]][:-1]
        assert (passed >= topology.hosts).all()
        names = {topology.node_names[node].rstrip("0123456789") for node in passed}
        assert names == {"nvswitch"} if src[row] // 4 == dst[row] // 4 else "nvswitch" not in names
    assert np.array_equal(topology.hops(src, dst), np.diff(offsets))
    assert topology.domains[1] == ("rail" if rails else "host")


def test_routes_of_different_gpus_spread_over_the_spines(file):
    topology = build(file(spectrum(8, psw=4)))
    used = {stops(topology, 0, gpu)[1] for gpu in range(5, 32, 4)}
    assert len(used) > 1
    assert all(name.startswith("psw") for name in used)


def test_switches_may_have_any_ids(file):
    """Ids 0 and 1 are switches here: the GPUs are 2 to 5."""
    topology = build(file("6 2 0 2 6 A100\n1 0\n2 0 100Gbps 1us 0\n3 0 100Gbps 1us 0\n4 1 100Gbps 1us 0\n5 1 100Gbps 1us 0\n"
                          "0 1 100Gbps 1us 0\n0 1 100Gbps 1us 0\n"))  # fmt: skip
    check_topology(topology)
    assert topology.hosts == 4
    assert stops(topology, 0, 3) == ["asw1", "asw0", "gpu3"]


def test_cables_that_lose_packets_are_counted(file):
    assert build(file(spectrum(2, error="0.01"))).inferred == ("8 cables have an error rate: not simulated, nothing is lost",)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_switch_paths_are_the_shortest_paths_of_the_general_router(data):
    hosts, switches = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 6))
    switch = st.integers(hosts, hosts + switches - 1)
    cables = [(host, data.draw(switch)) for host in range(hosts)]
    cables += data.draw(st.lists(st.tuples(st.integers(0, hosts - 1), switch), max_size=6))
    cables += [(one, two) for one, two in data.draw(st.lists(st.tuples(switch, switch), max_size=12)) if one != two]
    cables += [(hosts + k, hosts + k + 1) for k in range(switches - 1)]
    cables = data.draw(st.permutations(cables))
    src = np.array([end for cable in cables for end in cable], np.int32)
    dst = np.array([end for cable in cables for end in reversed(cable)], np.int32)
    names = [str(node) for node in range(hosts + switches)]
    host = np.arange(hosts, dtype=np.int32)
    start, end = np.repeat(host, hosts), np.tile(host, hosts)
    general = ShortestPath(names, hosts, src, dst, ties="spread", host_forwarding=False)
    fast = SwitchPaths(names, hosts, src, dst)
    for one, other in zip(general(start, end), fast(start, end), strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(general.hops(start, end), fast.hops(start, end))


def test_switch_paths_refuse_what_cannot_be_reached():
    fast = SwitchPaths(["a", "b", "s", "t"], 2, np.array([0, 2, 1, 3], np.int32), np.array([2, 0, 3, 1], np.int32))
    for ask in (fast, fast.hops):
        with pytest.raises(TopologyError, match=r"no path for 1 of . pairs: a -> b"):
            ask(np.array([0, 0], np.int32), np.array([1, 0], np.int32))


def test_thousands_of_gpus_are_quick(file):
    spec = file(spectrum(1152, per=8, psw=64))
    began = time.process_time()
    topology = build(spec)
    gpu = np.arange(topology.hosts, dtype=np.int32)
    hops = [topology.hops(gpu, np.roll(gpu, -step)) for step in (1, 8, 9)]
    offsets, _ = topology.paths(gpu, np.roll(gpu, -9))
    assert time.process_time() - began < 4
    assert hops[0].tolist() == [2 if g % 8 < 7 else 4 for g in range(9216)]
    assert set(hops[1]) == {2}
    assert np.array_equal(np.diff(offsets), hops[2])


GOOD = spectrum(2, per=2, psw=1)  # GPUs 0-3, NVSwitches 4 5, asw 6 7, psw 8; ten cables on lines 3 to 12


def test_no_file_is_said_as_such():
    with pytest.raises(TopologyError, match="simai: names no file"):
        build("simai:")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (GOOD, "", "is cut short"),
        ("9 2 2 3 10 H100", "9 2 2 3 10", "line 1: '9 2 2 3 10' is no head"),
        ("9 2 2 3 10 H100", "5 2 2 3 10 H100", "line 1: 5 nodes with 5 switches have no GPU"),
        ("9 2 2 3 10 H100", "9 2 2 3 11 H100", "promises 11 cables, but 10 follow"),
        ("9 2 2 3 10 H100", "9 2 2 3 99999999999 H100", "is no head"),
        ("9 2 2 3 10 H100", "9 2 2 3 999999999 H100", "links are too many"),
        ("9 2 2 3 10 H100", "999999999 2 2 3 10 H100", "line 1: 10 cables cannot join 999999999 nodes"),
        ("4 5 6 7 8 ", "4 5 6 7", "line 2: lists 4 switches"),
        ("4 5 6 7 8 ", "4 5 6 7 7", "line 2: lists a switch twice"),
        ("4 5 6 7 8 ", "4 5 6 7 9", "line 2: '9' is not the id of a switch"),
        ("0 4 2880Gbps 0.000025ms 0", "0 4 2880Gbps 0.000025ms", "line 3: '0 4 2880Gbps 0.000025ms' is no cable"),
        ("0 4 2880Gbps 0.000025ms 0", "0 -4 2880Gbps 0.000025ms 0", "line 3: '-4' is not a node"),
        ("1 4 2880Gbps 0.000025ms 0", "1 1 2880Gbps 0.000025ms 0", "line 5: joins a node to itself"),
        ("1 4 2880Gbps 0.000025ms 0", "1 0 2880Gbps 0.000025ms 0", "line 5: joins two GPUs"),
        ("1 4 2880Gbps 0.000025ms 0", "1 4 2880Gbqs 0.000025ms 0", "line 5: .*unknown bandwidth unit 'Gbqs'"),
        ("1 4 2880Gbps 0.000025ms 0", "1 4 0Gbps 0.000025ms 0", "line 5: .*must be positive"),
        ("1 4 2880Gbps 0.000025ms 0", "1 4 2880Gbps fast 0", "line 5: 'fast' is not a time"),
        ("1 4 2880Gbps 0.000025ms 0", "1 4 2880Gbps 0.000025ms nan", "line 5: 'nan' is not an error rate"),
        ("7 8 400Gbps", "6 8 400Gbps", "1 GPU cannot be reached from gpu0 through switches: gpu3"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused_by_line(file, old, new, words):
    assert old in GOOD
    with pytest.raises(TopologyError, match=words):
        build(file(GOOD.replace(old, new, 1)))


def test_rails_that_never_meet_are_refused_by_name(file):
    with pytest.raises(TopologyError, match="1 GPU cannot be reached from gpu0 through switches: gpu3"):
        build(file("8 2 2 2 8 H100\n4 5 6 7\n0 4 1Gbps 1ns 0\n1 4 1Gbps 1ns 0\n2 5 1Gbps 1ns 0\n3 5 1Gbps 1ns 0\n"
                   "0 6 1Gbps 1ns 0\n2 6 1Gbps 1ns 0\n1 7 1Gbps 1ns 0\n3 7 1Gbps 1ns 0\n"))  # fmt: skip


def test_too_few_gpus_missing_and_binary_files_are_refused(file, tmp_path):
    with pytest.raises(TopologyError, match="has 8 GPUs, but the job has 9 ranks"):
        build(file(spectrum(2)), 9)
    with pytest.raises(TopologyError, match="cannot be read"):
        build(f"simai:{tmp_path}/none")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TopologyError, match="is not text"):
        build(f"simai:{tmp_path}/binary")


def test_the_command_line_describes_it(file, capsys):
    spec = file(spectrum(2))
    assert main(["topo", spec, "--route", "gpu0", "gpu5"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Spectrum: 8 hosts")
    assert f"spec: {spec}" in out
    assert main(["topo", spec, "--json"]) == 0
    assert [domain["name"] for domain in json.loads(capsys.readouterr().out)["domains"]] == ["nvlink", "rail", "spine"]
    assert main(["topo", spec + "x"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_the_reference_files_are_read_as_they_are(simai_reference):
    shapes = {
        "AlibabaHPN_64g_8gps_DualToR_DualPlane_200Gbps_H100": (64, 40, 320, "rail"),
        "DCN+DualToR_128g_8gps_200Gbps_H100": (128, 26, 400, "host"),
        "Spectrum-X_128g_8gps_100Gbps_A100": (128, 88, 768, "rail"),
        "Spectrum-X_16g_8gps_400Gbps_H100": (16, 12, 48, "rail"),
    }
    for name, (hosts, switches, cables, domain) in shapes.items():
        topology = build(f"simai:{simai_reference / name}")
        check_topology(topology)
        assert (topology.hosts, topology.nodes - topology.hosts, topology.links) == (hosts, switches, 2 * cables)
        assert topology.domains == ("nvlink", domain, "spine")
        assert topology.levels == (8, hosts // 8)
        assert topology.devices == (name[-4:].lower(),)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOD)), st.integers(0, 12), st.text("0 1-9.\n\tGbpsé", max_size=6))
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, at, cut, put):
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_text(GOOD[:at] + put + GOOD[at + cut :], encoding="utf-8")
    said = str(path)
    try:
        check_topology(build(f"simai:{path}"))
    except TopologyError as error:
        said = str(error)
    assert str(path) in said or "too many" in said
