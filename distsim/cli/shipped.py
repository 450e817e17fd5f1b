"""The traces that come with distsim: in an installed package under ``distsim/data/traces``, in a checkout under ``traces``."""

from __future__ import annotations

import glob
import os
from pathlib import Path


def shipped() -> dict[str, Path]:
    """Name without suffix -> file."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "data" / "traces", package.parent / "traces"):
        if folder.is_dir():
            return {file.stem: file for file in sorted(folder.glob("*.json"))}
    return {}


def resolve(trace: str) -> str:
    """The trace itself where there is such a file, folder or prefix; else the shipped one of this name, if any.

    A shipped trace goes by its bare name (``llama3_8b_tp8_dp8``), its file name, or ``traces/`` and its file name.
    """
    if os.path.exists(trace) or glob.glob(f"{glob.escape(trace)}.*"):
        return trace
    found = shipped().get(trace.removeprefix("traces/").removesuffix(".json"))
    return str(found) if found else trace


def traces(given: list[str]) -> str | tuple[str, ...]:
    """What a command was given as trace: one path, resolved, or those of several captured ranks."""
    found = tuple(resolve(one) for one in given)
    return found[0] if len(found) == 1 else found
