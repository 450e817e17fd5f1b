"""Pieces of HTML that sections are made of. Whatever comes from a trace or a file goes through :func:`escape`."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence


def escape(text: object) -> str:
    """Text as HTML, in element or attribute."""
    return html.escape(str(text), quote=True)


def table(
    head: Sequence[str], rows: Iterable[Sequence[object]], *, text: int = 1, long: int = -1, caption: str = "",
    sort: bool = True,
    keys: Sequence[Sequence[float | str | None]] | None = None, links: Sequence[Mapping[str, object]] | None = None,
) -> str:  # fmt: skip
    """A table; its first ``text`` columns are words, the others numbers; nothing in it is HTML yet.

    Args:
        long: a column of sentences, which take several lines.
        sort: whether a click on a head sorts by it.
        keys: per row and column what to sort by, where the cell's own text would mislead (``1.5 ms``).
        links: per row attributes ``data-NAME=value``, by which the page's scripts find what a row stands for.
    """
    kinds = [" class=long" if k == long else "" if k < text else " class=n" for k in range(len(head))]
    heads = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for kind, name in zip(kinds, head, strict=True))
    body = []
    for number, row in enumerate(rows):
        cells = []
        for k, cell in enumerate(row):
            key = keys[number][k] if keys else None
            more = kinds[k] + (f' data-key="{escape(key)}"' if key is not None else "")
            cells.append(f"<td{more}>{escape(cell)}</td>")
        named = "".join(f' data-{name}="{escape(value)}"' for name, value in (links[number] if links else {}).items())
        body.append(f"<tr{named}>{''.join(cells)}</tr>")
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    kind = ' class="sortable"' if sort and len(body) > 1 else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption or head[0])}"><table{kind}>{said}'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """A list of names and their values."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows) + "</dl>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; ``kind`` is a class of the style sheet (``note``)."""
    return f"<p{f' class={kind}' if kind else ''}>{escape(text)}</p>"


def chart(id: str, label: str, height: int = 300) -> str:
    """The empty place of a chart, which a script fills; ``label`` is said to those who do not see it."""
    return f'<div class="chart" id="{escape(id)}" role="img" aria-label="{escape(label)}" style="height:{height}px"></div>'
