"""Expressions of studies: exact, safe, and clear when wrong."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim.errors import ConfigError, UnknownNameError
from distsim.sweep.expression import Expression

WHOLE = st.integers(-1000, 1000)


@given(a=WHOLE, b=WHOLE, c=WHOLE.filter(bool))
def test_whole_numbers_are_exact_and_as_in_python(a, b, c):
    values = {"a": a, "b": b, "c": c}
    assert Expression("a * b + a % c - b // c")(values) == a * b + a % c - b // c
    assert Expression("a / c")(values) == Fraction(a, c)
    assert isinstance(Expression("a * c / c")(values), int)
    assert Expression("a < b <= c or not a == b")(values) == (a < b <= c or a != b)
    assert Expression("max(a, b) if a in (b, c) else min(a, b, c)")(values) == (max(a, b) if a in (b, c) else min(a, b, c))


def test_text_is_composed():
    assert Expression("f'dgx_h100:nodes={gpus / 8}'")({"gpus": 64}) == "dgx_h100:nodes=8"
    assert Expression("recompute == 'full' and zero is_1 == true".replace("is_1 ", ""))({"recompute": "full", "zero": True})


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "tp.__class__", "[x for x in (1, 2)]", "lambda: 1", "(tp := 4)", "tp[0]", "min(*tp)",
        "round(number=tp)", "f'{tp!r}'", "f'{tp:>10}'", "tp if", "", "tp = 4", "tp and\nimport os", "1j", "b'x'", "..." , "\0",
        "(" * 500 + "1" + ")" * 500,
    ],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ConfigError):
        Expression(text, "study")


@pytest.mark.parametrize(
    "text", ["9 ** 9 ** 9 ** 9", "'a' * 1000000000", "tp / 0", "tp < 'x'", "log2(0)", "min()", "2 ** 9999"]
)
def test_what_has_no_value_is_refused_with_the_fields(text):
    with pytest.raises(ConfigError, match="has no value"):
        Expression(text)({"tp": 8})


def test_unknown_names_have_near_ones():
    with pytest.raises(UnknownNameError, match="micro_batch") as error:
        Expression("micro_bach <= 4", "study").check({"micro_batch", "tp"})
    assert error.value.near == ("micro_batch",)
    with pytest.raises(UnknownNameError, match="floor"):
        Expression("flor(tp)")
