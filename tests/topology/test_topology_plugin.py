"""The builder that docs/topologies.md shows: one class gives everything."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from distsim import registry
from distsim.topology.check import check_topology
from distsim.topology.draw import picture
from distsim.topology.metrics import measure
from distsim.topology.spec import build

IMPORTS = """
from pydantic import Field
from distsim.registry import register
from distsim.params import Bandwidth, Count, Parameters
from distsim.topology.routing import ShortestPath
from distsim.topology.sizing import hosts_or_default, known
from distsim.topology.wiring import Wiring
"""


def test_the_documented_builder_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._components, "topology", dict(registry._components["topology"]))
    text = (Path(__file__).parents[2] / "docs" / "topologies.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_topologies.py").write_text(IMPORTS + code)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("my_topologies")
    topology = build("line", 6)
    check_topology(topology)
    assert topology.inferred == ("hosts=6 inferred from 6 ranks",)
    assert measure(topology).diameter == 5
    assert measure(topology).bisection == 50e9
    assert picture(topology).labels


def test_the_documented_yaml_works(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "topologies.md").read_text()
    (code,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "it.yaml").write_text(code)
    check_topology(build(str(tmp_path / "it.yaml")))
