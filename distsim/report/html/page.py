"""A :class:`~distsim.report.html.section.Page` as one HTML file: style, scripts, data and the chart library inside.

Nothing is loaded from anywhere: a content security policy forbids it. Data are JSON in ``<script type="application/json">``,
read when a section is drawn; plotly is deflated (1.4 of 4.8 MB) and woken by the first chart. Equal pages give equal bytes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from distsim import __version__
from distsim.errors import ConfigError
from distsim.report.html.columns import deflated
from distsim.report.html.markup import escape
from distsim.report.html.section import Page, Section

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'"
)
#: scripts that every page has
_BASE = ("base.js", "tables.js")


def render(page: Page, links: Sequence[tuple[str, str]] = (), *, asks: bool = False) -> str:
    """The text of the file.

    Args:
        links: (words, address) in the head, of a page that a server serves.
        asks: whether its scripts ask the server that it came from for more.
    """
    names = list(dict.fromkeys([*_BASE, *(name for section in page.sections for name in section.scripts)]))
    assets = files("distsim.report.html").joinpath("assets")
    style = assets.joinpath("page.css").read_text(encoding="utf-8")
    scripts = "".join(f"<script>\n{assets.joinpath(name).read_text(encoding='utf-8')}</script>\n" for name in names)
    words = {
        "@POLICY@": _POLICY + ("; connect-src 'self'" if asks else ""), "@LINKS@": _links(links),
        "@TITLE@": escape(page.title), "@STYLE@": style, "@ANSWER@": escape(page.answer),
        "@FIGURES@": _figures(page), "@WARNINGS@": _warnings(page), "@CONTENTS@": _contents(page),
        "@SECTIONS@": "".join(map(_section, page.sections)), "@VERSION@": escape(__version__),
        "@DATA@": "".join(map(_data, page.sections)),
        "@PLOTLY@": _plotly() if any(section.charts for section in page.sections) else "", "@SCRIPTS@": scripts,
    }  # fmt: skip
    template = assets.joinpath("page.html").read_text(encoding="utf-8")
    # NOTE: cut at the marks once, so that a mark in what is put in stays what it is
    return "".join(words.get(part, part) for part in re.split("(@[A-Z]+@)", template))


def write(page: Page, target: str | os.PathLike[str]) -> int:
    """Write the file whole or not at all; its bytes. Raises ConfigError where it cannot be written."""
    path = Path(target)
    check_file(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    text = render(page).encode("utf-8")
    try:
        part.write_bytes(text)
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(path)) from None
    finally:
        part.unlink(missing_ok=True)
    return len(text)


def check_file(path: Path) -> None:
    """Refuse, before any work, what could not be written. Raises ConfigError."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"cannot write a report to {str(path)!r}", where="-o", expected="a name that ends in .html")
    if path.is_dir():
        raise ConfigError("is a folder", where=str(path), expected="the name of an HTML file")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {path.absolute().parent}", where=str(path))


def _section(section: Section) -> str:
    drawn = f' data-draw="{section.id}"' if section.scripts else ""
    charts = " data-charts" if section.charts else ""
    name = escape(section.id)
    head = f'<section id="{name}" aria-labelledby="{name}-title"{drawn}{charts}>'
    return f'{head}<h2 id="{name}-title">{escape(section.title)}</h2>\n{section.html}\n</section>\n'


def _data(section: Section) -> str:
    if not section.data:
        return ""
    # NOTE: "</script>" inside a string would end the element; "<!--" would open a comment
    text = json.dumps(section.data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="{escape(section.id)}-data">{text}</script>\n'


@cache
def _plotly() -> str:
    """The library as text that a script unpacks. Raises ConfigError where it is not installed."""
    try:
        source = files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    except (ModuleNotFoundError, OSError):
        raise ConfigError("charts of the report need plotly, which is not installed", fix="pip install plotly") from None
    notice = source[: source.find(b"*/")].decode("utf-8", "replace").strip("/*! \n")
    said = " ".join(notice.replace("*", " ").split()).replace("--", "-")
    return f'<!-- {escape(said)} -->\n<script type="text/plain" id="plotly">{deflated(source)}</script>\n'


def _figures(page: Page) -> str:
    cells = "".join(
        f'<div class="figure"><dt>{escape(one.name)}</dt><dd>{escape(one.value)}'
        + (f"<small>{escape(one.note)}</small>" if one.note else "")
        + "</dd></div>"
        for one in page.figures
    )
    return f'<dl class="figures">{cells}</dl>' if cells else ""


def _warnings(page: Page) -> str:
    if not page.warnings:
        return ""
    count = f"{len(page.warnings)} warning{'s' if len(page.warnings) > 1 else ''}"
    items = "".join(f"<li>{escape(text)}</li>" for text in page.warnings)
    return f'<details class="warnings" id="warnings"><summary>{count}</summary><ul>{items}</ul></details>'


def _links(links: Sequence[tuple[str, str]]) -> str:
    return "".join(f'<a href="{escape(address)}">{escape(words)}</a>' for words, address in links)


def _contents(page: Page) -> str:
    return "".join(f'<a href="#{escape(section.id)}">{escape(section.title)}</a>' for section in page.sections)
