"""A kind of study for tests: made-up plans with a made-up cost that is cheap, exact and never below its bound.

Imported by worker processes as ``fake_plans:evaluate``; FAKE_SLEEP makes points slow, FAKE_LOG notes every point that is run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from distsim.errors import ConfigError, OutOfMemoryError
from distsim.registry import register
from distsim.sweep.evaluator import Evaluator


def evaluate(point: Mapping[str, Any]) -> dict[str, Any]:
    """A step that is work over devices, plus a bubble, plus what tensor parallelism costs."""
    time.sleep(float(os.environ.get("FAKE_SLEEP", "0")))
    if log := os.environ.get("FAKE_LOG"):
        with open(log, "a") as file:
            file.write(f"{sorted(point.items())}\n")
    tp, pp, trouble = point["tp"], point["pp"], point.get("trouble")
    if trouble == "refused":
        raise ConfigError(f"plan {tp} cannot be simulated", where="fake")
    if trouble == "mistake":
        raise ZeroDivisionError("a mistake")
    if trouble == "deadly":
        os._exit(9)
    compute, bubble, exposed = 10**12 // (tp * pp), 10**9 * (pp - 1), 10**10 * (tp - 1)
    return {
        "step_ps": compute + bubble + exposed, "compute_ps": compute, "bubble_ps": bubble, "exposed_tp_ps": exposed,
        "memory_bytes": 2**36 // (tp * pp), "mfu": compute / (compute + bubble + exposed),
    }  # fmt: skip


def bound(point: Mapping[str, Any]) -> dict[str, Any]:
    """Without the bubble."""
    tp, pp = point["tp"], point["pp"]
    if 96 % tp:
        raise ConfigError(f"tp {tp} does not divide 96 attention heads", where="plan")
    if 2**36 // (tp * pp) > 2**35:
        raise OutOfMemoryError(f"{2**36 // (tp * pp)} bytes are needed", where="plan", stage=0, term="weights", over=1)
    return {"step_ps": 10**12 // (tp * pp) + 10**10 * (tp - 1), "memory_bytes": 2**36 // (tp * pp)}


FAKE = register("study", "fake")(
    Evaluator(
        "fake", "fake_plans:evaluate", {"tp": 1, "pp": 1, "name": "", "trouble": None}, (), "fake_plans:bound",
        lambda varied: {"step_ps": "min", "memory_bytes": "min"},
    )
)  # fmt: skip
