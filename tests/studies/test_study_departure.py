"""Where curves part: interpolation, words, laws."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim.studies.departure import departure

RATIOS = st.lists(st.floats(0.01, 100), min_size=1, max_size=12, unique=True)


@given(RATIOS, st.floats(0.001, 0.5))
def test_a_curve_never_departs_from_itself(ratios, tolerance):
    found = departure(ratios, [0.0] * len(ratios), tolerance)
    assert found.words == "never"
    assert found.highest is None


@given(RATIOS, st.data())
def test_order_of_points_does_not_matter(ratios, data):
    errors = data.draw(st.lists(st.floats(-1, 1), min_size=len(ratios), max_size=len(ratios)))
    order = data.draw(st.permutations(range(len(ratios))))
    shuffled = departure([ratios[k] for k in order], [errors[k] for k in order], 0.05)
    assert shuffled == departure(ratios, errors, 0.05)


@given(RATIOS, st.data())
def test_a_wider_tolerance_never_departs_more(ratios, data):
    errors = data.draw(st.lists(st.floats(-1, 1), min_size=len(ratios), max_size=len(ratios)))

    def length(tolerance):
        return sum(math.log(end / begin) for begin, end in departure(ratios, errors, tolerance).stretches)

    assert length(0.2) <= length(0.1) + 1e-9


@given(RATIOS, st.data())
def test_points_lie_in_stretches_exactly_where_they_exceed_the_tolerance(ratios, data):
    errors = data.draw(st.lists(st.floats(-1, 1).filter(lambda e: abs(abs(e) - 0.1) > 1e-6), min_size=len(ratios),
                                max_size=len(ratios)))  # fmt: skip
    found = departure(ratios, errors, 0.1)
    for ratio, error in zip(ratios, errors, strict=True):
        inside = any(begin <= ratio <= end for begin, end in found.stretches)
        assert inside == (abs(error) > 0.1)


def test_the_crossing_is_interpolated_in_the_logarithm():
    assert departure([1, 4], [-0.2, 0.0], 0.1).highest == pytest.approx(2.0)
    assert departure([1, 4], [-0.2, 0.0], 0.1).words == "below 2"
    assert departure([4, 1], [0.2, 0.0], 0.1).words == "above 2"


def test_words():
    assert departure([1, 2], [0.3, 0.2], 0.1).words == "always"
    assert departure([1, 2], [0.3, 0.2], 0.1).highest == math.inf
    assert departure([1, 4, 16], [0.0, 0.2, 0.0], 0.1).words == "from 2 to 8"
    assert departure([1, 4, 16], [-0.2, 0.0, 0.2], 0.1).words == "below 2 and above 8"


def test_an_error_that_changes_its_sign_is_within_the_tolerance_in_between():
    begin, end = departure([1, math.e], [-0.3, 0.3], 0.1).stretches
    assert begin[1] == pytest.approx(math.exp(1 / 3))
    assert end[0] == pytest.approx(math.exp(2 / 3))


def test_points_of_one_ratio_count_by_the_largest_error():
    assert departure([1, 1, 2], [0.0, 0.3, 0.3], 0.1).words == "always"
