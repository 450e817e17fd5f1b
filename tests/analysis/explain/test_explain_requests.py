"""Where the time of requests goes, from the table of a service's folder."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa
import pytest

from distsim.analysis.explain.requests import request_times
from distsim.errors import ConfigError
from distsim.report.explain_service import answer, document, text

SUMMARY = {
    "answer": "10 requests/s", "limit": {"by": "queue", "of": "", "because": "requests wait"},
    "requests": {"finished": 3, "dropped": 1, "unfinished": 0}, "iterations": {"preemptions": 2}, "kv": {"peak_share": 0.95},
}  # fmt: skip


def saved(completed, tenants=("a", "a", "b", "a")):
    """Four requests: wait 10, prompt 20, then 10 tokens of 1, 2 and 3; the last was dropped."""
    table = pa.table({
        "arrival_ps": [0, 0, 0, 0], "scheduled_ps": [10, 10, 10, -1], "first_token_ps": [30, 30, 30, -1],
        "completed_ps": completed, "prompt_tokens": [5, 6, 7, 8], "output_tokens": [11, 11, 11, 0], "restarts": [0, 0, 2, 0],
        "tenant": pa.array(tenants).dictionary_encode(),
    })  # fmt: skip
    return SimpleNamespace(summary=SUMMARY, requests=table)


def test_parts_of_every_cohort_add_up_and_disturbance_is_beyond_the_fastest():
    found = request_times(saved([40, 50, 60, -1]))
    for one in (*found.cohorts, *found.tenants):
        assert one.queueing_ps + one.prompt_ps + one.generating_ps == pytest.approx(one.latency_ps)
    whole, slowest = found.cohorts[0], found.cohorts[-1]
    assert (whole.requests, whole.latency_ps, whole.queueing_ps, whole.prompt_ps) == (3, 50, 10, 20)
    assert whole.disturbed_ps == pytest.approx((0 + 9 + 19) / 3, abs=0.5)  # the pace: 1.1 a token
    assert (slowest.requests, slowest.latency_ps, slowest.restarted) == (1, 60, 1)
    assert [one.name for one in found.tenants] == ["a", "b"]
    assert "2 requests were preempted" in text(found)
    assert "1 requests dropped" in text(found)
    assert answer(found).endswith("limited by queue")
    assert document(found)["cohorts"][0]["latency_ps"] == 50


def test_no_request_finished():
    with pytest.raises(ConfigError, match="no request finished"):
        request_times(saved([-1, -1, -1, -1]))
