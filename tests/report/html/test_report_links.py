"""The drawn topology shows every link once, and its colours are those of the links."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from report_results import Seen, steps, unpacked

from distsim.analysis.summary import summarise
from distsim.report.html.links import columns, section
from distsim.report.html.page import render
from distsim.report.html.section import Page
from distsim.result import LinkTable
from distsim.topology.draw import picture
from distsim.topology.spec import build

FLAT = ("ring:hosts=8", "fat_tree:k=4", "nd:dims=ring4+ring2+switch2", "dgx_h100:gpus=16", "fully_connected:hosts=6")
BLOCKS = ("h100_superpod:gpus=1024", "fat_tree:k=16")
CUBES = ("tpu_v4:dims=8x8x16",)


def _ends(topology, drawn):
    """Per link the two ends of its curve, nearest point first."""
    curves = np.concatenate(drawn.cables)[drawn.link_curve]
    return curves[:, :2], curves[:, 4:]


@pytest.mark.parametrize("spec", FLAT)
def test_of_a_small_topology_every_link_lies_on_the_curve_between_its_nodes(spec):
    topology = build(spec, 4)
    drawn = picture(topology)
    assert len(drawn.link_curve) == topology.links
    assert (drawn.link_box == -1).all()
    start, end = _ends(topology, drawn)
    one, other = drawn.points[topology.link_src], drawn.points[topology.link_dst]
    straight = (np.allclose(a, b) for a, b in zip(start, one, strict=True))
    for link, forward in enumerate(straight):
        ends = (one[link], other[link]) if forward else (other[link], one[link])
        assert np.allclose((start[link], end[link]), ends), topology.link_name(link)
    assert set(drawn.link_curve) == set(range(sum(map(len, drawn.cables))))


@pytest.mark.parametrize("spec", BLOCKS)
def test_of_a_large_topology_every_link_is_in_a_bundle_or_in_a_box(spec):
    topology = build(spec, 4)
    drawn = picture(topology)
    assert drawn.boxes
    assert ((drawn.link_curve >= 0) ^ (drawn.link_box >= 0)).all()
    assert set(drawn.link_curve[drawn.link_curve >= 0]) == set(range(sum(map(len, drawn.cables))))
    # a bundle and the way back are one curve, of one domain
    assert np.array_equal(drawn.link_curve[0::2], drawn.link_curve[1::2])
    domain = np.repeat(np.arange(len(drawn.cables)), list(map(len, drawn.cables)))
    shown = drawn.link_curve >= 0
    assert np.array_equal(domain[drawn.link_curve[shown]], topology.link_domain[shown])
    # its ends are on the boxes of what it joins: the boxes whose own links its hosts have
    assert (drawn.link_box[drawn.link_box >= 0] < len(drawn.boxes)).all()


@pytest.mark.parametrize("spec", CUBES)
def test_of_a_torus_of_cubes_the_optical_links_are_shown(spec):
    topology = build(spec, 4)
    drawn = picture(topology)
    optical = topology.link_domain == topology.domains.index("ocs")
    assert (drawn.link_curve[~optical] == -1).all()
    cubes = sum(map(len, drawn.cables))
    assert set(drawn.link_curve[optical]) - {-1} == set(range(cubes))
    # 4 x 4 links join two cubes each way
    counts = np.bincount(drawn.link_curve[drawn.link_curve >= 0], minlength=cubes)
    assert (counts % 32 == 0).all()
    assert (counts > 0).all()


@pytest.mark.parametrize("spec", [*FLAT, *BLOCKS, *CUBES])
def test_a_curve_is_as_busy_as_its_busiest_link_and_bytes_add_up(spec):
    topology = build(spec, 4)
    result = dataclasses.replace(steps(2, 2), topology=topology)
    random = np.random.default_rng(1)
    links = LinkTable(random.integers(0, 1 << 30, topology.links), random.integers(0, result.makespan, topology.links))
    result = dataclasses.replace(result, links=links)
    drawn = picture(topology)
    data = unpacked(columns(result, drawn))
    shown = drawn.link_curve >= 0
    assert int(data["bytes"].sum()) == int(links.bytes[shown].sum())
    assert int(data["count"].sum()) == int(shown.sum())
    for curve in (0, len(data["busy"]) // 2, len(data["busy"]) - 1):
        mine = np.flatnonzero(drawn.link_curve == curve)
        busiest = mine[np.argmax(links.busy[mine])]
        assert data["busy"][curve] == np.float32(links.busy[busiest] / result.makespan)
        assert data["names"][curve] == topology.link_name(int(busiest))
        assert data["mean"][curve] == pytest.approx(links.busy[mine].mean() / result.makespan, rel=1e-5)
    for number, box in enumerate(columns(result, drawn)["boxes"]):
        mine = np.flatnonzero(drawn.link_box == number)
        for domain, mean, most in box["inside"]:
            own = links.busy[mine[topology.link_domain[mine] == topology.domains.index(domain)]] / result.makespan
            assert (mean, most) == (pytest.approx(own.mean()), pytest.approx(own.max()))


def test_a_run_that_used_no_link_says_so():
    result = steps(2, 2)
    nothing = np.zeros(result.topology.links, np.int64)
    none = dataclasses.replace(result, links=LinkTable(nothing, nothing))
    found = section(none, summarise(none))
    assert "No link of ring:hosts=2" in found.html
    assert not found.scripts


def test_over_100_percent_is_explained():
    result = steps(2, 2)
    over = dataclasses.replace(result, links=LinkTable(result.links.bytes, np.full(result.topology.links, 2 * result.makespan)))
    found = section(over, summarise(over))
    assert "Over 100 %" in found.html
    assert Seen(render(Page("t", "a", (found,)))).data("links")["busy"].max() == 2
