"""Aligned plain text; the same on a terminal, in a pipe and in a file."""

from __future__ import annotations

from collections.abc import Sequence

_TEXT = 14  #: characters of a text cell that are always shown


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, text: int = 1, width: int = 100) -> list[str]:
    """Lines of a table: the first ``text`` columns to the left, numbers to the right, nothing wider than ``width``.

    Where it would be wider, text is cut to ``_TEXT`` characters, with an ellipsis; then the last columns are left out.
    """
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    while sum(widths) + 2 * len(widths) > width:
        widest = max(range(text), key=lambda k: widths[k])
        if widths[widest] > _TEXT:
            widths[widest] -= 1
        elif len(widths) > text + 1:
            widths.pop()
        else:
            break
    return [_line(row, widths, text) for row in (head, *rows)]


def _line(row: Sequence[str], widths: Sequence[int], text: int) -> str:
    cells = []
    for k, (cell, width) in enumerate(zip(row, widths, strict=False)):
        cut = cell if len(cell) <= width else cell[: width - 1] + "…"
        cells.append(cut.ljust(width) if k < text else cut.rjust(width))
    return ("  " + "  ".join(cells)).rstrip()
