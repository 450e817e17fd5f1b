"""Studies and traces that come with distsim: under ``distsim/data`` of an installed package, beside it in a checkout."""

from __future__ import annotations

import glob
import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def shipped(folder: str, suffix: str) -> dict[str, Path]:
    """Name without suffix -> file of ``studies``, ``traces`` ..."""
    for place in (_PACKAGE / "data" / folder, _PACKAGE.parent / folder):
        if place.is_dir():
            return {file.stem: file for file in sorted(place.glob(f"*{suffix}"))}
    return {}


def shipped_file(folder: str, name: str, suffix: str) -> str:
    """``name`` itself where there is such a file, folder or prefix; else the shipped file of this name, if any."""
    if os.path.exists(name) or glob.glob(f"{glob.escape(name)}.*"):
        return name
    found = shipped(folder, suffix).get(name.removeprefix(f"{folder}/").removesuffix(suffix))
    return str(found) if found else name
