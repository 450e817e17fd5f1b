"""Units at the edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.units import (
    format_bandwidth,
    format_size,
    format_time,
    parse_bandwidth,
    parse_flops,
    parse_size,
    parse_time,
)  # fmt: skip


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_size, "64MiB", 64 << 20), (parse_size, "1GB", 10**9), (parse_size, "1e3", 1000), (parse_size, "0", 0),
        (parse_size, ".5KiB", 512), (parse_bandwidth, "400Gbps", 5e10), (parse_bandwidth, "400 Gbit/s", 5e10),
        (parse_bandwidth, "50GiBps", 50 * 2**30), (parse_bandwidth, 5, 5.0), (parse_time, "1.5us", 1_500_000),
        (parse_time, "2", 2000), (parse_time, "1min", 60 * 10**12), (parse_flops, "989TFLOPS", 9.89e14),
        (parse_flops, "1 PFLOP/s", 1e15), (parse_flops, "7e12", 7e12),
    ],
)  # fmt: skip
def test_text_in(parse, text, value):
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_size, "many"), (parse_size, "4 apples"), (parse_size, "-1"), (parse_size, ""), (parse_bandwidth, "0"),
        (parse_bandwidth, "-5Gbps"), (parse_bandwidth, "5G"), (parse_bandwidth, "5Xbps"), (parse_bandwidth, "nan"),
        (parse_time, "5 years"), (parse_time, "-1ns"), (parse_flops, "0"), (parse_flops, "5 Hz"),
    ],
)  # fmt: skip
def test_nonsense_is_one_clear_error(parse, text):
    with pytest.raises(ConfigError):
        parse(text)


@given(st.integers(0, 10**17))
def test_times_come_back_as_they_went_out(ps):
    assert parse_time(f"{ps}ps") == ps
    assert parse_time(format_time(ps).replace(",", "")) == pytest.approx(ps, rel=1e-3)


def test_text_out():
    assert (format_size(1536), format_size(64 << 20), format_bandwidth(5e10)) == ("1.5 KiB", "64 MiB", "50 GB/s")
    assert (format_time(1), format_time(10**15)) == ("1 ps", "1,000 s")
