"""How many replicas, and so GPUs, serve a given load under an objective: the fewest that pass for every seed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distsim.analysis.serving_slo import Slo
from distsim.errors import ConfigError
from distsim.params import text_of
from distsim.serve import ServeSpec
from distsim.sweep.capacity import Capacity, Progress, Trial
from distsim.sweep.load import Loads
from distsim.topology.graph import Topology
from distsim.topology.spec import build, parse

#: requests of a run at most, where more replicas would ask for more
MOST_REQUESTS = 20_000


@dataclass(frozen=True, slots=True)
class Fleet:
    """The answer. copies: of the unit (one replica, or one set of pools), None where the most that are allowed do not do.

    gpus: of one unit. single: what one unit bears, by the first seed. trials: (copies, trial) as they ran, load in requests/s.
    most: the most copies that there is room for. cluster: the one that was needed.
    """

    load: float
    copies: int | None
    gpus: int
    single: Capacity
    trials: tuple[tuple[int, Trial], ...]
    most: int
    cluster: str
    warnings: tuple[str, ...] = ()

    @property
    def passing(self) -> Trial | None:
        """The first seed's run with the answer."""
        return next((trial for copies, trial in self.trials if copies == self.copies and trial.passed), None)


def least(passes: Callable[[int], bool], first: int, most: int) -> int | None:
    """The fewest in [1, most] that pass, where more never do worse, found from ``first``; None where ``most`` do not.

    >>> least(lambda count: count >= 7, 5, 100), least(lambda count: count >= 7, 20, 100), least(lambda count: False, 5, 9)
    (7, 7, None)
    """
    first = max(1, min(first, most))
    good: int | None = None
    bad, step, at = 0, 1, first
    if passes(first):
        good = first
        while good - step > bad and good > 1:
            at = good - step
            if passes(at):
                good, step = at, 2 * step
            else:
                bad = at
    else:
        bad = first
        while good is None:
            if bad >= most:
                return None
            at = min(bad + step, most)
            if passes(at):
                good = at
            else:
                bad, step = at, 2 * step
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if passes(middle) else (good, middle)
    return good


def fleet(
    unit: ServeSpec, load: float, slo: Slo | None, seeds: Sequence[int], tolerance: float, max_gpus: int,
    say: Progress = lambda fraction, what: None,
) -> Fleet:  # fmt: skip
    """Find it.

    Args:
        unit: what is copied; ``n`` is the number of requests per copy.
        load: requests/s.

    Raises: ConfigError where the cluster cannot hold ``max_gpus``, or a copy does not fit in them.
    """
    if not 0 < load < math.inf:
        raise ConfigError(f"{load:g} requests/s is no load", where="--load", expected="a positive number")
    alone = Loads(unit, slo)
    single = alone.find(seeds[:1], tolerance, say)
    gpus = round(single.idle.gpus)
    most = max_gpus // gpus
    if most < 1:
        raise ConfigError(f"one replica takes {gpus} GPUs", where=f"--max-gpus {max_gpus}")
    if not single.mean:
        return Fleet(load, None, gpus, single, (), most, unit.cluster, tuple(alone.warnings))
    trials: list[tuple[int, Trial]] = []
    clusters: dict[int, str] = {}

    def passes(copies: int) -> bool:
        clusters[copies] = enlarged(unit.cluster, copies * gpus)
        pools = tuple(pool.model_copy(update={"replicas": copies * pool.replicas}) for pool in unit.pools)
        count = min((unit.n or 0) * copies, max(MOST_REQUESTS, unit.n or 0)) or None
        # NOTE: iteration times are of one replica, whatever the size of the cluster around it
        service = Loads(
            unit.model_copy(update={"pools": pools, "cluster": clusters[copies], "n": count}), slo, alone.providers,
            alone.warnings, alone.refused,
        )  # fmt: skip
        for seed in seeds:
            say(None, f"{load:g} requests/s on {copies} x {gpus} GPUs, seed {seed}")
            trial = service(load, seed)
            trials.append((copies, trial))
            if not trial.passed:
                return False
        return True

    copies = least(passes, math.ceil(load / single.mean), most)
    cluster = clusters.get(copies or 0, unit.cluster)
    return Fleet(load, copies, gpus, single, tuple(trials), most, cluster, tuple(alone.warnings))


def enlarged(cluster: str, gpus: int) -> str:
    """A cluster of the same kind with room for so many GPUs. Raises ConfigError (TopologyError) where there is none."""
    built: Topology = build(cluster, None)
    if built.hosts >= gpus:
        return cluster
    if os.path.exists(cluster):
        raise ConfigError(f"has {built.hosts} GPUs, {gpus} are needed", where=cluster, fix="A file is as large as it is.")
    from distsim.registry import lookup
    from distsim.topology.presets import PRESETS

    name, options = parse(cluster)
    preset = PRESETS.get(name)
    builder = lookup("topology", preset.builder if preset is not None else name)
    kept = {key: value for key, value in options.items() if key != "gpus" and key not in builder.sizes}
    larger = text_of(name, {**kept, "gpus": gpus})
    if build(larger, None).hosts < gpus:
        raise ConfigError(f"has room for {built.hosts} GPUs, {gpus} are needed", where=cluster)
    return larger
