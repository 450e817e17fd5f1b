"""``--collectives nccl``: placing on clusters, the command line, replays."""

from __future__ import annotations

import json

import numpy as np
import pytest
from building import ROOT

from distsim import simulate
from distsim.cli.main import main
from distsim.engine.nccl import NcclOptions, NcclPlacer
from distsim.engine.placement import CollectiveOptions, Placer
from distsim.engine.task import CollectiveCall
from distsim.errors import ConfigError, UnknownNameError
from distsim.microbench import time_collective
from distsim.nccl.model import plan
from distsim.nccl.system import system_of_topology
from distsim.topology.spec import build

TOPO = "rail_optimized:nodes=2,device=h100"
NCCL = CollectiveOptions(nccl=NcclOptions())


def timed(operation, size, topology, network="analytic", **more):
    return time_collective(operation, size, topology.hosts, topology, network=network, options=NCCL, **more)


def test_the_closed_form_is_the_time_on_analytic_and_the_name_says_what_nccl_took():
    topology = build(TOPO)
    system = system_of_topology(topology, range(16))
    for operation, size in (("all_reduce", 1 << 26), ("all_gather", 1 << 20), ("all_to_all", 1 << 16)):
        whole = 16 * size if operation == "all_gather" else size
        expected = plan(operation, whole, system)
        timing = timed(operation, size, topology)
        assert timing.time_ps == expected.time_ps
        assert timing.algorithm == f"nccl {expected.algorithm}/{expected.protocol} x{expected.channels}"
        assert timing.links.bytes.sum() > 0


@pytest.mark.parametrize("network", ["analytic", "cut_through", "chunk", "fluid"])
def test_two_groups_at_once_share_what_they_share(network):
    """One group per node has NVLink to itself; two groups across nodes on the same rails share NICs."""
    topology = build(TOPO)
    whole = tuple(range(16))
    within = timed("all_reduce", 1 << 26, topology, network, groups=(whole[:8], whole[8:]))
    one = timed("all_reduce", 1 << 26, topology, network, groups=(whole[:8],))
    assert within.time_ps == pytest.approx(one.time_ps, rel=0.01)
    halves = (tuple(range(0, 16, 2)), tuple(range(1, 16, 2)))
    assert timed("all_reduce", 1 << 26, topology, network, groups=halves).time_ps > 0


def test_uneven_groups_take_rings_and_say_so():
    topology = build(TOPO)
    for operation in ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce", "all_to_all"):
        for network in ("analytic", "cut_through"):
            timing = timed(operation, 1 << 20, topology, network, groups=((0, 1, 2, 8, 9),))
            assert timing.algorithm.endswith("on uneven nodes")
            assert timing.time_ps > 0


@pytest.mark.parametrize("operation", ["gather", "scatter", "barrier"])
def test_what_nccl_lacks_is_distsims_own(operation):
    assert not timed(operation, 1 << 20, build(TOPO)).algorithm.startswith("nccl")


def test_schedules_and_placements_are_remembered():
    topology = build("rail_optimized:nodes=4,device=h100")
    placer = NcclPlacer(topology)
    found = []
    for hosts in (range(16), range(16, 32), range(16)):
        call = CollectiveCall(("alone", 0), "all_reduce", 1 << 26, tuple(range(16)), 0)
        found.append(placer.collective(call, np.array(hosts, np.int32), NcclOptions())[0])
    assert found[0] is found[2]
    assert found[0].pattern is found[1].pattern
    assert found[0].src.max() < 16 <= found[1].src.min()


def test_a_gpu_holds_one_rank():
    placer = Placer(build(TOPO), [0, 0, 1])
    with pytest.raises(ConfigError, match="several ranks on one GPU"):
        placer.collective(CollectiveCall(("alone", 0), "all_reduce", 8, (0, 1, 2), 0), NCCL)


def test_options_are_read_as_nccl_spells_them():
    assert NcclOptions.parse("nccl", "NVLSTree", "LL128") == NcclOptions("nvls_tree", "ll128")
    assert NcclOptions.parse("native") is None
    assert NcclOptions.parse("nccl", pxn="off", fabric="EFA") == NcclOptions(pxn=False, fabric="efa")
    with pytest.raises(UnknownNameError, match="nvls"):
        NcclOptions.parse("nccl", "nvl")
    with pytest.raises(UnknownNameError, match="simple"):
        NcclOptions.parse("nccl", None, "simpel")


def document(capsys, *words):
    assert main(["collective", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_line_forces_algorithm_and_protocol(capsys):
    words = ("all_reduce", "--size", "4MiB", "--topo", TOPO, "--collectives", "nccl")
    free = document(capsys, *words)
    assert free["algorithm"].startswith("nccl ")
    forced = document(capsys, *words, "--nccl-algo", "ring", "--nccl-proto", "Simple")
    assert forced["algorithm"].startswith("nccl ring/simple x")
    assert forced["time_ps"] != free["time_ps"]
    analytic = document(capsys, *words, "--nccl-algo", "ring", "--nccl-proto", "simple", "--network", "analytic")
    assert forced["time_ps"] == pytest.approx(analytic["time_ps"], rel=0.03)
    assert main(["collective", *words]) == 0
    assert "transfers; cut_through" in capsys.readouterr().out


def test_the_fabric_and_pxn_are_chosen(capsys):
    topology = "rail_optimized:nodes=4,device=h100"
    words = ("all_to_all", "--size", "4MiB", "--topo", topology, "--collectives", "nccl", "--network", "fluid")
    rail, pairs = document(capsys, *words), document(capsys, *words, "--nccl-pxn", "off")
    assert pairs["time_ps"] == pytest.approx(rail["time_ps"], rel=0.03)
    assert pairs["transfers"] != rail["transfers"]
    efa = document(capsys, *words, "--nccl-fabric", "efa")
    assert efa["time_ps"] > rail["time_ps"] + 10_000_000  # a message spends 15 us more on its way
    trace = str(ROOT / "traces" / "llama3_8b_tp8_dp8.json")
    both = [simulate(trace, "rail_optimized:device=h100", network="analytic", collectives="nccl", nccl_fabric=name)
            for name in ("ib", "efa")]  # fmt: skip
    assert both[0].makespan < both[1].makespan


@pytest.mark.parametrize("network", ["nvlink=analytic+*=fluid", "nvlink=analytic+*=cut_through", "nvlink=analytic+*=chunk"])
def test_mixed_levels_take_the_closed_form(network):
    topology = build(TOPO)
    for groups in ((tuple(range(8)), tuple(range(8, 16))), ()):
        for operation in ("all_reduce", "all_to_all"):
            expected = timed(operation, 1 << 26, topology, groups=groups)
            found = timed(operation, 1 << 26, topology, network, groups=groups)
            assert found.time_ps == pytest.approx(expected.time_ps, rel=1e-6 if groups else 0.03)
            assert found.links.bytes.sum() > 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--topo", "rail_optimized:nodes=2", "--collectives", "nccl"), 2, "device"),
        (("--topo", TOPO, "--nccl-algo", "ring"), 2, "--collectives nccl"),
        (("--topo", TOPO, "--collectives", "nccl", "--algorithm", "ring"), 2, "--nccl-algo"),
        (("--topo", TOPO, "--collectives", "nccl", "--nccl-algo", "rings"), 2, "Nearest: ring"),
        (("--topo", TOPO, "--collectives", "nccl", "--nccl-proto", "lll"), 2, "Nearest: ll"),
        (("--topo", TOPO, "--collectives", "nccl", "--calibration", "/nowhere.json"), 2, "/nowhere.json"),
        (("--topo", TOPO, "--collectives", "nccl", "--nccl-pxn", "of"), 2, "Nearest: off"),
        (("--topo", TOPO, "--collectives", "nccl", "--nccl-fabric", "eva"), 2, "Nearest: efa"),
        (("--topo", TOPO, "--nccl-fabric", "efa"), 2, "--collectives nccl"),
        (("--topo", TOPO, "--collectives", "nccl", "--nccl-algo", "nvls"), 1, "nvls"),
        (("--topo", "rail_optimized:nodes=2,device=abacus", "--collectives", "nccl"), 2, "abacus"),
        (("--topo", TOPO, "--collectives", "nccl", "--profile", "astra"), 2, "astra"),
    ],
)
def test_what_cannot_be_is_refused(capsys, words, code, says):
    assert main(["collective", "all_reduce", *words]) == code
    assert says in capsys.readouterr().err


def test_a_replay_takes_them():
    trace = str(ROOT / "traces" / "llama3_8b_tp8_dp8.json")
    topology = "rail_optimized:device=h100"
    native = simulate(trace, topology, network="analytic")
    nccl = simulate(trace, topology, network="analytic", collectives="nccl")
    assert nccl.makespan != native.makespan
    names = {record.algorithm for record in nccl.collectives}
    assert all(name.startswith("nccl ") for name in names)
    with pytest.raises(ConfigError, match="nccl"):
        simulate(trace, topology, collectives="nccl", splits=4)
