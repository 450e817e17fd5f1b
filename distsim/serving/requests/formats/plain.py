"""Files of one's own: CSV, JSON lines or Parquet, one row a request.

Columns::

    arrival      seconds; or arrival_ms, arrival_us, arrival_ns, arrival_ps. Without any: lengths only
    prompt       tokens
    output       tokens
    tenant       a name                                                   (optional, like all that follow)
    session      equal cells are one conversation, empty is none
    priority     a whole number, smaller goes first; 0
    deadline     seconds after arrival at which the client gives up, or deadline_ms, deadline_ps; 0: never
    after        the row, from 0, of the turn before this one, -1: none; it comes think (seconds, or think_ms, think_ps) later
    hashes       numbers, one per block of ``hash_block`` tokens (a column of one value; 16); JSON lines and Parquet only

Other columns are ignored, with a warning. ``write.py`` writes this format.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from distsim.errors import ConfigError
from distsim.registry import register
from distsim.serving.requests.columns import Columns, nearest
from distsim.serving.requests.trace import ReplayParameters, Rows, picoseconds
from distsim.units import PS_PER_MS, PS_PER_NS, PS_PER_S, PS_PER_US

UNITS = {"": PS_PER_S, "_s": PS_PER_S, "_ms": PS_PER_MS, "_us": PS_PER_US, "_ns": PS_PER_NS, "_ps": 1}
_TIMES = ("arrival", "deadline", "think")
_OTHERS = ("prompt", "output", "tenant", "session", "priority", "after", "hashes", "hash_block")


@register("requests", "plain")
class Plain:
    """``plain:file=my_requests.csv``."""

    columns = ("prompt", "output")
    Params = ReplayParameters

    @staticmethod
    def rows(columns: Columns) -> Rows:
        """See Format."""
        cells = columns.cells
        known = {*_OTHERS, *(name + unit for name in _TIMES for unit in UNITS)}
        ignored = [name for name in cells if name not in known]
        arrival = _time(columns, "arrival")
        near = nearest("arrival", ignored)
        if arrival is None and near:
            raise ConfigError(
                "has no column 'arrival'", where=columns.file, near=near,
                expected=", ".join(f"arrival{unit}" for unit in UNITS) + ", or none of that kind (lengths only)",
            )  # fmt: skip
        optional: dict[str, NDArray[Any]] = {}
        names: tuple[str, ...] = ("",)
        if "tenant" in cells:
            names, optional["tenant"] = _numbered(columns.texts("tenant"))
        if "session" in cells:
            texts = columns.texts("session")
            _, number = _numbered(texts)
            optional["session"] = np.where([text in ("", "-1") for text in texts], -1, number).astype(np.int64)
        if "priority" in cells:
            optional["priority"] = columns.whole("priority", least=-(1 << 31), default=0).astype(np.int32)
        if "after" in cells:
            optional["after"] = _after(columns)
        for name in ("deadline", "think"):
            times = _time(columns, name, default=0.0)
            if times is not None:
                optional[name] = times
        block = columns.whole("hash_block", least=1) if "hash_block" in cells else np.array([16])
        if block.min() != block.max():
            raise ConfigError(f"differs: {block.min()}, {block.max()}", where=f"{columns.file}: column hash_block")
        hashes = {row: one for row, one in enumerate(columns.lists("hashes")) if one} if "hashes" in cells else {}
        return Rows(
            file=columns.file, arrival=arrival, prompt=columns.whole("prompt"),
            output=columns.whole("output"), optional=optional, hashes=hashes, hash_block=int(block[0]), names=names,
            warnings=(f"{columns.file}: ignored columns {', '.join(ignored)}",) if ignored else (),
        )  # fmt: skip


def _time(columns: Columns, name: str, default: float | None = None) -> NDArray[np.int64] | None:
    """ps, from the one column that tells it; None where there is none. Raises ConfigError where there are two."""
    found = [(name + unit, factor) for unit, factor in UNITS.items() if name + unit in columns.cells]
    if len(found) > 1:
        raise ConfigError(f"has columns {found[0][0]} and {found[1][0]}", where=columns.file, expected="one of them")
    return picoseconds(columns, *found[0], default=default) if found else None


def _numbered(texts: list[str]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Distinct texts in order of appearance, and the place of each row's among them."""
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return tuple(places), np.array([places[text] for text in texts], np.int32)


def _after(columns: Columns) -> NDArray[np.int64]:
    after = columns.whole("after", least=-1, default=-1)
    wrong = np.flatnonzero(after >= np.arange(len(after)))
    if len(wrong):
        row = int(wrong[0])
        raise ConfigError(
            f"row {after[row]} does not come before row {row}", where=columns.place(row, "after"),
            expected="an earlier row, or -1",
        )  # fmt: skip
    return after
