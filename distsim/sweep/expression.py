"""Expressions over the fields of a point, as studies write them: ``tp * pp * dp == 1024``, ``gpus / (tp * pp)``.

A small language read with :mod:`ast` and walked by closures of this module: nothing is handed to Python's ``eval``, so a study
can name fields and the functions below, and nothing else. Whole numbers are exact: ``/`` of two gives a whole number or a
fraction, never a rounded float.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any

from distsim.errors import ConfigError, UnknownNameError

Values = Mapping[str, Any]
_Term = Callable[[Values], Any]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min, "max": max, "abs": abs, "floor": math.floor, "ceil": math.ceil, "round": round, "log2": math.log2,
    "sqrt": math.sqrt, "gcd": math.gcd, "len": len,
}  # fmt: skip
_LARGEST_POWER = 4096  #: bits of a power's result: studies count GPUs, not atoms


def _divide(a: Any, b: Any) -> Any:
    """Exact where both are exact."""
    if isinstance(a, int | Fraction) and isinstance(b, int | Fraction):
        return _whole(Fraction(a) / b)
    return a / b


def _power(a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and b > 0 and a.bit_length() * b > _LARGEST_POWER:
        raise OverflowError("a power is too large")
    return _whole(Fraction(a) ** b) if isinstance(a, int) and isinstance(b, int) else a**b


def _times(a: Any, b: Any) -> Any:
    if isinstance(a, str | tuple) or isinstance(b, str | tuple):
        raise TypeError("text cannot be multiplied")
    return _whole(a * b)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, Fraction) and value.denominator == 1 else value


_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: _whole(a + b), ast.Sub: lambda a, b: _whole(a - b), ast.Mult: _times, ast.Div: _divide,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: _power,
}  # fmt: skip
_UNARY: dict[type[ast.AST], Callable[[Any], Any]] = {ast.Not: operator.not_, ast.USub: operator.neg, ast.UAdd: operator.pos}
_COMPARE: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip


class Expression:
    """One expression: its text, the names that it uses, its value on a point.

    >>> Expression("gpus / (tp * pp)")({"gpus": 1024, "tp": 8, "pp": 16})
    8
    >>> Expression("tp <= 8 and recompute in ('none', 'full')")({"tp": 4, "recompute": "full"})
    True
    """

    def __init__(self, text: str, where: str = "") -> None:
        """Raises ConfigError where the text is no expression, or one of a kind that studies do not have."""
        self.text, self.where = text.strip(), where
        self._names: dict[str, None] = {}
        try:
            tree = ast.parse(self.text, mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
            raise ConfigError(f"{text!r} is not an expression ({reason})", where=where) from None
        self._value = self._term(tree.body)

    @property
    def names(self) -> tuple[str, ...]:
        """Fields that it reads, in order of appearance."""
        return tuple(self._names)

    def check(self, known: Iterable[str]) -> None:
        """Raise UnknownNameError on the first name that is not among ``known``."""
        have = set(known)
        for name in self._names:
            if name not in have:
                raise UnknownNameError("name", name, have, where=f"{self.where}: {self.text}" if self.where else self.text)

    def __call__(self, values: Values) -> Any:
        """Its value: a number (a Fraction where a division of whole numbers is not whole), text, a truth value or None.

        Raises ConfigError where it has none: a division by zero, a comparison of text with a number.
        """
        try:
            return self._value(values)
        except (TypeError, ValueError, ArithmeticError) as error:
            said = ", ".join(f"{name}={values[name]!r}" for name in self._names)
            raise ConfigError(f"{self.text!r} has no value where {said} ({error})", where=self.where) from None

    def _term(self, node: ast.expr) -> _Term:
        """The closure of one node. Raises ConfigError on what the language does not have."""
        match node:
            case ast.Constant(value=int() | float() | str() | bool() | None as constant):
                return lambda values: constant
            case ast.Name(id=name):
                if name in ("true", "false"):  # as YAML spells them
                    return lambda values: name == "true"
                self._names[name] = None
                return lambda values: values[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                binary, a, b = _BINARY[type(op)], self._term(left), self._term(right)
                return lambda values: binary(a(values), b(values))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                unary, one = _UNARY[type(op)], self._term(operand)
                return lambda values: unary(one(values))
            case ast.BoolOp(op=op, values=parts):
                terms = [self._term(part) for part in parts]
                if isinstance(op, ast.And):
                    return lambda values: all(term(values) for term in terms)
                return lambda values: any(term(values) for term in terms)
            case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
                return self._comparison(ops, [self._term(part) for part in (left, *others)])
            case ast.IfExp(test=test, body=body, orelse=other):
                chosen, then, otherwise = self._term(test), self._term(body), self._term(other)
                return lambda values: then(values) if chosen(values) else otherwise(values)
            case ast.Tuple(elts=parts) | ast.List(elts=parts):
                terms = [self._term(part) for part in parts]
                return lambda values: tuple(term(values) for term in terms)
            case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]):
                if name not in FUNCTIONS:
                    raise UnknownNameError("function", name, FUNCTIONS, where=self.where)
                function, terms = FUNCTIONS[name], [self._term(part) for part in parts]
                return lambda values: function(*(term(values) for term in terms))
            case ast.JoinedStr(values=parts):
                terms = [self._term(part) for part in parts]
                return lambda values: "".join(str(term(values)) for term in terms)
            case ast.FormattedValue(value=inner, format_spec=None, conversion=-1):
                return self._term(inner)
        raise ConfigError(
            f"{self.text!r} holds {ast.unparse(node)!r}, which studies do not have", where=self.where,
            expected=f"fields, numbers, text, arithmetic, comparisons, and, or, not, in, if else, {', '.join(FUNCTIONS)}",
        )  # fmt: skip

    @staticmethod
    def _comparison(ops: list[ast.cmpop], terms: list[_Term]) -> _Term:
        """``a <= b < c``: all neighbours."""
        compare = [_COMPARE[type(op)] for op in ops]

        def holds(values: Values) -> bool:
            found = [term(values) for term in terms]
            return all(one(a, b) for one, a, b in zip(compare, found, found[1:], strict=False))

        return holds
