"""What a study found, as rows: tables, pages and texts are made of it. Nothing in it tells when or on what it was computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distsim import __version__
from distsim.errors import ConfigError
from distsim.registry import lookup
from distsim.sweep.evaluator import Outcome
from distsim.sweep.pareto import best, front
from distsim.sweep.points import Refused, Tally
from distsim.sweep.runner import Task
from distsim.sweep.study import Study

FORMAT = "distsim-sweep"


@dataclass(frozen=True, slots=True)
class Findings:
    """One row per point that was run, by number: ``point``, its fields, ``bound_*``, its columns, ``failed``."""

    name: str
    key: str  #: hash of study and version
    size: int  #: points before any was refused
    rows: list[dict[str, Any]]
    fields: tuple[str, ...]  #: columns that are fields of the study
    varied: tuple[str, ...]  #: fields of which the rows have more than one value
    objectives: Mapping[str, str]
    refused: list[Refused]
    front: list[int]  #: places in rows
    best: int | None  #: place in rows

    @property
    def failed(self) -> int:
        """Points that were run and gave no result."""
        return sum(row["failed"] is not None for row in self.rows)

    def __repr__(self) -> str:
        return f"Findings({self.name}: {len(self.rows):,} of {self.size:,} points run, {self.failed:,} failed)"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return lookup("notebook", "sweep")(self)  # type: ignore[no-any-return]

    def document(self) -> dict[str, Any]:
        """As JSON; the rows are in the table."""
        return {
            "format": FORMAT, "name": self.name, "key": self.key, "distsim": __version__, "points": self.size,
            "run": len(self.rows), "failed": self.failed, "refused": sum(one.count for one in self.refused),
            "objectives": dict(self.objectives), "fields": list(self.fields), "varied": list(self.varied),
            "best": None if self.best is None else self.rows[self.best],
            "front": [self.rows[at] for at in self.front], "reasons": [asdict(one) for one in self.refused],
        }  # fmt: skip


def study_key(study: Study) -> str:
    """Hash of all that a study says, and of distsim's version."""
    said = json.dumps([study.model_dump(mode="json", by_alias=True), __version__], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:32]


def findings(
    study: Study, names: Sequence[str], size: int, objectives: Mapping[str, str], tasks: Sequence[Task],
    outcomes: Mapping[str, Outcome], refused: Tally,
) -> Findings:  # fmt: skip
    """Put together what was found. Raises ConfigError where no row has an objective's column."""
    rows = []
    taken = {"point", "failed", *names}
    for task in tasks:
        outcome = outcomes[task.key]
        row: dict[str, Any] = {"point": task.numbered.number}
        row |= {name: _cell(task.numbered.values[name]) for name in names}
        row |= {f"bound_{name}": value for name, value in task.bounds.items()}
        row |= {f"result_{name}" if name in taken else name: value for name, value in (outcome.columns or {}).items()}
        rows.append(row | {"failed": None if outcome.columns is not None else outcome.failed})
    if any(row["failed"] is None for row in rows):
        columns = dict.fromkeys(name for row in rows for name in row)
        for name in objectives:
            if name not in columns:
                import difflib

                near = difflib.get_close_matches(name, list(columns), n=3, cutoff=0.4)
                said = f"one of {', '.join(columns)}"
                raise ConfigError(f"no result has the column {name!r}", where="objectives", near=near, expected=said)
    varied = tuple(name for name in names if len({row[name] for row in rows}) > 1)
    return Findings(
        study.name, study_key(study), size, rows, tuple(names), varied, objectives, refused.rows(), front(rows, objectives),
        best(rows, objectives),
    )  # fmt: skip


def _cell(value: Any) -> Any:
    """A field as a scalar: lists (layers of uneven stages) as text."""
    if isinstance(value, bool | int | float | str | None):
        return value
    return ",".join(str(one) for one in value) if isinstance(value, list | tuple) else json.dumps(value, default=str)
