"""Young's and Daly's formulas: how often to checkpoint, and what share of the time is then left for work.

Sources: Young, "A first order approximation to the optimum checkpoint interval", CACM 17 (1974); Daly, "A higher order estimate
of the optimum checkpoint interval for restart dumps", FGCS 22 (2006). Failures are exponential, spares are never short, no
machine is slow. Times in seconds; ``cost`` is what a checkpoint keeps the job from work.
"""

from __future__ import annotations

import math


def young_interval(cost: float, mtbf: float) -> float:
    """Work between checkpoints that wastes least, to first order: sqrt(2 C M)."""
    return math.sqrt(2 * cost * mtbf)


def daly_interval(cost: float, mtbf: float) -> float:
    """The same to higher order (Daly 2006, equation 37); M where a checkpoint takes 2 M or more."""
    if cost >= 2 * mtbf:
        return mtbf
    x = cost / (2 * mtbf)
    return math.sqrt(2 * cost * mtbf) * (1 + math.sqrt(x) / 3 + x / 9) - cost


def daly_goodput(
    interval: float, cost: float, mtbf: float, restart: float, detection: float = 0.0, write: float = 0.0
) -> float:
    """Share of the time that is work which is kept, in the long run: Daly 2006, equation 20 and two terms more.

    A failure in a restart starts it again: M e^(R/M) (e^((tau + C)/M) - 1) for every interval tau. ``detection`` is spent once
    a failure, beside M. ``write``: how long a checkpoint is written beside the work before it counts; a failure meanwhile costs
    the interval before it, too (to first order: no second failure while that is done anew).
    """
    try:
        failures = math.exp(restart / mtbf) * math.expm1((interval + cost) / mtbf)
    except OverflowError:
        return 0.0
    spent = failures * (mtbf + detection)
    spent *= 1 + math.expm1((interval + cost) / mtbf) * write / (interval + cost)
    return interval / spent
