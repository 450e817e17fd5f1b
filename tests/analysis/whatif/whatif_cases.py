"""Random runs for what-if studies: traces, topologies, levels and knobs, all from one seed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distsim.analysis.whatif.estimate import Recorded
from distsim.analysis.whatif.levers import NOTHING, Slope, finite_difference, lever_knobs, sensitivity
from distsim.api import simulate
from distsim.scenario import scenario_of

TOPOLOGIES = (
    "switch", "ring", "fully_connected", "fat_tree", "rail_optimized:gpus_per_node=4", "nd:dims=ring4+switch", "torus",
)  # fmt: skip
LEVELS = ("analytic", "fluid", "cut_through", "chunk")
OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")


def random_trace(rng: np.random.Generator) -> dict[str, object]:
    """A step of 4 or 8 ranks: computation of uneven length, collectives of all, halves or pairs in line or beside it, messages
    to a neighbour."""
    ranks = int(rng.choice([4, 8]))
    widths = {"half": ranks // 2, "pair": 2, "wide": ranks}
    groups = {name: [list(range(at, at + size)) for at in range(0, ranks, size)] for name, size in widths.items()}
    nodes: list[list[dict[str, object]]] = [[] for _ in range(ranks)]
    main, beside = "", []
    for number in range(int(rng.integers(6, 14))):
        what = rng.choice(["compute", "collective", "beside", "message"], p=[0.5, 0.2, 0.2, 0.1])
        name = f"n{number}"
        if what == "compute" or not main:
            for rank in range(ranks):
                time, after = float(rng.lognormal(5.5, 0.8)), [main] if main else []
                nodes[rank].append({"op": "compute", "name": name, "duration": f"{time:.6f}us", "after": after})
            main = name
        elif what == "message":
            for rank in range(ranks):
                both = {"bytes": 1 << 20, "after": [main]}
                nodes[rank].append({"op": "send", "name": f"{name}s", "peer": (rank + 1) % ranks, **both})
                nodes[rank].append({"op": "receive", "name": name, "peer": (rank - 1) % ranks, **both})
            beside.append(f"{name}s")
            main = name
        else:
            group, operation = str(rng.choice(sorted(groups))), str(rng.choice(OPERATIONS))
            size = int(2 ** rng.uniform(16, 24)) // 64 * 64
            for rank in range(ranks):
                nodes[rank].append({"op": operation, "name": name, "bytes": size, "group": group, "after": [main]})
            if what == "collective":
                main = name
            else:
                beside.append(name)
    for rank in range(ranks):
        nodes[rank].append({"op": "compute", "name": "last", "duration": "100us", "after": [main, *beside]})
    programs = [{"name": f"rank{rank}", "ranks": [rank], "nodes": nodes[rank]} for rank in range(ranks)]
    return {"format": "distsim-trace/1", "ranks": ranks, "groups": groups, "programs": programs}


@dataclass(frozen=True)
class Case:
    """A run, a knob that matters, and both slopes."""

    seed: int
    recorded: Recorded
    knob: str
    slope: Slope
    checked: Slope

    @property
    def off(self) -> float:
        """Of the sensitivity, over the finite difference."""
        return abs(self.slope.middle / self.checked.middle - 1)

    def __str__(self) -> str:
        spec = self.recorded.scenario.spec.model_dump()
        where = f"{spec['network']} on {spec['topo'].partition(':')[0]}"
        return f"seed {self.seed}: {where}, {self.knob}: {100 * self.off:.2f} % off"


def recorded_run(seed: int, folder: Path, levels: tuple[str, ...] = LEVELS) -> tuple[np.random.Generator, Recorded]:
    """A run of everything that the seed says."""
    rng = np.random.default_rng(seed)
    file = folder / f"{seed}.json"
    file.write_text(json.dumps(random_trace(rng)))
    result = simulate(str(file), str(rng.choice(TOPOLOGIES)), network=str(rng.choice(levels)))
    return rng, Recorded(scenario_of(result.spec), result)


def case(seed: int, folder: Path, levels: tuple[str, ...] = LEVELS) -> Case:
    """The first knob, in random order, that does something to the makespan."""
    rng, recorded = recorded_run(seed, folder, levels)
    knobs = [one.name for one in lever_knobs(recorded)]
    for name in rng.permutation(knobs).tolist():
        checked, _ = finite_difference(recorded, name)
        slope = sensitivity(recorded, name)
        assert slope is not None
        if abs(checked.middle) > NOTHING * recorded.path.makespan:
            return Case(seed, recorded, name, slope, checked)
    raise AssertionError(f"seed {seed}: no knob does anything")
