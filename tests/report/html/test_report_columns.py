"""What is packed is what is unpacked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_results import unpacked

from distsim.report.html.columns import narrow, packed, packed_json


@given(st.lists(st.integers(-(2**31), 2**31 - 1)), st.booleans())
def test_integers_come_back(values, delta):
    column = np.array(values, np.int32)
    assert np.array_equal(unpacked(packed(column, delta=delta)), column)


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_unsigned_differences_wrap_around(values):
    column = np.array(values, np.uint32)
    assert np.array_equal(unpacked(packed(column, delta=True)), column)


@given(st.lists(st.integers(-(2**53) + 1, 2**53 - 1)))
def test_narrow_integers_of_64_bits_come_back_as_numbers_of_javascript(values):
    column = np.array(values, np.int64)
    assert np.array_equal(unpacked(packed(narrow(column))).astype(np.int64), column)


@given(st.lists(st.floats(allow_nan=False, width=32)))
def test_floats_come_back(values):
    assert np.array_equal(unpacked(packed(np.array(values, np.float32))), np.array(values, np.float32))


def test_truth_values_are_bytes():
    assert unpacked(packed(np.array([True, False, True]))).tolist() == [1, 0, 1]


def test_integers_beyond_53_bits_are_refused():
    with pytest.raises(ValueError, match="53 bits"):
        packed(np.array([2**53], np.int64))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_documents_come_back(value):
    assert unpacked(packed_json(value)) == value


def test_ascending_columns_are_smaller_as_differences():
    column = np.arange(0, 10_000_000, 1000, dtype=np.uint32)
    assert len(packed(column, delta=True)["b"]) < len(packed(column)["b"]) / 4
