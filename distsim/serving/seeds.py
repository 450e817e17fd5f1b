"""Random streams with names: what one part draws does not depend on what another part has drawn."""

from __future__ import annotations

from zlib import crc32

import numpy as np


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """The generator of ``name`` under a seed: equal names and seeds draw equally, all others independently.

    >>> stream(1, "router").bytes(4) == stream(1, "router").bytes(4) != stream(1, "failures").bytes(4)
    True
    """
    key = [part if isinstance(part, int) else crc32(part.encode()) for part in name]
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
