"""Two results of one kind side by side; each kind has a module of its own."""

from __future__ import annotations

from distsim.errors import ConfigError
from distsim.report import document, serving_document
from distsim.report.html import compare_runs, compare_services, compare_studies
from distsim.report.html.kinds import KINDS, kind_of
from distsim.report.html.section import Page


def page(first: str, second: str, title: str = "") -> Page:
    """The page of two folders; the second is measured by the first.

    Raises: ConfigError where they are of different kinds, of one that is not compared, or one cannot be read.
    """
    kinds = kind_of(first), kind_of(second)
    if kinds[0] != kinds[1]:
        raise ConfigError(
            f"cannot be compared: {first} is of {_made(kinds[0])}, {second} of {_made(kinds[1])}", where="report",
            expected="two results of one kind",
        )  # fmt: skip
    if kinds[0] == document.FORMAT:
        return compare_runs.page(first, second, title)
    if kinds[0] == serving_document.FORMAT:
        return compare_services.page(first, second, title)
    if kinds[0] == "distsim-sweep":
        return compare_studies.page(first, second, title)
    raise ConfigError(
        f"results of {_made(kinds[0])} have no page side by side", where="report", expected="two runs, services or sweeps",
        fix="Make the page of each.",
    )  # fmt: skip


def _made(kind: str) -> str:
    return KINDS[kind][1].replace(" -o", "").replace(",", " or")
