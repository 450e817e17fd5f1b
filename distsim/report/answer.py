"""The first line: how long, on how many ranks, what of it is what, and what limits it."""

from __future__ import annotations

from collections.abc import Sequence

from distsim.analysis.breakdown import PARTS
from distsim.analysis.steps import median_ps, steps
from distsim.analysis.summary import Summary
from distsim.result import Result
from distsim.units import format_time

#: parts of a step in words
SAID = {
    "compute": "compute", "exposed": "exposed communication", "memory": "exposed memory", "host": "host", "idle": "idle",
}  # fmt: skip


def answer(result: Result, summary: Summary) -> str:
    """``step 812.4 ms on 64 ranks: 61 % compute, 27 % exposed communication (dp all_reduce, spine links up to 92 % busy), 12 %
    idle``. Percentages are averages over ranks and sum to 100; memory and host are left out where they round to 0. The
    results of a run that broke off say so. A captured trace of iterations begins with ``5 steps of 341.2 ms (median) in
    1.733 s``: the GPU work of an iteration, on the rank where it takes longest.
    """
    average = summary.breakdown.average()
    percent = dict(zip(PARTS, percentages([average[part] for part in PARTS]), strict=True))
    said = []
    for part in PARTS:
        if percent[part] or part in ("compute", "exposed", "idle"):
            why = _culprit(summary) if part == "exposed" and percent[part] else ""
            said.append(f"{percent[part]} % {SAID[part]}{why}")
    ranks = "1 rank" if result.ranks == 1 else f"{result.ranks:,} ranks"
    partial = "partial results: " if "partial" in result.events else ""
    return f"{partial}{_length(result)} on {ranks}: {', '.join(said)}"


def _length(result: Result) -> str:
    """How long, and of how many iterations."""
    found, whole = iterations(result), format_time(result.makespan)
    if not found:
        return f"step {whole}"
    return f"{found} ({whole} with its launches)" if found.startswith("step ") else f"{found} in {whole}"


def iterations(result: Result) -> str:
    """``5 steps of 341.2 ms (median)``, ``step 18.47 ms`` of a captured trace; empty where a trace tells no iterations."""
    found = steps(result)
    each = format_time(median_ps(found)) if found else ""
    return f"{len(found)} steps of {each} (median)" if len(found) > 1 else f"step {each}" if found else ""


def percentages(shares: Sequence[float]) -> list[int]:
    """Whole percentages of shares that sum to 1: they sum to 100, what is left over goes to the largest remainders.

    >>> percentages([1 / 3, 1 / 3, 1 / 3])
    [34, 33, 33]
    """
    exact = [100 * share for share in shares]
    whole = [int(value) for value in exact]
    order = sorted(range(len(shares)), key=lambda i: (whole[i] - exact[i], i))
    for i in order[: 100 - sum(whole)]:
        whole[i] += 1
    return whole


def _culprit(summary: Summary) -> str:
    """The operation most exposed, and the busiest domain."""
    found = [" ".join(filter(None, (t.group, t.operation))) for t in summary.traffic[:1] if t.exposed_ps]
    busiest = max(summary.domains, key=lambda d: d.max, default=None)
    if busiest and busiest.max:
        found.append(f"{busiest.domain} links up to {round(100 * busiest.max)} % busy")
    return f" ({', '.join(found)})" if found else ""
