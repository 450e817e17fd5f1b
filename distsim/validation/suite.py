"""What every validation suite answers, and how it reads its data."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from distsim.errors import ConfigError

Progress = Callable[[float | None, str], None]


@dataclass(slots=True)
class Report:
    """The answer of a suite.

    Attributes:
        rows: reference rows found.
        expressed: rows that distsim could run (the rest are counted in ``refused`` by reason).
        matched: rows within the suite's tolerance.
        metrics: name -> number; ``--fail-under`` compares these.
        groups: group -> {"rows": n, metric: number}.
        worst: the rows that are furthest off, worst first, JSON-ready.
    """

    suite: str
    rows: int = 0
    expressed: int = 0
    matched: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    worst: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The machine-readable form, the same for every suite."""
        return {
            "suite": self.suite, "rows": self.rows, "expressed": self.expressed, "matched": self.matched,
            "metrics": self.metrics, "groups": self.groups, "worst": self.worst, "refused": self.refused,
        }  # fmt: skip


class Suite(Protocol):
    """The role ``suite`` of the registry."""

    summary: str  #: one line for ``distsim validate --help``

    def run(self, data: Path, progress: Progress) -> Report:
        """Compare with the reference under ``data``. Raises ConfigError where the layout is not the suite's."""
        ...


def find(folder: Path, name: str) -> Path | None:
    """``name`` or ``name.gz`` in a folder."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def text(path: Path) -> str:
    """Content of a plain or gzip file. Raises ConfigError when it cannot be read."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read: {error}", where=str(path)) from None
