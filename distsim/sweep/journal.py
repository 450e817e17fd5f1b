"""The journal of a study: one line per finished point, appended and synced, so that nothing finished is ever run again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from distsim import __version__
from distsim.errors import ConfigError
from distsim.provenance import fingerprint
from distsim.sweep.evaluator import Evaluator, Outcome

_PACKAGE = Path(__file__).resolve().parent.parent


@cache
def code() -> str:
    """Version and a hash of the sources and tables that decide results: a result of other code is never taken for ours."""
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*")):
        if file.suffix in (".py", ".yaml", ".json", ".csv", ".parquet", ".npz") and "sweep" not in file.parts:
            digest.update(f"{file.relative_to(_PACKAGE)}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:16]}"


@cache
def _content(text: str) -> str | None:
    """SHA-256 of the files that a value names, wherever in it (``simai:FILE``, ``table:file=FILE``)."""
    pieces = [text, *(part for word in text.split(",") for part in (word.partition("=")[2], word.partition(":")[2]) if part)]
    found = [digest for piece in pieces if (digest := fingerprint(piece))]
    return "+".join(found) or None


def point_key(evaluator: Evaluator, point: Mapping[str, object]) -> str:
    """What decides a point's result, as a hash: kind, fields, contents of the files they name, code."""
    files = {name: _content(value) for name, value in point.items() if isinstance(value, str)}
    said = [evaluator.name, evaluator.evaluate, code(), sorted(point.items()), sorted(files.items(), key=str)]
    return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()[:32]


class Journal:
    """``journal.jsonl``, open for appending by one process at a time.

    A line is ``{"point": key, "columns": {...}}`` or ``{"point": key, "failed": message}``. A last line that was cut short by a
    kill is dropped and its point run again; other lines that cannot be read are counted as ``damaged`` and run again.
    """

    def __init__(self, path: Path) -> None:
        """Open or make it. Raises ConfigError where another process is writing it."""
        import fcntl

        self.done: dict[str, Outcome] = {}
        self.damaged = 0
        self._file: IO[bytes] = open(path, "a+b")  # noqa: SIM115  (held open until close)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ConfigError("is being written by another distsim", where=str(path.parent)) from None
        self._file.seek(0)
        text = self._file.read()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            self._file.truncate(len(whole))
        for line in whole.splitlines():
            self._read(line)

    def _read(self, line: bytes) -> None:
        try:
            found: dict[str, Any] = json.loads(line)
            key = found["point"]
            self.done[key] = Outcome(columns=found.get("columns"), failed=found.get("failed", ""))
        except (ValueError, KeyError, TypeError):
            self.damaged += 1

    def append(self, batch: Sequence[tuple[str, Outcome]]) -> None:
        """Keep finished points; on disk when this returns."""
        lines = []
        for key, outcome in batch:
            kept = {"columns": outcome.columns} if outcome.columns is not None else {"failed": outcome.failed}
            lines.append(json.dumps({"point": key} | kept, allow_nan=False) + "\n")
            self.done[key] = outcome
        self._file.write("".join(lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let another process have it."""
        self._file.close()
