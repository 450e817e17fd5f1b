"""The results below a folder: what each is, and its first line. Read anew at every look; those that did not change are kept.

Links are not followed, hidden folders are not entered, so nothing outside the folder can be reached by a name.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distsim.errors import ConfigError, UnknownNameError
from distsim.report.html.kinds import KINDS

#: folders deeper than this are not looked into
_DEPTH = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A folder of results. name: its path below the shelf's folder, with slashes."""

    name: str
    kind: str  #: run, service, sweep or study: Kind.word
    answer: str
    about: str  #: what was simulated, in short
    knobs: bool  #: whether it can be run again with other values
    compared: bool  #: whether two of its kind have a page side by side


class Shelf:
    """The results below ``folder``. Raises ConfigError where that is no folder, or itself a result."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(os.path.realpath(folder))
        self._known: dict[str, tuple[tuple[int, int], Entry | None]] = {}
        where = os.fspath(folder)
        if not self.folder.is_dir():
            what = "is a file" if self.folder.exists() else "does not exist"
            raise ConfigError(what, where=where, expected="a folder that holds folders of results")
        if self._entry(self.folder) is not None:
            parent = Path(where).parent if Path(where).name else self.folder.parent
            raise ConfigError("is itself one result", where=where, fix=f"Name the folder that holds it: distsim ui {parent}")

    def entries(self) -> list[Entry]:
        """All results, by name: numbers in names count as numbers."""
        found = []
        for place, folders, files in os.walk(self.folder):
            inside = Path(place)
            depth = len(inside.relative_to(self.folder).parts)
            hidden = [name for name in folders if name.startswith(".")]
            folders[:] = [] if depth >= _DEPTH else sorted(set(folders) - set(hidden))
            if depth and "summary.json" in files and (entry := self._entry(inside)) is not None:
                found.append(entry)
        return sorted(found, key=lambda entry: _natural(entry.name))

    def find(self, name: str) -> Entry:
        """The entry of a name. Raises UnknownNameError; names that lead elsewhere are unknown like all others."""
        by_name = {entry.name: entry for entry in self.entries()}
        if name not in by_name:
            raise UnknownNameError("result", name, by_name, where="distsim ui")
        return by_name[name]

    def place(self, entry: Entry) -> Path:
        """Its folder."""
        return self.folder / entry.name

    def stamp(self, entry: Entry) -> tuple[int, int]:
        """Changes when the result is written anew."""
        return _stamp(self.place(entry) / "summary.json")

    def beside(self, entry: Entry, called: str) -> str:
        """Name of a new result in the folder that holds ``entry``. Raises ConfigError for what is no name, or is taken."""
        if not _NAME.fullmatch(called) or called.endswith((".part", ".old")):
            raise ConfigError(
                f"{called!r} is no name for a result", expected="letters, digits, and any of . _ + = - after the first"
            )
        name = "/".join((*Path(entry.name).parts[:-1], called))
        if (self.folder / name).exists() or (self.folder / name).is_symlink():
            raise ConfigError(f"{name} is there already", fix=f"Take another name, {self.free(entry)} say.")
        return name

    def free(self, entry: Entry) -> str:
        """A name for the next result made from ``entry``: its own with the first number that is not taken."""
        base, inside = re.sub(r"-\d+$", "", Path(entry.name).name), self.place(entry).parent
        number = 2
        while (inside / f"{base}-{number}").exists():
            number += 1
        return f"{base}-{number}"

    def _entry(self, folder: Path) -> Entry | None:
        """None where the folder holds no results."""
        try:
            stamp = _stamp(folder / "summary.json")
        except OSError:
            return None
        name = folder.relative_to(self.folder).as_posix()
        known = self._known.get(name)
        if known is None or known[0] != stamp:
            known = self._known[name] = stamp, _read(folder / "summary.json", name)
        return known[1]


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _read(path: Path, name: str) -> Entry | None:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kind = KINDS.get(str(summary.get("format"))) if isinstance(summary, dict) else None
    if kind is None:
        return None
    word = kind.word
    return Entry(name, word, _answer(summary, word), _about(summary, word), word == "run", bool(kind.comparison))


def _answer(summary: dict[str, Any], kind: str) -> str:
    if kind != "sweep":
        return str(summary.get("answer", ""))
    best = summary.get("best")
    if not best:
        return "no point gave a result"
    from distsim.sweep.shown import said, titled

    figures = ", ".join(f"{titled(column)} {said(column, best.get(column))}" for column in summary.get("objectives", {}))
    return f"best of {summary.get('run', 0):,} points: {figures}"


def _about(summary: dict[str, Any], kind: str) -> str:
    if kind in ("sweep", "study"):
        return str(summary.get("name" if kind == "sweep" else "study", ""))
    spec = summary.get("spec", {})
    if kind == "service":
        pools = [pool.get("deployment", {}) for pool in spec.get("pools", ()) if isinstance(pool, dict)]
        models = dict.fromkeys(str(one.get("model", "")) for one in pools)
        return ", ".join(filter(None, (*models, str(spec.get("cluster") or ""), Path(str(spec.get("requests") or "")).name)))
    trace = spec.get("trace", "")
    first = trace if isinstance(trace, str) else next(iter(trace), "")
    topology = str(spec.get("cluster") or spec.get("topo", "")).partition(":")[0]
    return ", ".join(filter(None, (Path(str(first)).name, topology, str(spec.get("network", "")))))
