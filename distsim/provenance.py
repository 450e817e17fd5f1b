"""What made a result: version, inputs by hash, what was inferred."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from distsim import __version__
from distsim.topology.graph import Topology


def provenance(source: str, topology: Topology, level: str) -> dict[str, Any]:
    """What made a result: version, inputs by hash, what was inferred."""
    inputs = {}
    for path in (source, topology.name):
        if path and Path(path).is_file():
            inputs[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return {"distsim": __version__, "inputs": inputs, "network": level, "seed": None, "inferred": list(topology.inferred)}
