"""Drawings of large networks: blocks that lose nothing, boxes that are apart, and in no time."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from distsim.topology.blocks import aggregate
from distsim.topology.draw import LARGE, draw, picture
from distsim.topology.spec import build

SPECS = [
    ("h100_superpod", 1024),
    ("h100_superpod:oversubscription=2", 16384),
    ("h100_superpod:nodes=77", None),
    ("meta_clos", None),
    ("alibaba_hpn", 15360),
    ("gb200_nvl72", 576),
    ("dragonfly_plus_ndr", None),
    ("fat_tree:k=16", None),
    ("fat_tree:k=64,tiers=2", None),
    ("switch:hosts=600", None),
]


@pytest.mark.parametrize(("spec", "ranks"), SPECS)
def test_blocks_hold_every_node_and_cable(spec: str, ranks: int | None) -> None:
    topology = build(spec, ranks)
    assert topology.nodes > LARGE
    seen = aggregate(topology)
    members = [node for block in seen.blocks for member in block.members for node in member]
    assert sorted(members) == list(range(topology.nodes))
    owner = np.empty(topology.nodes, np.int64)
    for number, block in enumerate(seen.blocks):
        owner[[node for member in block.members for node in member]] = number
    between = owner[topology.link_src] != owner[topology.link_dst]
    assert sum(seen.cables.values()) == between.sum() // 2
    tiers = [block.tier for block in seen.blocks]
    assert max(tiers.count(tier) for tier in tiers) <= 16


@pytest.mark.parametrize(("spec", "ranks"), SPECS)
def test_boxes_are_apart_and_hold_what_is_drawn(spec: str, ranks: int | None, tmp_path: Path) -> None:
    topology = build(spec, ranks)
    made = picture(topology)
    if not made.boxes:
        assert spec.startswith("switch")
        return
    for one, other in itertools.combinations(made.boxes, 2):
        apart_x = one.x + one.width <= other.x or other.x + other.width <= one.x
        assert apart_x or one.y + one.height <= other.y or other.y + other.height <= one.y
    for x, y in made.points.tolist():
        assert any(box.x < x < box.x + box.width and box.y < y < box.y + box.height for box in made.boxes)
    assert len(made.names) == len(made.points)
    draw(topology, tmp_path / "it.svg")
    root = ElementTree.parse(tmp_path / "it.svg").getroot()
    frames = [rect for rect in root.iter("{http://www.w3.org/2000/svg}rect") if "block" in rect.get("class", "")]
    assert len(frames) == len(made.boxes)
    assert all(0 < float(text.get("x", 0)) < 1200 for text in root.iter("{http://www.w3.org/2000/svg}text"))


def test_a_superpod_shows_its_units() -> None:
    made = picture(build("h100_superpod", 1024))
    texts = [label.text for label in made.labels]
    assert texts.count("32 nodes of 8 hosts") == 4
    assert texts.count("8 rail switches") == 4
    assert "16 spine switches" in texts
    assert texts.count("256 x 50 GB/s") == 8
    assert made.hosts == 128


def test_many_that_are_alike_are_told_in_one() -> None:
    texts = [label.text for label in picture(build("meta_clos")).labels]
    assert texts.count("191 more") == 10
    assert "54 spine switches" in texts


def test_a_torus_of_cubes_is_drawn_by_its_cubes() -> None:
    made = picture(build("tpu_v4:dims=8x12x16"))
    assert made.hosts == len(made.points) == 2 * 3 * 4
    assert "every point a cube of 4x4x4 hosts" in made.title
    assert made.legend[0] == "ocs, dimension 0: 16 x 50 GB/s, 500 ns"


@pytest.mark.parametrize("name", ["h100_superpod", "meta_clos", "alibaba_hpn", "tpu_v5p", "fat_tree", "dragonfly", "torus"])
def test_a_thousand_gpus_are_drawn_in_seconds(name: str, tmp_path: Path) -> None:
    topology = build(name, 1024)
    start = time.process_time()
    draw(topology, tmp_path / "it.svg")
    assert time.process_time() - start < 5
    assert (tmp_path / "it.svg").stat().st_size < 2_000_000


def test_png_has_boxes_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(build("h100_superpod", 1024), tmp_path / "it.png")
    assert (tmp_path / "it.png").read_bytes()[:4] == b"\x89PNG"
