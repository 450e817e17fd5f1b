"""When one rank can stand for all: every rank runs the same program and plays the same part in the network.

Then rank 0 alone is simulated; its sends to the rank k steps on are, seen from itself, what the rank k steps back sends to
it. The kernel watches for ties whose order could differ between ranks and, on meeting one, gives up: the whole is then
simulated. Folded = unfolded is law 5.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from distsim.profiles.astra import layout as L  # noqa: N812
from distsim.profiles.astra.config import AstraConfig
from distsim.profiles.astra.lower import Job

#: most groups of one rank that the folded channel keys can tell apart
_GROUPS = 60


def fold(job: Job, config: AstraConfig) -> Job | None:
    """The job of the one rank that stands for all, or None where ranks differ."""
    if L.TREE in job.plans.algorithms() or any(i.flat for op in config.implementations.values() for i in op):
        return None
    if L.HALVING in job.plans.algorithms() and config.aware and any(d.kind == "ring" for d in config.dims):
        return None  # partners differ in direction, and with it in the links they load
    first = job.tables[job.rank_table[0]]
    nodes = first.nodes.reshape(-1, L.NODE_W)
    if not len(first.waiting) or np.any((nodes[:-1, L.N_PLAN] == L.SEND) | (nodes[:-1, L.N_PLAN] == L.RECEIVE)):
        return None
    part = _part(job, 0)
    if part is None:
        return None
    groups = part[1]
    if groups and (len(config.dims) > 1 or config.dims[0].kind == "ring" or (config.aware and config.dims[0].kind != "switch")):
        return None
    if len(groups) > _GROUPS:
        return None
    known = {(job.rank_table[0], tuple(job.instances[0, :, L.I_SIZE].nonzero()[0].tolist())): True}
    for rank in range(1, config.ranks):
        mine = (job.rank_table[rank], tuple(job.instances[rank, :, L.I_SIZE].nonzero()[0].tolist()))
        if mine not in known:
            other = _part(job, rank)
            known[mine] = other is not None and other[1] == groups and bool(np.array_equal(other[0], part[0]))
        if not known[mine]:
            return None
    if not _partners_agree(job, config, groups, part[2]):
        return None
    # the groups of rank 0, renumbered by first use
    table = nodes.copy()
    table[:-1, L.N_GROUP] = part[0][:, L.N_GROUP]
    instances = np.zeros((1, max(1, len(groups)), L.INSTANCE_W), dtype=np.int64)
    for number, group in enumerate(part[2]):
        instances[0, number] = job.instances[0, group]
    return Job([replace(first, nodes=table.ravel())], [0], job.plans, job.members, instances, 0)


def _part(job: Job, rank: int) -> tuple[np.ndarray, tuple[int, ...], list[int]] | None:
    """(nodes with groups numbered by first use, sizes of those groups, their own numbers): equal for ranks that do alike."""
    table = job.tables[job.rank_table[rank]]
    nodes = table.nodes.reshape(-1, L.NODE_W)[:-1].copy()
    column = nodes[:, L.N_GROUP]
    used = column[(column >= 0) & (nodes[:, L.N_CLASS] == L.COMM)]
    _, first = np.unique(used, return_index=True)
    groups = [int(used[i]) for i in np.sort(first)]
    numbered = np.full(len(column), -1, dtype=np.int64)
    for number, group in enumerate(groups):
        numbered[column == group] = number
    nodes[:, L.N_GROUP] = numbered
    return nodes, tuple(int(job.instances[rank, g, L.I_SIZE]) for g in groups), groups


def _partners_agree(job: Job, config: AstraConfig, groups: tuple[int, ...], own: list[int]) -> bool:
    """Members of a group must know it by the same place in their numbering: rank r's i-th group is its partners' i-th."""
    if not groups:
        return True
    parts: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    seen: dict[int, tuple[int, int]] = {}
    for rank in range(config.ranks):
        key = (job.rank_table[rank], tuple(job.instances[rank, :, L.I_SIZE].nonzero()[0].tolist()))
        if key not in parts:
            part = _part(job, rank)
            parts[key] = part[2] if part else []
        for number, group in enumerate(parts[key]):
            start = int(job.instances[rank, group, L.I_FIRST])
            index, size = int(job.instances[rank, group, L.I_INDEX]), int(job.instances[rank, group, L.I_SIZE])
            if (
                seen.setdefault(start, (number, group)) != (number, group)
                or int(job.members[start + index]) != rank
                or size < 2
            ):
                return False
    return True
