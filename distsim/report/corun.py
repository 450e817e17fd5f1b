"""A training job and a service on one cluster, in words: what each costs the other."""

from __future__ import annotations

import numpy as np

from distsim.corun import Corun
from distsim.units import format_time


def line(both: Corun) -> str:
    """What a service's answer is followed by."""
    steps = f"{len(both.steps)} training step{'s' * (len(both.steps) != 1)}"
    said = f"beside {steps} of {format_time(float(np.mean(both.steps)))} on {both.training.ranks} GPUs"
    if both.training_alone is None or both.service_alone is None:
        return said
    return (
        f"{said} (alone {format_time(both.training_alone.makespan)}): step x {both.training_slowdown:.3f}, "
        f"TTFT x {both.ttft_slowdown:.3f}, latency x {both.latency_slowdown:.3f} of each alone"
    )


def text(both: Corun) -> str:
    """The line, how iterations ran, and warnings."""
    found = [line(both)]
    found += [f"  {note}" for note in both.service.provenance["iterations"]]
    found += [f"  warning: training: {warning}" for warning in (*both.warnings, *both.training.warnings)]
    return "\n".join(found)
