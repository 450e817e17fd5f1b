"""What a page consists of: sections, one module each, that know nothing of the page they come to stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands below it.

    ``html`` is escaped by its maker (:mod:`distsim.report.html.markup`). It says everything that a reader without scripts
    needs (a table, a sentence); ``scripts`` then draw into it. Of these the last defines ``distsim.draw.ID``, a function
    (root element, data) that the page calls once, when the section comes into view or the page is idle; data are ``data`` with
    packed columns (:func:`distsim.report.html.columns.packed`) as typed arrays.
    """

    id: str  #: anchor; unique on a page; a name in JavaScript
    title: str  #: heading, and entry of the contents
    html: str
    data: Mapping[str, Any] = field(default_factory=dict)  #: JSON-ready
    scripts: tuple[str, ...] = ()  #: files of ``assets/``, each on the page once, in this order
    charts: bool = False  #: whether it needs plotly


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that a reader wants first."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report, still without a form."""

    title: str
    answer: str  #: the first line that the command printed
    sections: tuple[Section, ...]
    figures: tuple[Figure, ...] = ()
    warnings: tuple[str, ...] = ()  #: everything that was ignored, repaired or guessed
