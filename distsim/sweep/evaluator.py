"""What a study runs: an evaluator turns one point (flat fields) into flat columns; another role, ``study``, one file each.

An evaluator names its functions as ``module:function``, so that it crosses to worker processes and clusters as text.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

from distsim.errors import ConfigError, DistsimError, OutOfMemoryError, UnknownNameError

Scalar = int | float | str | bool | None
Point = Mapping[str, object]
Columns = dict[str, Scalar]


class Function(Protocol):
    """``evaluate`` and ``bound`` of an evaluator: pure functions of the point.

    Columns end in their unit (``_ps``, ``_bytes``). ``bound`` gives lower bounds under the names of the columns that they
    bound, and raises ConfigError where the point breaks a constraint. The same point always gives the same columns.
    """

    def __call__(self, point: Point, /) -> Mapping[str, Any]:
        """Columns of one point. Raises DistsimError where it cannot be run."""
        ...


@dataclass(frozen=True, slots=True)
class Evaluator:
    """One kind of study.

    Attributes:
        name: as ``kind:`` of a study names it.
        evaluate: ``module:function``, one simulation.
        fields: that a point may have -> default; ... where it has none that expressions could use.
        required: fields that must be given.
        bound: ``module:function``, an analytic lower bound that also refuses what cannot run; "" where there is none.
        lenient: fields with which a point is simulated that bounds refuse for want of memory, to be compared with.
        objectives: from the fields that a study varies to its usual objectives, column -> min or max, the answer's first.
    """

    name: str
    evaluate: str
    fields: Mapping[str, object]
    required: tuple[str, ...] = ()
    bound: str = ""
    objectives: Callable[[frozenset[str]], Mapping[str, str]] = field(default=lambda varied: {})
    lenient: Mapping[str, object] = field(default_factory=dict)

    @property
    def defaults(self) -> dict[str, object]:
        """Fields that may be left out, with what they are then."""
        return {name: value for name, value in self.fields.items() if value is not ...}

    def check(self, names: frozenset[str] | set[str], where: str) -> None:
        """Raise UnknownNameError on a field that points of this kind do not have."""
        for name in sorted(names):
            if name not in self.fields:
                raise UnknownNameError(f"field of kind {self.name}", name, self.fields, where=where)


@cache
def function(path: str) -> Function:
    """The function of ``module:function``. Raises ConfigError where there is none."""
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be loaded ({error})", where="evaluator") from None
    return found  # type: ignore[no-any-return]


def plain(columns: Mapping[str, Any], where: str) -> Columns:
    """Columns as Python's own numbers and text, so that what comes from a journal equals what was just computed.

    Raises: ConfigError for a value that is no scalar, which is a mistake of the evaluator.
    """
    made: Columns = {}
    for name, value in columns.items():
        item = getattr(value, "item", None)
        one = item() if callable(item) else value
        if not isinstance(one, bool | int | float | str | None):
            raise ConfigError(f"column {name} is a {type(value).__name__}", where=where, expected="a number, text or None")
        # NOTE: no inf and nan: JSON has none, and no study can be ranked by them
        made[name] = None if isinstance(one, float) and not -1e308 < one < 1e308 else one
    return made


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a point is not run. ``reason`` is the same for points refused alike, ``example`` is the message of one."""

    kind: str  #: constraint (of the study), plan (of the evaluator) or memory
    reason: str
    example: str


def refusal(error: DistsimError) -> Refusal:
    """The refusal that an error of ``bound`` is: numbers are left out of its reason, so that like cases count together.

    >>> refusal(ConfigError("tp 12 does not divide 64 attention heads")).reason
    'tp N does not divide N attention heads'
    """
    if isinstance(error, OutOfMemoryError):
        return Refusal("memory", f"does not fit, most of it {error.term}", error.what)
    return Refusal("plan", alike(error.what), error.what)


def alike(text: str) -> str:
    """A message without its numbers."""
    return re.sub(r"\d[\d.,]*(?<=\d)(e[+-]?\d+)?", "N", text)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a point: its columns, or why it has none.

    ``passing``: it failed by something else than a refusal of distsim's (a mistake, no memory left), and may go well next time.
    """

    columns: Columns | None
    failed: str = ""
    passing: bool = False


def outcome(evaluate: Function, point: Point) -> Outcome:
    """Run one point; never raises an Exception."""
    try:
        return Outcome(plain(evaluate(point), "evaluate"))
    except DistsimError as error:
        return Outcome(None, str(error))
    except Exception as error:
        return Outcome(None, f"{type(error).__name__}: {error}", passing=True)
