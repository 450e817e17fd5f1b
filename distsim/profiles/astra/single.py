"""One collective under the profile."""

from __future__ import annotations

from distsim.microbench import CollectiveTiming, check_groups
from distsim.profiles.astra.config import AstraConfig
from distsim.profiles.astra.links import link_table
from distsim.profiles.astra.lower import job_of_collective
from distsim.profiles.astra.replay import simulate
from distsim.topology.graph import Topology

PS = 1000


def time_collective(
    operation: str, size: int, topology: Topology, config: AstraConfig, group: tuple[int, ...] = ()
) -> CollectiveTiming:
    """Time a collective of all ranks, or of one group. Raises CollectiveError, ConfigError."""
    config = config.checked()
    check_groups((group,) if group else (), config.ranks)
    done = simulate(job_of_collective(operation, size, config, group), config)
    members = group or tuple(range(config.ranks))
    finish = {rank: int(done.finish[rank]) * PS for rank in members}
    algorithm = (
        "ring" if group and len(group) < config.ranks else "+".join(i.algorithm for i in config.implementation(operation))
    )
    return CollectiveTiming(
        max(finish.values()), finish, done.messages, operation, size, len(members), algorithm, topology,
        link_table(done, config, topology), {"events": done.events, "folded": done.folded},
    )  # fmt: skip
