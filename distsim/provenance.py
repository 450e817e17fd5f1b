"""What made a result: version, inputs by hash, what was inferred."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distsim import __version__
from distsim.topology.graph import Topology


def provenance(inputs: Iterable[str | None], topology: Topology, level: str) -> dict[str, Any]:
    """What made a result. ``inputs``: files, folders or prefixes that were read (the topology's own file is added)."""
    hashes = {path: digest for path in (*inputs, topology.name) if path and (digest := fingerprint(path))}
    return {"distsim": __version__, "inputs": hashes, "network": level, "seed": None, "inferred": list(topology.inferred)}


def fingerprint(path: str) -> str | None:
    """SHA-256 of a file; of a folder or a prefix, over the names and contents of its files in order. None if there is none."""
    place = Path(path)
    if place.is_file():
        return hashlib.sha256(place.read_bytes()).hexdigest()
    folder, pattern = (place, "*") if place.is_dir() else (place.parent, f"{place.name}.*.et*")
    files = sorted(file for file in folder.glob(pattern) if file.is_file()) if folder.is_dir() else []
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
