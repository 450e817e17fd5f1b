"""Drawings: every builder, both forms, well-formed and complete."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from distsim.errors import ConfigError
from distsim.registry import names
from distsim.topology.draw import draw, picture
from distsim.topology.spec import build

SPECS = [
    *names("topology"),
    "two_racks.yaml",
    "dgx_pair_without_nvswitch.yaml",
    "ring:hosts=1",
    "torus:dims=4x3x2x2",
    "nd:dims=switch4+switch4",
]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("spec", SPECS)
def test_svg_shows_every_node(spec: str, tmp_path: Path) -> None:
    topology = build(spec)
    draw(topology, tmp_path / "it.svg")
    root = ElementTree.parse(tmp_path / "it.svg").getroot()
    assert len(root.findall(f"{SVG}circle")) == topology.hosts
    assert len(root.findall(f"{SVG}rect[@class='switch']")) == topology.nodes - topology.hosts
    text = (tmp_path / "it.svg").read_text()
    assert "prefers-color-scheme:dark" in text
    assert all(f">{domain}:" in text for domain in topology.domains)


@pytest.mark.parametrize("spec", SPECS)
def test_nodes_are_apart_and_inside(spec: str) -> None:
    made = picture(build(spec))
    assert np.isfinite(made.points).all()
    assert len(np.unique(np.round(made.points, 3), axis=0)) == len(made.points)
    assert (made.points > 0).all()
    assert (made.points[:, 0] < 1200).all()
    assert (made.points[:, 1] < made.height).all()


def test_the_same_topology_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        draw(build("fat_tree:k=4"), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_large_topologies_are_drawn_without_labels() -> None:
    assert picture(build("torus:dims=16x8x8")).labels == ()
    assert picture(build("fat_tree:k=4")).labels


def test_wrap_around_cables_bend_around_the_nodes_between() -> None:
    made = picture(build("torus:dims=4x4"))
    curves = made.cables[0]
    bent = np.abs(2 * curves[:, 2:4] - curves[:, 0:2] - curves[:, 4:6]).sum(axis=1) > 1
    assert bent.sum() == 4


def test_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(build("fat_tree:k=4"), tmp_path / "it.png")
    assert (tmp_path / "it.png").read_bytes()[:4] == b"\x89PNG"


def test_png_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install matplotlib"):
        draw(build("ring"), tmp_path / "it.png")


def test_other_forms_and_unwritable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.svg or \.png"):
        draw(build("ring"), tmp_path / "it.gif")
    with pytest.raises(ConfigError, match="cannot write"):
        draw(build("ring"), tmp_path / "nowhere" / "it.svg")
