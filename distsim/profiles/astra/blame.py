"""Why a replay under the profile cannot end: who waits in what, and who never came."""

from __future__ import annotations

from distsim.profiles.astra.lower import Job
from distsim.trace.graph import CollectiveType, NodeType, TaskGraph


def blame(graph: TaskGraph, job: Job, stuck: list[tuple[int, int, bool]]) -> str:
    """One message from the nodes that are running or held up: (rank, row in id order, is running)."""
    waiting: dict[tuple[int, ...], list[tuple[int, str]]] = {}
    lines: list[str] = []
    for rank, place, running in stuck:
        if not running:
            continue
        program = graph.program(rank)
        row = int(job.tables[job.rank_table[rank]].order[place])
        node, kind = int(program.id[row]), int(program.type[row])
        if kind == NodeType.COMM_COLL:
            members = graph.members(rank, int(program.group[row]))
            operation = CollectiveType(int(program.collective[row])).name.lower()
            waiting.setdefault(members, []).append((rank, f"{operation} of {int(program.bytes[row])} bytes (node {node})"))
        elif kind in (NodeType.COMM_SEND, NodeType.COMM_RECV):
            verb = "sends to" if kind == NodeType.COMM_SEND else "waits for a message from"
            lines.append(f"rank {rank} {verb} rank {graph.peer(rank, row)}, {int(program.bytes[row])} bytes (node {node})")
    for members, inside in waiting.items():
        came = {rank for rank, _ in inside}
        missing = [m for m in members if m not in came]
        lines.insert(
            0, f"rank {inside[0][0]} and {len(inside) - 1} more wait in {inside[0][1]}"
            + (f", where ranks {', '.join(map(str, missing[:8]))}{' ...' if len(missing) > 8 else ''} never came" if missing
               else ": their calls do not fit together"),
        )  # fmt: skip
    if not lines:
        held = sum(not running for _, _, running in stuck)
        lines.append(f"{held} ready nodes never got their resource")
    return f"{len(stuck)} nodes can never finish: " + "; ".join(lines[:4])
