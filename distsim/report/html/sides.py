"""What pages of two results have in common: how the two are called, and how a figure of one stands to that of the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distsim.analysis.difference import settings
from distsim.report.html.markup import paragraph, table
from distsim.report.html.section import Section

#: letters and colours of the first and the second (hues of the style sheet)
LETTERS, HUES = "AB", (1, 2)


def names(first: str, second: str) -> tuple[str, str]:
    """As short as tells them apart: ``A: chunk``, ``B: fluid``."""
    paths = [Path(folder).resolve() for folder in (first, second)]
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        said = ["/".join(path.parts[-length:]) for path in paths]
        if said[0] != said[1]:
            break
    return f"A: {said[0]}", f"B: {said[1]}"


def change(first: float, second: float) -> str:
    """``+39.5 %``; of nothing, and of what rounds to nothing, in words."""
    if first == second:
        return "same"
    if not first:
        return "new"
    percent = 100 * (second / first - 1)
    return f"{percent:+.1f} %" if abs(percent) >= 0.05 else "no difference"


def changed(first: Mapping[str, Any], second: Mapping[str, Any], called: Sequence[str]) -> Section:
    """What was asked differently."""
    rows = [(name, _said(one), _said(other)) for name, one, other in settings(first, second)]
    if not rows:
        return Section("settings", "What was changed", paragraph("Both have the same specification."))
    caption = "Fields of the specification that differ"
    return Section("settings", "What was changed", table(("field", *called), rows, text=3, sort=False, caption=caption))


def rows_of(pairs: Iterable[tuple[str, float | None, float | None]], said: Any) -> tuple[list[list[str]], list[list[Any]]]:
    """Rows (name, first, second, change) and what they sort by; ``said``: how a value is written. None: there is none."""
    rows, keys = [], []
    for name, one, other in pairs:
        both = one is not None and other is not None
        rows.append([name, "-" if one is None else said(one), "-" if other is None else said(other),
                     change(one, other) if one is not None and other is not None else "-"])  # fmt: skip
        keys.append([name, one, other, other - one if both and one is not None and other is not None else None])
    return rows, keys


def _said(value: Any) -> str:
    import json

    return "-" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
