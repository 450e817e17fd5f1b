"""The Pareto page: one self-contained HTML file; nothing is loaded from anywhere."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from importlib.resources import files

from distsim.sweep.findings import Findings


def page(found: Findings) -> str:
    """The page of a study: scatter with the front, hover text, sortable table, refused points by reason."""
    from distsim.sweep.shown import answer

    columns = list(dict.fromkeys(name for row in found.rows for name in row))
    data = {
        "columns": columns, "rows": [[row.get(name) for name in columns] for row in found.rows], "front": found.front,
        "best": found.best, "varied": found.varied, "objectives": list(found.objectives.items()),
        "reasons": [asdict(one) for one in found.refused],
    }  # fmt: skip
    # NOTE: "</script>" inside a string would end the script; "<!--" would open a comment
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    template = files("distsim.sweep").joinpath("page.html").read_text(encoding="utf-8")
    words = {"@TITLE@": html.escape(found.name), "@ANSWER@": html.escape(answer(found)), "@DATA@": text}
    for mark, word in words.items():
        template = template.replace(mark, word)
    return template
