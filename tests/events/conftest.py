"""The small network of the tests of events."""

from __future__ import annotations

import pytest

from distsim.topology.custom import load

DIAMOND = """
hosts: 4
switches: {leaf: 2, spine: 2}
link_types:
  port: {bandwidth: 50GB/s, latency: 500ns}
  up: {bandwidth: 50GB/s, latency: 500ns}
links:
  - {from: "gpu[*]", to: "leaf[*]", type: port, pairs: blocks}
  - {from: "leaf[*]", to: "spine[*]", type: up, pairs: all}
"""


@pytest.fixture(scope="session")
def diamond(tmp_path_factory):
    """gpu0, gpu1 at leaf0, gpu2, gpu3 at leaf1, two spines; 50 GB/s and 500 ns everywhere."""
    path = tmp_path_factory.mktemp("topology") / "diamond.yaml"
    path.write_text(DIAMOND)
    return load(str(path))
