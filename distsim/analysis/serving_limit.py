"""What limits a service: compute, memory or queue, in one word and one sentence that says why.

The rules, in order; all of them from what happened, none from names:

1. Waiting for the first iteration is at least half of the mean latency: *memory* where, for at least half of the time in which
   requests waited, fewer KV blocks were free than a request of mean length needs; else *queue*.
2. KV blocks were short like that for at least a quarter of the busy time, or preemptions had a tenth of all prompt tokens
   computed again: *memory*.
3. Requests waited for at least a quarter of the busy time while all seats of their replica (``max_num_seqs``) were taken, and
   KV blocks were free: *queue*. How many seats there are is known where the run says its deployment.
4. Else the largest part of the iterations' time (distsim.analysis.serving_work): *compute*, *memory* (weights, or the KV
   cache), *network* or *host*. Where the run does not say its deployment: *compute* if most busy time went to iterations
   with prompts, *memory* if most went to pure generation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from distsim.analysis.serving import ServingSummary
from distsim.analysis.serving_work import deployments
from distsim.analysis.serving_work import parts as parts_of
from distsim.serving.fleet import scheduler_options, usual_options
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
    KV capacity; of a queue, that all seats are taken. because: one sentence.

    waiting: share of the mean latency before the first iteration. short: share of the busy time in which requests waited and
    KV blocks were short; short_of_waiting: of the time in which they waited; full: of the busy time in which they waited, KV
    blocks were not short, and all seats were taken. parts: share of the iterations' time, None where unknown.
    """

    by: str
    of: str
    because: str
    waiting: float
    short: float
    short_of_waiting: float
    full: float
    parts: Mapping[str, float] | None


def limit(result: ServingResult, found: ServingSummary) -> Limit:
    """What limits a run, whose figures are ``found``."""
    waiting = _waiting(found)
    seats = seats_of(result)
    lack = _shortage(result, seats)
    parts = parts_of(result)
    by, of, because = _verdict(result, found, waiting, lack, _seats(seats), parts)
    return Limit(by, of, because, waiting, lack.short, lack.short_of_waiting, lack.full, parts)


def seats_of(result: ServingResult) -> dict[str, int]:
    """By name of the pool: requests that a replica serves at once at most; those left out for which it is not known."""
    found = {}
    for (name, deployment), pool in zip(deployments(result).items(), result.spec.get("pools", ()), strict=True):
        params = scheduler_options(str(pool.get("scheduler", "vllm_v1")), usual_options(deployment))[1]
        seats = getattr(params, "max_num_seqs", None)
        if seats is not None and deployment.pp == 1:  # NOTE: with stages the log tells of one batch of several
            found[name] = int(seats) * deployment.dp
    return found


def _seats(seats: Mapping[str, int]) -> str:
    few, many = (min(seats.values()), max(seats.values())) if seats else (0, 0)
    return f"all {few if few == many else f'{few} to {many}'} seats taken"


def _waiting(found: ServingSummary) -> float:
    latency = found.latencies.latency.mean
    return found.latencies.queueing.mean / latency if latency and not math.isnan(latency) else 0.0


class _Lack(NamedTuple):
    """Shares of the busy time, see Limit; full_of_waiting: of that with waiting."""

    short: float = 0.0
    short_of_waiting: float = 0.0
    full: float = 0.0
    full_of_waiting: float = 0.0


def _shortage(result: ServingResult, seats: Mapping[str, int]) -> _Lack:
    """How long somebody waited while KV blocks were short, or seats taken."""
    log, requests = result.iterations, result.requests
    if not len(log["replica"]) or not len(requests):
        return _Lack()
    took = log["ps"] * log["count"]
    size = max(row.number for row in result.replicas) + 1
    total, need, room = np.zeros(size), np.zeros(size), np.full(size, np.inf)
    for row in result.replicas:
        total[row.number] = row.kv_blocks
        need[row.number] = math.ceil(float(requests.prompt.mean()) / row.block) + 0.01 * row.kv_blocks
        room[row.number] = seats.get(row.pool, np.inf)
    who = log["replica"]
    waited = log["waiting"] > 0
    short = waited & (total[who] - log["used"] < need[who])
    full = waited & ~short & (log["sequences"] + log["prefills"] >= room[who])
    busy, waiting = float(took.sum()), float(took[waited].sum())
    shares = [(float(took[rows].sum()), whole) for rows in (short, full) for whole in (busy, waiting)]
    return _Lack(*(part / whole if whole else 0.0 for part, whole in shares))


def _verdict(
    result: ServingResult, found: ServingSummary, waiting: float, lack: _Lack, seats: str, parts: Mapping[str, float] | None
) -> tuple[str, str, str]:
    if not found.finished:
        return "nothing", "", _unserved(found)
    queue = f"requests wait {format_time(found.latencies.queueing.mean)} of {format_time(found.latencies.latency.mean)}"
    if waiting >= _WAITING and lack.short_of_waiting >= _BLOCKED:
        return "memory", _CAPACITY, f"{queue}, {_percent(lack.short_of_waiting)} of that time for lack of KV blocks"
    if waiting >= _WAITING:
        of = seats if lack.full_of_waiting >= _BLOCKED else ""
        return "queue", of, f"{queue} for their turn, replicas are {_percent(found.busy)} busy{_mostly(parts)}"
    again = found.recomputed / found.computed if found.computed else 0.0
    if lack.short >= _SHORT or again >= _AGAIN:
        why = f"KV blocks are short in {_percent(lack.short)} of the busy time"
        return "memory", _CAPACITY, f"{why}, {_percent(again)} of the prompt tokens are computed again"
    if lack.full >= _SHORT:
        why = f"requests wait for a seat (max_num_seqs) in {_percent(lack.full)} of the busy time, with KV blocks free"
        return "queue", seats, f"{why}{_mostly(parts)}"
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


def _unserved(found: ServingSummary) -> str:
    """Why nothing was served: what most requests were dropped for."""
    said = "no request was served to its end"
    for reason, count in found.drops.items():
        return f"{said}, {count:,} of {found.requests:,} were dropped: {reason}"
    return said


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
