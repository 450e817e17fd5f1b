"""Accuracy against cost: fronts, features, and the yardsticks on the reference."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim import registry
from distsim.errors import ConfigError, UnknownNameError
from distsim.network.spec import build_network
from distsim.network.transfers import single
from distsim.registry import lookup
from distsim.studies.tradeoff import EXPRESSES, FEATURES, LEVELS, YARDSTICKS, Entry, conduct, expressed, findings, front
from distsim.topology.spec import build


def quiet(fraction, what):
    pass


def entries(points):
    return [Entry("gemm", f"p{k}", error, cpu, 1, 0.5) for k, (error, cpu) in enumerate(points)]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_a_front_is_what_nothing_beats(points):
    found = entries([(float(error), float(cpu)) for error, cpu in points])
    names = front(found)
    assert names
    for one in found:
        beaten = any(
            other.error <= one.error and other.each_s <= one.each_s and (other.error, other.each_s) != (one.error, one.each_s)
            for other in found
        )
        assert (one.name in names) == (not beaten)


def test_findings_name_the_best_and_the_cheapest():
    found = findings(entries([(0.5, 1e-6), (0.1, 1e-3), (0.2, 1e-2)]), "there", True, ["gemm"], ["nccl"])
    assert found.answer == "gemm: p1 10.0 % at 1 ms a kernel, p0 50.0 % at 1 us"
    assert found.summary["fronts"] == {"gemm": ["p0", "p1"]}
    assert found.warnings == ("left out: nccl",)
    assert [row["front"] for row in found.rows] == [True, True, False]
    table = found.tables[0]
    assert [line[table.head.index("error")] for line in table.rows] == ["50.0 %", "10.0 %", "20.0 %"]
    assert [line[table.head.index("CPU a kernel")] for line in table.rows] == ["1 us", "1 ms", "10 ms"]
    assert [line[table.head.index("front")] for line in table.rows] == ["*", "*", ""]
    assert [row["error"] for row in found.rows] == [0.5, 0.1, 0.2]


def test_features_are_of_levels_that_there_are():
    topology = build("dgx_h100", 8)
    for level in LEVELS:
        build_network(level, topology)
    assert set(EXPRESSES) <= {*registry.names("network"), "fluid:mtu"}
    assert {feature for some in EXPRESSES.values() for feature in some} == set(FEATURES)
    assert expressed("analytic") == 0 < expressed("fluid") < expressed("fluid:mtu=4096")
    assert expressed("chunk:size=64KiB") == expressed("chunk")


def test_features_are_what_levels_do():
    """Contention: two flows over one link take longer than one. Storing: a second hop costs as much again."""

    def ends(level, pairs):
        network = build_network(level, build("switch:hosts=4", 4))
        for src, dst in pairs:
            network.start(single(src, dst, 1 << 24), at=0)
        done = []
        while len(done) < len(pairs):
            done += [one.at for one in network.run_until(1 << 60)]
        return max(done)

    for level in ("analytic", "fluid", "cut_through", "chunk"):
        alone, both = ends(level, [(0, 2)]), ends(level, [(0, 2), (1, 2)])
        assert (both > 1.4 * alone) == ("contention" in EXPRESSES[level])
    stored, through = ends("chunk", [(0, 2)]), ends("cut_through", [(0, 2)])
    assert stored > 1.9 * through


def test_fluid_meets_simgrid_and_is_on_the_front(network_reference):
    found = conduct(str(network_reference.parent), True, ["simgrid"], quiet)
    rows = {row["name"]: row for row in found.rows}
    assert rows["fluid"]["error"] < 1e-9
    assert rows["fluid"]["front"]
    assert rows["analytic"]["error"] > 0.1
    assert rows["cut_through"]["error"] < rows["analytic"]["error"]
    assert set(found.spec["yardsticks"]) == {"simgrid"}
    json.dumps(found.rows)


def test_providers_are_ordered_as_the_accuracy_page_says(compute_reference):
    found = conduct(str(compute_reference.parent), True, ["gemm"], quiet)
    rows = {row["name"]: row for row in found.rows}
    assert rows["tile_wave"]["error"] < rows["pnorm"]["error"] < rows["roofline"]["error"]
    assert all(row["cpu_s"] > 0 for row in rows.values())
    assert rows["roofline"]["generality"] > rows["tile_wave"]["generality"] > 0


def test_collectives_err_as_the_suite_says(nccl_reference):
    found = conduct(str(nccl_reference.parent), True, ["nccl"], quiet)
    rows = {row["name"]: row["error"] for row in found.rows}
    report = lookup("suite", "nccl")().run(nccl_reference, quiet)
    assert 0.02 < rows["nccl calibrated"] < rows["nccl as shipped"] < 0.1
    assert rows["nccl as shipped"] == pytest.approx(report.metrics["mape"], rel=0.1)


def test_refusals(tmp_path):
    with pytest.raises(ConfigError, match="not a folder"):
        conduct(str(tmp_path / "none"), True, [], quiet)
    with pytest.raises(ConfigError, match="no reference data"):
        conduct(str(tmp_path), True, [], quiet)
    with pytest.raises(UnknownNameError, match="simgrid"):
        conduct(str(tmp_path), True, ["simgrd"], quiet)
    for name in YARDSTICKS:
        for folder in ("network", "compute", "nccl", "goal", "astra", "training"):
            (tmp_path / folder).mkdir(exist_ok=True)
        with pytest.raises(ConfigError, match="holds no"):
            conduct(str(tmp_path), False, [name], quiet)
