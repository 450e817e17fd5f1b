"""Shares of peak memory bandwidth: closed forms of the roofline, bounds, flags, refusals."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim.cost.kernel import Answer
from distsim.errors import ConfigError
from distsim.hardware.gpu import gpu
from distsim.models.catalog import model
from distsim.studies.bandwidth import ADAM_BYTES, CLASSES, PARAMETERS, Asked, conduct, findings, row


def quiet(fraction, what):
    pass


SMALL = Asked(gpus=("h100_sxm",), sizes=(1, 64, 4096))


def test_the_roofline_reaches_all_of_it_where_memory_bounds_and_less_where_arithmetic_does():
    found = conduct(dataclasses.replace(SMALL, providers=("roofline",)), quiet)
    assert len(found.rows) == len(CLASSES) * 3
    for one in found.rows:
        if one["memory_bound"]:
            assert one["bandwidth_share"] == pytest.approx(1.0, rel=1e-12)
        else:
            assert one["bandwidth_share"] < 1
            assert one["compute_share"] == pytest.approx(1.0, rel=1e-12)
        assert not one["above_peak"]


def test_no_shipped_provider_is_faster_than_memory():
    found = conduct(Asked(), quiet)
    assert found.summary["above_peak"] == 0
    assert found.warnings == ()
    assert "none of" in found.answer
    assert max(one["bandwidth_share"] for one in found.rows) <= 1 + 1e-9


def test_streams_tend_to_their_share():
    """docs/compute.md: 80 % of the data sheet for large kernels, all launch for small ones."""
    found = conduct(dataclasses.replace(SMALL, providers=("stream",), classes=("norm",), sizes=(1, 1 << 20)), quiet)
    small, large = (one["bandwidth_share"] for one in found.rows)
    assert small < 0.01
    assert large == pytest.approx(0.8, rel=0.01)


@given(st.sampled_from(sorted(CLASSES)), st.integers(1, 1 << 16))
def test_bytes_grow_with_tokens(kind, tokens):
    llama = model("llama3-70b")
    assert CLASSES[kind].make(llama, 8, tokens + 1, "bf16").bytes > CLASSES[kind].make(llama, 8, tokens, "bf16").bytes


def test_bytes_in_closed_form():
    llama = model("llama3-70b")
    assert CLASSES["optimizer"].make(llama, 8, 3, "bf16").bytes == 3 * PARAMETERS * ADAM_BYTES
    assert CLASSES["norm"].make(llama, 8, 3, "bf16").bytes == 3 * 8192 * 2 * 2
    assert CLASSES["attention generation"].make(llama, 8, 3, "bf16").bytes == 3 * 4096 * 1 * 2 * 128 * 2
    assert CLASSES["gemm"].make(llama, 8, 3, "bf16").bytes == 2 * (3 * 8192 + 8192 * 7168 + 3 * 7168)


def test_too_fast_is_flagged():
    machine, kernel = gpu("h100_sxm"), CLASSES["norm"].make(model("llama3-70b"), 8, 4096, "bf16")
    least = kernel.bytes / machine.memory_bandwidth
    rows = [row(machine, "stream", "norm", 4096, kernel, Answer(least * factor, "stream", 0.1)) for factor in (0.8, 1.0, 1.25)]
    assert [one["above_peak"] for one in rows] == [True, False, False]
    found = findings(dataclasses.replace(SMALL, providers=("stream",), classes=("norm",)), rows)
    assert "1 of 3 answers imply more than 100 %" in found.answer
    assert "125 %" in found.warnings[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gpus": ("h101",)}, "unknown GPU"),
        ({"providers": ("roofling",)}, "roofline"),
        ({"classes": ("gem",)}, "gemm"),
        ({"sizes": (0,)}, "0 tokens"),
        ({"tp": 7}, "does not divide"),
        ({"tp": 0}, "does not divide"),
        ({"dtype": "fp4"}, "no fp4 units"),
        ({"model": "deepseek-v3"}, "compresses"),
        ({"providers": ("stream",), "classes": ("gemm",)}, "no provider serves"),
    ],
)
def test_refusals(changes, said):
    with pytest.raises(ConfigError, match=said):
        conduct(dataclasses.replace(SMALL, **changes), quiet)
