"""A service over time: queue, requests in service, KV cache and tokens per second in equal buckets; and batch sizes by time.

Integrals are exact: a quantity that holds from a to b counts in every bucket for as long as it lies in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.analysis.serving import held
from distsim.serving.result import ServingResult
from distsim.units import PS_PER_S

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: buckets of a run
BUCKETS = 240


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Columns by bucket, which begin at ``start`` ps and last ``width`` ps each.

    queued: requests that wait for their first iteration, mean over the bucket; running: that have begun and not ended.
    batch: requests of an iteration, mean over the replicas that compute. kv: share of the KV blocks of all replicas in use.
    busy: share of all replicas that compute. Rates are per second: arrivals and
    completions of requests, prompt tokens computed, output tokens emitted.
    """

    start: Ints
    width: int
    queued: Floats
    running: Floats
    batch: Floats
    kv: Floats
    busy: Floats
    arrivals: Floats
    completions: Floats
    prompt_tokens: Floats
    output_tokens: Floats

    def __len__(self) -> int:
        return len(self.start)


def series(result: ServingResult, buckets: int = BUCKETS) -> Series:
    """The run in equal buckets from 0 to its end (fewer where it is shorter than so many ps)."""
    end = max(1, result.end)
    width = -(-end // max(1, buckets))
    count = -(-end // width)
    edges = np.arange(count + 1, dtype=np.int64) * width
    requests, log = result.requests, result.iterations
    begun = requests.scheduled >= 0
    done = requests.completed >= 0
    until = np.where(done, requests.completed, end)
    waits = begun | (requests.status == 2)
    blocks = np.array([row.kv_blocks for row in sorted(result.replicas, key=lambda row: row.number)], dtype=np.int64)
    rows, starts, ends = _held(result)
    start, took = log["start"], log["ps"] * log["count"]
    total = float(blocks.sum())
    lasting = np.maximum(took, 1)
    busy = _mean(edges, starts, ends, np.ones(len(rows)))
    size = _mean(edges, starts, ends, (log["sequences"] + log["prefills"])[rows].astype(np.float64))
    return Series(
        edges[:-1], width,
        _mean(edges, requests.arrival[waits], np.where(begun, requests.scheduled, end)[waits], np.ones(int(waits.sum()))),
        _mean(edges, requests.scheduled[begun], until[begun], np.ones(int(begun.sum()))),
        np.divide(size, busy, out=np.zeros(count), where=busy > 0),
        _mean(edges, starts, ends, log["used"][rows] / total) if total else np.zeros(count),
        busy / max(1, len(result.replicas)),
        _rate(edges, requests.arrival), _rate(edges, requests.completed[done]),
        _mean(edges, start, start + lasting, log["tokens"] * (PS_PER_S / lasting)),
        _emitted(result, edges),
    )  # fmt: skip


def _emitted(result: ServingResult, edges: Ints) -> Floats:
    """Output tokens per second. An iteration emits one token per sequence; where a draft may give it more, a request's tokens
    after the first are spread evenly."""
    requests, log = result.requests, result.iterations
    first = _rate(edges, requests.first[requests.first >= 0])
    if any(pool.get("speculation") for pool in result.spec.get("pools", ())):
        rows = requests.done & (requests.completed > requests.first)
        took = (requests.completed - requests.first)[rows]
        rate = (requests.output - 1)[rows] * (PS_PER_S / took)
        return first + _mean(edges, requests.first[rows], requests.completed[rows], rate)
    lasting = np.maximum(log["ps"] * log["count"], 1)
    tokens = log["sequences"] * log["count"] * (PS_PER_S / lasting)
    return first + _mean(edges, log["start"], log["start"] + lasting, tokens)


def _held(result: ServingResult) -> tuple[Ints, Ints, Ints]:
    """Of all replicas: rows of the iterations, and from when until when each is the last begun."""
    found = [held(result, row.number) for row in result.replicas]
    if not found:
        none = np.zeros(0, np.int64)
        return none, none, none
    rows, starts, ends = (np.concatenate(column) for column in zip(*found, strict=True))
    return rows, starts, ends


def _mean(edges: Ints, begin: Ints, end: Ints, value: Floats) -> Floats:
    """Mean over each bucket of the sum of values that hold from ``begin`` to ``end``."""
    at = np.concatenate((begin, end))
    order = np.argsort(at, kind="stable")
    at, step = at[order], np.concatenate((value, -value))[order]
    level = np.cumsum(step)
    if not len(at):
        return np.zeros(len(edges) - 1)
    area = np.concatenate(([0.0], np.cumsum(level[:-1] * np.diff(at))))
    held_until = np.interp(edges, at, area)
    return np.asarray(np.maximum(0.0, np.diff(held_until) / np.diff(edges)))


def _rate(edges: Ints, at: Ints) -> Floats:
    """Events per second in each bucket; one at the very end belongs to the last."""
    place = np.minimum(at // (edges[1] - edges[0]), len(edges) - 2)
    counted = np.bincount(place, minlength=len(edges) - 1)
    return np.asarray(counted * (PS_PER_S / float(edges[1] - edges[0])))


def batch_sizes(result: ServingResult) -> tuple[Ints, Floats]:
    """Requests of an iteration, ascending, and the share of the busy time that iterations of that size took."""
    log = result.iterations
    size = log["sequences"] + log["prefills"]
    took = (log["ps"] * log["count"]).astype(np.float64)
    if not took.sum():
        return np.zeros(0, np.int64), np.zeros(0)
    sizes, place = np.unique(size, return_inverse=True)
    return sizes.astype(np.int64), np.bincount(place, weights=took) / took.sum()
