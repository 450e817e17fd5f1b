"""Two studies side by side: their best points, and both Pareto fronts in one picture."""

from __future__ import annotations

from typing import Any

from distsim.errors import ConfigError
from distsim.report.html.markup import chart, table
from distsim.report.html.section import Figure, Page, Section
from distsim.report.html.sides import LETTERS, change, names
from distsim.report.html.sweep import SavedStudy, load


def page(first: str, second: str, title: str = "") -> Page:
    """The second is measured by the first. Raises ConfigError: no common objective, or as reading a study does."""
    from distsim.sweep.shown import said, titled

    called = names(first, second)
    both = load(first), load(second)
    one, other = (dict(study.summary["objectives"]) for study in both)
    common = [name for name in one if other.get(name) == one[name]]
    if not common:
        raise ConfigError(
            f"share no objective: A has {', '.join(one) or 'none'}, B has {', '.join(other) or 'none'}", where="report",
            expected="two studies of the same objective",
        )  # fmt: skip
    best = [None if study.best is None else study.rows[study.best] for study in both]
    name = common[0]
    if best[0] is None or best[1] is None:
        answer = f"{' and '.join(letter for letter, row in zip(LETTERS, best, strict=True) if row is None)} gave no result"
    else:
        answer = (
            f"best {titled(name)} of B {said(name, best[1][name])} against {said(name, best[0][name])} of A "
            f"({change(best[0][name], best[1][name])})"
        )
    figures = tuple(
        Figure(letter, f"{study.summary['run']:,} points", f"{len(study.front):,} on the front")
        for letter, study in zip(LETTERS, both, strict=True)
    )
    sections = (_fronts(both, called, common), _best(both, called))
    return Page(title or " against ".join(one[3:] for one in called), answer, sections, figures)


def _fronts(both: tuple[SavedStudy, SavedStudy], called: tuple[str, str], common: list[str]) -> Section:
    """Points of both over two common objectives; over one, by rank."""
    x, y = (common[1], common[0]) if len(common) > 1 else ("", common[0])
    studies = []
    for study, name in zip(both, called, strict=True):
        front = set(study.front)
        rows = [(at, row) for at, row in enumerate(study.rows) if _number(row[y]) and (not x or _number(row[x]))]
        if not x:
            rows.sort(key=lambda one: one[1][y])
        studies.append({
            "name": name, "point": [row["point"] for _, row in rows], "y": [row[y] for _, row in rows],
            "x": [row[x] for _, row in rows] if x else list(range(1, len(rows) + 1)), "front": [at in front for at, _ in rows],
            "told": [", ".join(f"{field} {row[field]}" for field in study.varied) for _, row in rows],
        })  # fmt: skip
    label = f"points of both studies over {y}" + (f" and {x}" if x else ", in order")
    html = chart("fronts-chart", label, 460)
    return Section(
        "fronts", "Points of both", html, {"x": x, "y": y, "studies": studies}, ("study.js", "fronts.js"), charts=True
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _best(both: tuple[SavedStudy, SavedStudy], called: tuple[str, str]) -> Section:
    from distsim.sweep.shown import said

    best = [{} if study.best is None else study.rows[study.best] for study in both]
    columns = list(dict.fromkeys([*both[0].columns, *both[1].columns]))
    rows = [[name, *(said(name, row.get(name)) for row in best)] for name in columns if name not in ("point", "failed")]
    html = table(("column", *called), rows, text=1, sort=False, caption="The best point of each")
    return Section("best", "Best points", html)
