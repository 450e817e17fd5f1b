"""A job over days: what runs, what fails, and what is done about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from distsim.errors import ConfigError
from distsim.goodput.daly import daly_interval
from distsim.goodput.durations import format_seconds


@dataclass(frozen=True, slots=True)
class Job:
    """All times in seconds.

    step: of one training step when nothing is wrong.
    nodes: that the job runs on.
    mtbf: mean time between failures of the whole job. shape: of the Weibull distribution of that time; 1 is exponential,
        below 1 failures come in bursts (Schroeder & Gibson 2006 fit 0.7-0.8 to whole clusters).
    detection: from a failure until it is noticed. restart: scheduling, start and load of the checkpoint.
    checkpoint: for which a checkpoint stops the work. write: for which it is then written beside the work, before it counts.
    interval: of work (at full speed) between checkpoints; 0: Daly's optimum (:meth:`settled`).
    node_loss: share of failures that take a node out until it is repaired; the others only need a restart.
    spares: nodes beside ``nodes`` that stand ready. repair: mean time of a repair (exponential); 0: at once.
    when_short: of nodes: wait for repairs, or shrink to the data-parallel replicas that are still whole.
    replica_nodes: nodes per replica.
    slow: share of the nodes that are slow at any moment. slowdown: step time with at least one of them over without.
    slow_for: how long a node stays slow until it is found and replaced.
    """

    step: float
    nodes: int
    mtbf: float
    checkpoint: float
    restart: float
    interval: float = 0.0
    write: float = 0.0
    detection: float = 0.0
    shape: float = 1.0
    node_loss: float = 1.0
    spares: int = 0
    repair: float = 0.0
    when_short: Literal["wait", "shrink"] = "wait"
    replica_nodes: int = 1
    slow: float = 0.0
    slowdown: float = 1.0
    slow_for: float = 0.0

    def __post_init__(self) -> None:
        rules = (
            (0 < self.step < math.inf, "step", self.step, "a time above 0"),
            (self.nodes >= 1, "nodes", self.nodes, "1 or more"),
            (self.mtbf > 0, "mtbf", self.mtbf, "a time above 0"),
            (self.checkpoint >= 0, "checkpoint", self.checkpoint, "0 s or more"),
            (self.restart >= 0, "restart", self.restart, "0 s or more"),
            (self.interval >= 0, "interval", self.interval, "0 s or more"),
            (self.write >= 0, "write", self.write, "0 s or more"),
            (self.detection >= 0, "detection", self.detection, "0 s or more"),
            (0.1 <= self.shape <= 10, "shape", self.shape, "0.1 to 10"),
            (0 <= self.node_loss <= 1, "node_loss", self.node_loss, "a share, 0 to 1"),
            (self.spares >= 0, "spares", self.spares, "0 or more"),
            (self.repair >= 0, "repair", self.repair, "0 s or more"),
            (1 <= self.replica_nodes <= self.nodes, "replica_nodes", self.replica_nodes, f"1 to {self.nodes}"),
            (self.nodes % self.replica_nodes == 0, "replica_nodes", self.replica_nodes, f"a divisor of {self.nodes} nodes"),
            (0 <= self.slow < 1, "slow", self.slow, "a share, 0 to below 1"),
            (1 <= self.slowdown < math.inf, "slowdown", self.slowdown, "1 or more"),
            (self.slow_for > 0 or not self.slow, "slow_for", self.slow_for, "a time above 0"),
            (self.when_short in ("wait", "shrink"), "when_short", self.when_short, "wait or shrink"),
        )
        for holds, name, value, expected in rules:
            if not holds:
                raise ConfigError(f"{name} is {value!r}", where="goodput", expected=expected)
        if self.interval and self.interval < self.write:
            write = format_seconds(self.write)
            raise ConfigError(
                f"no checkpoint every {format_seconds(self.interval)} where one is written for {write}",
                where="goodput", expected=f"an interval of {write} or more",
            )  # fmt: skip

    def settled(self) -> Job:
        """The same with an interval of whole steps: the given one, or Daly's optimum, but no shorter than a checkpoint is
        written."""
        wanted = self.interval or daly_interval(self.checkpoint, self.mtbf)
        steps = max(1, round(wanted / self.step))
        if steps * self.step < self.write:
            steps = math.ceil(self.write / self.step)
        return replace(self, interval=steps * self.step)

    @property
    def replicas(self) -> int:
        """Data-parallel replicas when no node is missing."""
        return self.nodes // self.replica_nodes
