"""Pieces of HTML that stand by themselves in a notebook's cell: no script, no file, colours that suit light and dark.

Whatever text comes in is escaped here, and only here.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

#: Okabe and Ito's colours, told apart by everybody; the last, grey, is for what is left
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8f5bb5", "#999999")
#: warnings in full; the rest is counted
_NOTES = 5
_CELL = "padding:2px 10px 2px 0;text-align:{};font-variant-numeric:tabular-nums"


def fragment(answer: str, *parts: str) -> str:
    """The whole: the answer in bold, then the pieces that are not empty."""
    body = "".join(part for part in parts if part)
    return (
        '<div style="font-family:system-ui,sans-serif;font-size:13px;line-height:1.45;max-width:60em;overflow-wrap:anywhere">'
        f'<div style="font-weight:600;margin-bottom:6px">{escape(answer)}</div>{body}</div>'
    )


def bar(shares: Sequence[tuple[str, float, str]]) -> str:
    """One bar of parts (name, share, what to say of it) with its legend. Shares sum to 1 or less; below half a percent a part
    is only in the legend, at 0 nowhere."""
    drawn, legend = [], []
    for place, (name, share, told) in enumerate(one for one in shares if one[1] > 0):
        colour = COLOURS[min(place, len(COLOURS) - 1)]
        said = escape(f"{name} {told}")
        if share >= 0.005:
            drawn.append(f'<div title="{said}" style="width:{100 * share:.2f}%;background:{colour}"></div>')
        legend.append(f'<span style="margin-right:1em"><span style="color:{colour}">&#9632;</span> {said}</span>')
    if not legend:
        return ""
    frame = "display:flex;height:14px;margin:4px 0;border-radius:3px;overflow:hidden"
    return f'<div role="img" style="{frame}">{"".join(drawn)}</div><div style="margin-bottom:6px">{"".join(legend)}</div>'


def rows(head: Sequence[str], cells: Sequence[Sequence[str]], *, text: int = 1) -> str:
    """A table; the first ``text`` columns to the left, numbers to the right. Nothing without rows."""
    if not cells:
        return ""

    def line(row: Sequence[str], tag: str) -> str:
        made = [
            f'<{tag} style="{_CELL.format("left" if place < text else "right")}">{escape(cell)}</{tag}>'
            for place, cell in enumerate(row)
        ]
        return f'<tr style="background:none">{"".join(made)}</tr>'

    body = "".join(line(row, "td") for row in cells)
    style = "border-collapse:collapse;font-size:inherit;margin:4px 0"
    return f'<table style="{style}"><thead>{line(head, "th")}</thead><tbody>{body}</tbody></table>'


def notes(sentences: Sequence[str], mark: str = "warning: ") -> str:
    """What was ignored, repaired or guessed, a line each."""
    told = [f"{mark}{' '.join(sentence.split())}" for sentence in sentences[:_NOTES]]
    if len(sentences) > _NOTES:
        told.append(f"and {len(sentences) - _NOTES} more")
    return "".join(f'<div style="opacity:.75">{escape(line)}</div>' for line in told)
