"""Pages of the server: the index, the knobs of a run, reports with a way back, and refusals. All made as reports are."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from distsim.errors import ConfigError
from distsim.report.html.markup import escape, paragraph
from distsim.report.html.page import render
from distsim.report.html.section import Page, Section
from distsim.report.ui.shelf import Entry
from distsim.scenario import Knob, Scenario, scenario_of

_BACK = ("All results", "/")


def index(folder: str, entries: Sequence[Entry], jobs: Sequence[Mapping[str, Any]], token: str) -> str:
    """All results, with a way to compare two, and the re-runs."""
    kinds = {kind: sum(entry.kind == kind for entry in entries) for kind in ("run", "service", "sweep", "study")}
    counts = ", ".join(f"{count} {_several(kind, count)}" for kind, count in kinds.items() if count)
    answer = counts or "no results yet: write some with distsim run ... -o, and load this page anew"
    sections = (_results(entries), _runs(jobs, token))
    return render(Page(folder, f"{answer} in {Path(folder).name or folder}" if counts else answer, sections), asks=True)


def listed(entry: Entry) -> dict[str, Any]:
    """An entry as JSON."""
    return {"name": entry.name, "kind": entry.kind, "answer": entry.answer, "about": entry.about, "knobs": entry.knobs}


def report(folders: Sequence[Path], names: Sequence[str]) -> str:
    """The report of one result, or of two side by side. Raises DistsimError."""
    from distsim.report.html.kinds import page_of

    links = [_BACK]
    if len(names) == 1:
        (name,) = names
        links += [("Turn knobs", _address("/knobs", of=name))] if _is_run(folders[0]) else []
    else:
        links += [(name, _address("/report", of=name)) for name in names]
    return render(page_of([str(folder) for folder in folders], " and ".join(names)), links)


def knobs(entry: Entry, folder: Path, free: str, jobs: Sequence[Mapping[str, Any]], token: str) -> str:
    """What can be changed of a run, and its re-runs. Raises DistsimError where it cannot be run again."""
    found = _scenario(folder).knobs()
    rows = [[knob for knob in found if knob.continuous], [knob for knob in found if not knob.continuous]]
    asked = '<label for="name">Name of the new result</label> '
    asked += f'<input type="text" id="name" value="{escape(free)}" maxlength="100" size="28">'
    factors = "".join(f'<option value="{value}">' for value in ("2x", "1.5x", "+10%", "-10%", "0.5x"))
    body = [
        f'<datalist id="factors">{factors}</datalist>',
        paragraph(
            "A factor of what is there (2x, 0.5x, +10%), or a new value with its unit. What is left empty stays as it is.",
            "note",
        ),
        _form(rows[0], "speeds and links"),
        f"<details><summary>{len(rows[1])} more: algorithms, levels, plans</summary>{_form(rows[1], 'other fields')}</details>",
        '<p><label for="other">Any other knob</label> <input type="text" id="other" size="24" placeholder="rank.3.compute" '
        'aria-describedby="other-note"> '
        '<input type="text" id="other-value" size="10" placeholder="0.5x" aria-label="its value"> '
        '<span class="note" id="other-note">such as rank.3.compute, link.*.bandwidth</span></p>',
        f'<p class="controls">{asked} <button type="submit" id="run">Simulate</button></p><p id="said" role="status"></p>',
    ]
    form = Section(
        "knobs", "Knobs", f'<form id="form" autocomplete="off">{"".join(body)}</form>',
        {"of": entry.name, "token": token}, ("ui.js",),
    )  # fmt: skip
    links = [_BACK, ("Its report", _address("/report", of=entry.name))]
    return render(Page(entry.name, entry.answer, (form, _runs(jobs, token))), links, asks=True)


def check(folder: Path, changes: Mapping[str, str]) -> None:
    """Refuse, before anything is simulated, what cannot be. Raises ConfigError, UnknownNameError."""
    if not changes:
        raise ConfigError(
            "nothing is changed: the result would be the same", fix="Turn a knob: 2x, +10%, or a value with its unit."
        )
    _scenario(folder).changed(changes)


def refused(status: HTTPStatus, message: str) -> str:
    """The page of a request that is not served."""
    first, _, rest = message.partition("\n")
    title = f"{status.value} {status.phrase}"
    # NOTE: plain: what went wrong may be what reports are made with
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>{title}</title><style>body {{ font: 15px/1.5 system-ui, sans-serif; '
        f"max-width: 46em; margin: 4em auto; padding: 0 1em; }} pre {{ white-space: pre-wrap; }}</style></head>"
        f"<body><h1>{title}</h1><p>{html.escape(first)}</p>{f'<pre>{html.escape(rest.strip())}</pre>' if rest.strip() else ''}"
        f'<p><a href="/">All results</a></p></body></html>\n'
    )


def _scenario(folder: Path) -> Scenario:
    path = folder / "summary.json"
    found = path.stat()
    return _remembered(str(path), found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=4)
def _remembered(path: str, changed: int, size: int) -> Scenario:
    """The scenario of a summary; it keeps the trace that it read."""
    spec: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))["spec"]
    return scenario_of(spec)


def _is_run(folder: Path) -> bool:
    from distsim.report.document import FORMAT
    from distsim.report.html.kinds import kind_of

    return kind_of(str(folder)) == FORMAT


def _results(entries: Sequence[Entry]) -> Section:
    """A table: a link to each report, and a tick for two to be compared."""
    if not entries:
        said = "Folders that -o of run, train, serve, sweep, capacity and study write appear here."
        return Section("results", "Results", paragraph(said))
    rows = []
    for entry in entries:
        name = escape(entry.name)
        knobs = (
            f'<a href="{escape(_address("/knobs", of=entry.name))}" aria-label="knobs of {name}">knobs</a>'
            if entry.knobs
            else ""
        )
        tick = f'<input type="checkbox" data-name="{name}" data-kind="{entry.kind}" aria-label="compare {name}">'
        tick = tick if entry.compared else ""
        rows.append(
            f"<tr><td>{tick}</td>"
            f'<td><a href="{escape(_address("/report", of=entry.name))}">{name}</a></td><td>{entry.kind}</td>'
            f'<td>{escape(entry.about)}</td><td class="long">{escape(entry.answer)}</td><td>{knobs}</td></tr>'
        )
    head = "".join(f'<th scope="col">{words}</th>' for words in ("compare", "result", "kind", "what", "answer", "run again"))
    body = (
        '<div class="controls"><button type="button" id="compare" disabled>Compare</button>'
        '<span id="compare-note" class="note" role="status">tick two results of one kind to see them side by side</span>'
        '<label>Find <input type="search" id="find" size="18"></label></div>'
        '<div class="wide" tabindex="0" role="region" aria-label="results"><table class="sortable"><thead>'
        f"<tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    return Section("results", "Results", body, {}, ("ui.js",))


def _runs(jobs: Sequence[Mapping[str, Any]], token: str) -> Section:
    """Re-runs of this server, kept up to date by the script."""
    empty = paragraph("None yet. A run's knobs lead to one.", "note")
    return Section("runs", "Re-runs", f'<div id="jobs">{empty}</div>', {"jobs": list(jobs), "token": token}, ("ui.js",))


def _form(found: Sequence[Knob], caption: str) -> str:
    rows = []
    for number, knob in enumerate(found):
        name, place = escape(knob.name), f"{caption.split()[0]}-{number}"
        settable = not knob.name.startswith("rank.N.")
        field = (
            f'<input type="text" id="{place}" data-knob="{name}" size="14"{" list=factors" if knob.continuous else ""}>'
            if settable
            else ""
        )
        label = f'<label for="{place}">{name}</label>' if settable else name
        rows.append(
            f'<tr><td>{label}</td><td>{escape(knob.value)}</td><td>{field}</td><td class="long">{escape(knob.about)}</td></tr>'
        )
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{words}</th>' for words in ("knob", "now", "new", "what it is"))
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _address(path: str, **asked: str) -> str:
    return f"{path}?{urlencode(asked)}"


def _several(word: str, count: int) -> str:
    return word if count == 1 else {"study": "studies"}.get(word, f"{word}s")
