"""From a study to its points: the product of its axes, cut short where a derived field or a constraint refuses.

Expressions are tried as soon as their fields are known, so that one refusal cuts a whole branch of the product; a study of a
million combinations with few that fit costs little more than those.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from distsim.errors import ConfigError
from distsim.sweep.evaluator import Evaluator, Refusal
from distsim.sweep.expression import Expression
from distsim.sweep.study import Study, listed

_MOST = 1_000_000  #: points of one study that meet its constraints


@dataclass(slots=True)
class Refused:
    """Points refused for one reason."""

    kind: str
    reason: str
    example: str
    count: int = 0
    first: int = 0  #: number of the first point


@dataclass(slots=True)
class Tally:
    """Refused points by reason, in order of appearance."""

    reasons: dict[tuple[str, str], Refused] = field(default_factory=dict)

    def add(self, number: int, why: Refusal, count: int = 1) -> None:
        """``count`` points from ``number`` on."""
        key = why.kind, why.reason
        one = self.reasons.setdefault(key, Refused(why.kind, why.reason, why.example, 0, number))
        one.count += count

    @property
    def count(self) -> int:
        """Points refused."""
        return sum(one.count for one in self.reasons.values())

    def rows(self) -> list[Refused]:
        """Most frequent first, of equals the one met first."""
        return sorted(self.reasons.values(), key=lambda one: (-one.count, one.first, one.reason))


@dataclass(frozen=True, slots=True)
class Numbered:
    """A point: its number in the whole product, all its names, and the fields that its evaluator sees."""

    number: int
    values: Mapping[str, Any]
    point: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Step:
    """An expression to try: of a derived field, or a constraint where ``field`` is empty."""

    field: str
    expression: Expression


class Space:
    """The product of a study's axes. Checked when made: raises ConfigError, UnknownNameError."""

    def __init__(self, study: Study, evaluator: Evaluator, where: str = "study") -> None:
        self._study, self._where = study, where
        self._axes = self._read_axes()
        self._check_names(evaluator)
        self._steps = self._plan_steps(evaluator)
        self._start = {**evaluator.defaults, **study.base}
        sizes = [len(axis) for axis in self._axes]
        self._stride = [math.prod(sizes[depth + 1 :]) for depth in range(len(sizes))]
        self.size = math.prod(sizes)  #: points before any is refused
        #: names in the order of columns: what the study says, base first
        self.names = tuple(dict.fromkeys([*study.base, *(name for axis in self._axes for name in axis[0]), *study.derived]))

    def points(self, refused: Tally) -> list[Numbered]:
        """Points that meet the study's constraints, by number; the others are added to ``refused``.

        Raises: ConfigError where there are more than a million.
        """
        found: list[Numbered] = []
        seen: set[str] = set()
        for number, values in self._walk(0, 0, self._start, refused):
            kept = {name: values[name] for name in self.names}
            point = {name: value for name, value in kept.items() if name not in self._study.variables}
            key = repr(sorted(point.items()))
            if key in seen:
                refused.add(number, Refusal("constraint", "the same as an earlier point", f"point {number}"))
                continue
            seen.add(key)
            found.append(Numbered(number, kept, point))
            if len(found) > _MOST:
                raise ConfigError(f"more than {_MOST:,} points", where=self._where, fix="Add constraints, or shorten the grid.")
        return found

    def _walk(
        self, depth: int, number: int, values: Mapping[str, Any], refused: Tally
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Points below one branch, by number."""
        tried, why = self._try(depth, values)
        if why is not None:
            refused.add(number, why, math.prod(len(axis) for axis in self._axes[depth:]))
        elif depth == len(self._axes):
            yield number, tried
        else:
            for at, given in enumerate(self._axes[depth]):
                yield from self._walk(depth + 1, number + at * self._stride[depth], {**tried, **given}, refused)

    def _try(self, depth: int, values: Mapping[str, Any]) -> tuple[Mapping[str, Any], Refusal | None]:
        """The values with what can be derived at this depth; or why the branch is refused."""
        made = dict(values)
        for step in self._steps[depth]:
            found = step.expression(made)
            text = step.expression.text
            if step.field and not isinstance(found, Fraction):
                made[step.field] = found
            elif step.field or not found:
                used = ", ".join(f"{name}={made[name]}" for name in step.expression.names)
                return made, Refusal("constraint", f"{step.field} = {text} is not whole" if step.field else text, used)
        return made, None

    def _read_axes(self) -> list[list[dict[str, Any]]]:
        """Cases, zip groups, variables and grid, each a list of what it sets."""
        study = self._study
        axes = [[dict(case) for case in study.points]] if study.points else []
        for at, group in enumerate(study.zip):
            columns = {name: listed(axis) for name, axis in group.items()}
            lengths = {name: len(values) for name, values in columns.items()}
            if len(set(lengths.values())) > 1:
                said = ", ".join(f"{name} has {count}" for name, count in lengths.items())
                raise ConfigError(f"fields that vary together differ in length: {said}", where=f"{self._where}: zip {at + 1}")
            axes.append([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
        for name, axis in (*study.variables.items(), *study.grid.items()):
            axes.append([{name: value} for value in listed(axis)])
        if any(not axis for axis in axes):
            raise ConfigError("an axis without values leaves no point", where=self._where)
        if study.points and len({frozenset(case) for case in study.points}) > 1:
            union = {name: None for case in study.points for name in case}
            missing = [name for name in union if name not in study.base and any(name not in case for case in study.points)]
            if missing:
                raise ConfigError(
                    f"not every case says {', '.join(missing)}", where=f"{self._where}: points", fix="Put a default into base."
                )
            axes[0] = [{name: case.get(name, study.base.get(name)) for name in union} for case in study.points]
        return axes

    def _check_names(self, evaluator: Evaluator) -> None:
        study, where = self._study, self._where
        parts = [
            ("points", {name for case in study.points for name in case}),
            *((f"zip {at + 1}", set(group)) for at, group in enumerate(study.zip)),
            ("grid", set(study.grid)), ("derived", set(study.derived)),
        ]  # fmt: skip
        for part, names in [("base", set(study.base)), *parts]:
            evaluator.check(names, f"{where}: {part}")
        home: dict[str, str] = {}
        for part, names in [("variables", set(study.variables)), *parts]:
            for name in sorted(names):
                if name in home:
                    raise ConfigError(f"{name} is given by {home[name]} and by {part}", where=where)
                home[name] = part
        for name in study.base:
            if home.get(name, "points") != "points":
                raise ConfigError(f"{name} is given by base and by {home[name]}", where=where)
        for name in study.variables:
            if name in evaluator.fields:
                raise ConfigError(f"{name} is a field of kind {evaluator.name}, not a variable", where=where)
        missing = [name for name in evaluator.required if name not in {*study.base, *home}]
        if missing:
            raise ConfigError(f"no {', '.join(missing)}", where=where, fix=f"Add {missing[0]} to base or to the grid.")

    def _plan_steps(self, evaluator: Evaluator) -> list[list[_Step]]:
        """Expressions by the depth at which their names are known: derived fields in order, then constraints."""
        study = self._study
        known = dict.fromkeys((*evaluator.defaults, *study.base), 0)
        for depth, axis in enumerate(self._axes):
            known |= dict.fromkeys(axis[0], depth + 1)
        # a default that an axis or a derived field replaces is not known before that
        for name in study.derived:
            known.pop(name, None)
        steps: list[list[_Step]] = [[] for _ in range(len(self._axes) + 1)]
        for name, text in study.derived.items():
            expression = Expression(text, f"{self._where}: derived {name}")
            expression.check(known)
            depth = max((known[used] for used in expression.names), default=0)
            known[name] = depth
            steps[depth].append(_Step(name, expression))
        for text in study.constraints:
            expression = Expression(text, f"{self._where}: constraints")
            expression.check(known)
            steps[max((known[used] for used in expression.names), default=0)].append(_Step("", expression))
        return steps
