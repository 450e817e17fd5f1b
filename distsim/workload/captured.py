"""What to do with the communication of a captured trace: take what was recorded, or ask a simulated network.

Recorded, a collective takes its recorded transfer time from when its last member has come; waiting is simulated. Simulated, it
is moved over a topology, for which every member must be there: a capture of one rank of a job whose ranks all do the same is
expanded to all of them first (:mod:`distsim.trace.kineto.expand`).
"""

from __future__ import annotations

import json
from collections.abc import Collection

from distsim.errors import ConfigError
from distsim.trace.graph import TaskGraph

#: fields of a run that say which network; where one is given, the network is simulated
NETWORK_FIELDS = ("topo", "network", "collectives", "routing", "algorithm", "events", "calibration")

KEPT = "communication takes its recorded transfer times; no network is simulated (--topo or --communication simulated does)"


def recorded(graph: TaskGraph, asked: str, given: Collection[str], ranks: int | None = None) -> bool:
    """Whether communication keeps its recorded times.

    Args:
        asked: auto, recorded or simulated.
        given: fields of the run that its user has set.
        ranks: that the run is asked to have; None: those of the trace.

    Raises: ConfigError where recorded times are asked of a trace that has none, or for other ranks than it has.
    """
    if asked == "recorded" and not graph.captured:
        raise ConfigError(
            "the trace was not captured: it has no transfer times of collectives", where="--communication recorded",
            fix="Leave it out.",
        )  # fmt: skip
    kept = graph.captured and (asked == "recorded" or (asked == "auto" and not set(NETWORK_FIELDS) & set(given)))
    if kept and ranks not in (None, graph.ranks):
        raise ConfigError(
            f"recorded times are of the {graph.ranks} captured rank{'s' if graph.ranks > 1 else ''}, not of {ranks}",
            where="--ranks", fix="Leave it out; or simulate the network (--communication simulated, or --topo).",
        )  # fmt: skip
    return kept


def renumbered(graph: TaskGraph) -> list[str]:
    """Which ranks of the job the ranks here are, where they have other numbers there: a sentence, or none."""
    numbers = json.loads(graph.metadata.get("kineto.ranks", "[]"))
    world = graph.metadata.get("kineto.world", "")
    if len(numbers) != graph.ranks or numbers == list(range(graph.ranks)):
        return []
    if len(numbers) == 1:
        return [f"rank 0 here is rank {numbers[0]} of {world} of the job"]
    some = ", ".join(map(str, numbers[:8])) + (" ..." if len(numbers) > 8 else "")
    return [f"ranks 0 to {len(numbers) - 1} here are ranks {some} of {world} of the job"]


def whole(graph: TaskGraph, ranks: int | None) -> TaskGraph:
    """A captured trace with all members of its collectives, to be moved over a network.

    Args:
        ranks: of the whole job, where one rank was captured; default: what the capture says.

    Raises: ConfigError, TraceError where members, sizes or peers are not known.
    """
    from distsim.trace.kineto.expand import expand

    return expand(graph, ranks)


def no_captures(graph: TaskGraph, option: str) -> None:
    """Raises ConfigError for a captured trace, which profiles of other tools have no place for."""
    if graph.captured:
        raise ConfigError(
            f"a captured trace cannot run with {option}, which knows no latencies of launches, streams or recorded transfers",
            where=graph.source, fix=f"Leave {option} out.",
        )  # fmt: skip
