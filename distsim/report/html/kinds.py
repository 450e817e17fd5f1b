"""Which kinds of results folders there are, by the ``format`` of their ``summary.json``, and which modules make their pages.

The module of a page has ``page(folder, title) -> Page``; that of a comparison ``page(first, second, title)``.
"""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from distsim.errors import ConfigError
from distsim.report import document, serving_document
from distsim.report.html.section import Page


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of results folders. Modules go by name: one is imported where its page is made."""

    word: str  #: what people call it
    written_by: str
    page: str  #: module of its page
    comparison: str = ""  #: module of the page of two; empty: two are not compared


#: format -> kind
KINDS = {
    document.FORMAT: Kind(
        "run", "distsim run -o, distsim train -o", "distsim.report.html.run", "distsim.report.html.compare_runs"
    ),
    serving_document.FORMAT: Kind(
        "service", "distsim serve -o", "distsim.report.html.serving", "distsim.report.html.compare_services"
    ),
    "distsim-sweep": Kind(
        "sweep", "distsim sweep, distsim capacity -o", "distsim.report.html.sweep", "distsim.report.html.compare_studies"
    ),
    "distsim-study": Kind("study", "distsim study -o", "distsim.studies.reopen"),
}


def page_of(folders: list[str], title: str = "", levers: bool = False) -> Page:
    """The page of one folder, or of the comparison of two. levers: with what each knob of a run is worth.

    Raises: ConfigError where one is no results folder, is broken, or two are of kinds that do not go together.
    """
    kinds = [kind_of(folder) for folder in folders]
    if levers and kinds != [document.FORMAT]:
        raise ConfigError("--levers is for one run or training step", where=" ".join(folders), fix="Leave it out.")
    if len(folders) == 2:
        return _compared(folders, [KINDS[kind] for kind in kinds], title)
    return _made(KINDS[kinds[0]].page, folders[0], title, *([True] if levers else []))


def _compared(folders: list[str], kinds: list[Kind], title: str) -> Page:
    """The second is measured by the first."""
    made = [kind.written_by.replace(" -o", "").replace(",", " or") for kind in kinds]
    if kinds[0] != kinds[1]:
        raise ConfigError(
            f"cannot be compared: {folders[0]} is of {made[0]}, {folders[1]} of {made[1]}", where="report",
            expected="two results of one kind",
        )  # fmt: skip
    if not kinds[0].comparison:
        words = [f"{kind.word}s" for kind in KINDS.values() if kind.comparison]
        raise ConfigError(
            f"results of {made[0]} have no page side by side", where="report",
            expected=f"two {', '.join(words[:-1])} or {words[-1]}", fix="Make the page of each.",
        )  # fmt: skip
    return _made(kinds[0].comparison, *folders, title)


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
        expected="a folder written by " + ", ".join(one.written_by for one in KINDS.values()),
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
