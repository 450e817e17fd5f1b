"""Which results folders there are, by the ``format`` of their ``summary.json``, and which module makes the page of each.

A module has ``page(folder, title) -> Page``. Two folders are compared by :mod:`distsim.report.html.compare`, whose
``page(first, second, title)`` refuses what cannot be compared.
"""

from __future__ import annotations

import difflib
import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from distsim.errors import ConfigError
from distsim.report.html.section import Page

#: format -> (module, what writes such folders)
KINDS = {
    "distsim-results": ("distsim.report.html.run", "distsim run -o, distsim train -o"),
    "distsim-serving": ("distsim.report.html.serving", "distsim serve -o"),
    "distsim-sweep": ("distsim.report.html.sweep", "distsim sweep, distsim capacity -o"),
    "distsim-study": ("distsim.studies.reopen", "distsim study -o"),
}


def page_of(folders: list[str], title: str = "", levers: bool = False) -> Page:
    """The page of one folder, or of the comparison of two. levers: with what each knob of a run is worth.

    Raises: ConfigError where one is no results folder, is broken, or two are of kinds that do not go together.
    """
    kinds = [kind_of(folder) for folder in folders]
    if levers and kinds != ["distsim-results"]:
        raise ConfigError("--levers is for one run or training step", where=" ".join(folders), fix="Leave it out.")
    if len(folders) == 2:
        return _made("distsim.report.html.compare", *folders, title)
    return _made(KINDS[kinds[0]][0], folders[0], title, *([True] if levers else []))


def _made(module: str, *arguments: Any) -> Page:
    found: Page = import_module(module).page(*arguments)
    return found


def kind_of(folder: str) -> str:
    """The format of a results folder. Raises ConfigError where it is none, with results that are near."""
    place = Path(folder)
    try:
        found = json.loads((place / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    kind = found.get("format") if isinstance(found, dict) else None
    if kind in KINDS:
        return str(kind)
    if not os.path.lexists(folder):
        what = "there is no such folder"
    elif not place.is_dir():
        what = "is a file, no results folder"
    else:
        what = "is no results folder of distsim" if kind is None else f"has results of a format that has no report: {kind!r}"
    raise ConfigError(
        what, where=folder, near=near_results(place),
        expected="a folder written by " + ", ".join(made for _, made in KINDS.values()),
    )  # fmt: skip


def near_results(place: Path, most: int = 3) -> list[str]:
    """Results folders beside or below a path: those of like names first."""
    found: dict[str, Path] = {}
    for parent in (place, place.parent):
        if parent.is_dir():
            try:
                entries = sorted(parent.iterdir())
            except OSError:
                continue
            found |= {entry.name: entry for entry in entries[:500] if (entry / "summary.json").is_file()}
    like = difflib.get_close_matches(place.name, list(found), n=most, cutoff=0.4)
    return [str(found[name]) for name in dict.fromkeys([*like, *found])][:most]
