"""What was asked, of which version, with which inputs; and the command that repeats it."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distsim.command import command_of
from distsim.report.html.markup import escape, pairs, paragraph, table
from distsim.report.html.section import Section
from distsim.result import Result

#: libraries that the numbers come from or through
_LIBRARIES = ("numpy", "numba", "simpy", "pyarrow", "pydantic", "networkx")


def section(result: Result) -> Section:
    """Tables and the command."""
    return of_run(result.spec, result.provenance, result.counts, result.folded)


def of_run(
    spec: Mapping[str, Any], provenance: Mapping[str, Any], counts: Mapping[str, int], folded: tuple[str, ...] = ()
) -> Section:
    """The section of any run that has these."""
    command = command_of(spec)
    told = [(name.replace("_", " "), _said(value)) for name, value in provenance.items()
            if name not in ("inputs", "inferred") and value is not None]  # fmt: skip
    html = [
        "<h3>Command</h3>", f'<pre id="command">{escape(command)}</pre>',
        '<button type="button" data-copy="command">Copy the command</button>',
    ]
    for sentence in (*provenance.get("inferred", ()), *folded):
        html.append(paragraph(str(sentence), "note"))
    html.append('<div class="columns"><div><h3>Run</h3>')
    html.append(pairs([*told, *((name.replace("_", " "), f"{value:,}") for name, value in counts.items())]))
    html.append("</div><div><h3>Versions, where this report was written</h3>")
    html.append(pairs([("Python", platform.python_version()), *_libraries()]))
    html.append("</div></div>")
    inputs = provenance.get("inputs", {})
    if inputs:
        html.append(table(("input", "SHA-256"), list(inputs.items()), text=2, sort=False, caption="Inputs"))
    rows = list(_flat(spec))
    html.append(f"<details><summary>The complete specification ({len(rows)} values)</summary>")
    html.append(table(("name", "value"), rows, text=2, sort=False, caption="Specification"))
    html.append("</details>")
    return Section("configuration", "Configuration", "\n".join(html))


def _libraries() -> Iterator[tuple[str, str]]:
    for name in _LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"


def _flat(spec: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Names with dots, and values."""
    for name, value in spec.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", _said(value)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
