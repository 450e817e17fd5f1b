"""What limits a service: compute, memory or queue, in one word and one sentence that says why.

The rules, in order; all of them from what happened, none from names:

1. Waiting for the first iteration is at least half of the mean latency: *memory* where, for at least half of the time in which
   requests waited, fewer KV blocks were free than a request of mean length needs; else *queue*.
2. KV blocks were short like that for at least a quarter of the busy time, or preemptions had a tenth of all prompt tokens
   computed again: *memory*.
3. Else the largest part of the iterations' time (distsim.analysis.serving_work): *compute*, *memory* (weights, or the KV
   cache), *network* or *host*. Where the run does not say its deployment: *compute* if most busy time went to iterations
   with prompts, *memory* if most went to pure generation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from distsim.analysis.serving import ServingSummary
from distsim.analysis.serving_work import parts as parts_of
from distsim.serving.result import ServingResult
from distsim.units import format_time

#: share of the mean latency that is waiting, from which on the queue is what limits
_WAITING = 0.5
#: share of the waiting time with short KV blocks, from which on they are why
_BLOCKED = 0.5
#: share of the busy time with short KV blocks, and of prompt tokens computed again, from which on memory is what limits
_SHORT, _AGAIN = 0.25, 0.1
_CAPACITY, _BANDWIDTH = "KV capacity", "bandwidth"


@dataclass(frozen=True, slots=True)
class Limit:
    """by: compute, memory, queue, network, host, or nothing where nothing was served. of: of memory, which: bandwidth, or
    KV capacity. because: one sentence.

    waiting: share of the mean latency before the first iteration. short: share of the busy time in which requests waited and
    KV blocks were short; short_of_waiting: of the time in which they waited. parts: share of the iterations' time, None where
    unknown.
    """

    by: str
    of: str
    because: str
    waiting: float
    short: float
    short_of_waiting: float
    parts: Mapping[str, float] | None


def limit(result: ServingResult, found: ServingSummary) -> Limit:
    """What limits a run, whose figures are ``found``."""
    waiting = _waiting(found)
    short, of_waiting = _shortage(result)
    parts = parts_of(result)
    by, of, because = _verdict(result, found, waiting, short, of_waiting, parts)
    return Limit(by, of, because, waiting, short, of_waiting, parts)


def _waiting(found: ServingSummary) -> float:
    latency = found.latencies.latency.mean
    return found.latencies.queueing.mean / latency if latency and not math.isnan(latency) else 0.0


def _shortage(result: ServingResult) -> tuple[float, float]:
    """Share of the busy time in which somebody waited while the KV blocks were short, of all and of that with waiting."""
    log, requests = result.iterations, result.requests
    if not len(log["replica"]) or not len(requests):
        return 0.0, 0.0
    took = log["ps"] * log["count"]
    size = max(row.number for row in result.replicas) + 1
    total, need = np.zeros(size), np.zeros(size)
    for row in result.replicas:
        total[row.number] = row.kv_blocks
        need[row.number] = math.ceil(float(requests.prompt.mean()) / row.block) + 0.01 * row.kv_blocks
    who = log["replica"]
    waited = log["waiting"] > 0
    short = waited & (total[who] - log["used"] < need[who])
    busy, with_waiting, without_room = float(took.sum()), float(took[waited].sum()), float(took[short].sum())
    return without_room / busy if busy else 0.0, without_room / with_waiting if with_waiting else 0.0


def _verdict(
    result: ServingResult, found: ServingSummary, waiting: float, short: float, of_waiting: float,
    parts: Mapping[str, float] | None,
) -> tuple[str, str, str]:  # fmt: skip
    if not found.finished:
        return "nothing", "", "no request was served to its end"
    queue = f"requests wait {format_time(found.latencies.queueing.mean)} of {format_time(found.latencies.latency.mean)}"
    if waiting >= _WAITING and of_waiting >= _BLOCKED:
        return "memory", _CAPACITY, f"{queue}, {_percent(of_waiting)} of that time for lack of KV blocks"
    if waiting >= _WAITING:
        return "queue", "", f"{queue} for their turn, replicas are {_percent(found.busy)} busy{_mostly(parts)}"
    again = found.recomputed / found.computed if found.computed else 0.0
    if short >= _SHORT or again >= _AGAIN:
        why = f"KV blocks are short in {_percent(short)} of the busy time"
        return "memory", _CAPACITY, f"{why}, {_percent(again)} of the prompt tokens are computed again"
    if parts is None:
        return _by_tokens(result)
    by = {"compute": parts["compute"], "memory": parts["weights"] + parts["kv"], "network": parts["network"],
          "host": parts["host"]}  # fmt: skip
    word = max(by, key=lambda name: by[name])
    said = {
        "compute": "goes to arithmetic",
        "memory": f"is bound by memory bandwidth ({_percent(parts['weights'])} weights and activations, "
        f"{_percent(parts['kv'])} KV cache)",
        "network": "goes to messages between GPUs",
        "host": "is waiting for the host",
    }[word]
    return word, _BANDWIDTH if word == "memory" else "", f"{_percent(by[word])} of the iterations' time {said}"


def _by_tokens(result: ServingResult) -> tuple[str, str, str]:
    """By what the iterations computed, where their kernels are unknown."""
    log = result.iterations
    took = log["ps"] * log["count"]
    total = float(took.sum())
    share = float(took[log["tokens"] > 0].sum()) / total if total else 0.0
    if share >= 0.5:
        return "compute", "", f"{_percent(share)} of the busy time are iterations with prompts (the deployment is not known)"
    because = f"{_percent(1 - share)} of the busy time are iterations that only generate (the deployment is not known)"
    return "memory", _BANDWIDTH, because


def _mostly(parts: Mapping[str, float] | None) -> str:
    """What the iterations are bound by, behind a verdict that is about something else."""
    if parts is None:
        return ""
    name = max(parts, key=lambda part: parts[part])
    said = {"compute": "arithmetic", "weights": "reading weights", "kv": "reading the KV cache", "network": "messages",
            "host": "the host"}  # fmt: skip
    return f", mostly with {said[name]} ({_percent(parts[name])})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
