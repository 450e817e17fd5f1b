"""From a plan and the nodes of a group to its schedule."""

from __future__ import annotations

from distsim.collectives.schedule import Collective
from distsim.errors import CollectiveError
from distsim.nccl.plan import Plan
from distsim.nccl.schedules.chain import chain_schedule
from distsim.nccl.schedules.exchange import exchange_schedule
from distsim.nccl.schedules.grouping import Grouping
from distsim.nccl.schedules.nvls import nvls_schedule, nvls_tree_schedule
from distsim.nccl.schedules.pace import Paced
from distsim.nccl.schedules.pat import pat_schedule
from distsim.nccl.schedules.ring import ring_schedule
from distsim.nccl.schedules.tree import tree_schedule
from distsim.nccl.schedules.wires import Wires

#: algorithm -> operations that it has a schedule for
SERVED = {
    "ring": ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce"),
    "tree": ("all_reduce",),
    "nvls": ("all_reduce", "all_gather", "reduce_scatter"),
    "nvls_tree": ("all_reduce",),
    "pat": ("all_gather", "reduce_scatter"),
    "p2p": ("all_to_all",),
}


def schedule_of(plan: Plan, collective: Collective, grouping: Grouping, wires: Wires, *, pxn: bool = True) -> Paced:
    """The schedule that ``plan`` makes of ``collective``.

    Args:
        plan: NCCL's decision; what it says of operation, bytes and ranks is the collective's.
        collective: what is asked for; ``chunks`` and ``window`` have no meaning here: NCCL cuts by itself.
        grouping: members by node.
        wires: what the links take, see wires_of.
        pxn: all_to_all between nodes goes by rail.

    Raises:
        CollectiveError: there is no such schedule, or the group has not the nodes that it needs.
    """
    if collective.operation not in SERVED.get(plan.algorithm, ()):
        able = [name for name, operations in SERVED.items() if collective.operation in operations]
        raise CollectiveError(
            f"there is no NCCL schedule of {collective.operation} by {plan.algorithm}",
            expected=f"one of {', '.join(able)}" if able else "an operation that NCCL has",
            fix="Force one with --nccl-algo.",
        )
    if plan.ranks != collective.size or grouping.size != collective.size or plan.nodes != len(grouping.nodes):
        raise CollectiveError(
            f"a plan for {plan.ranks} ranks on {plan.nodes} nodes does not fit {collective.size} members on "
            f"{len(grouping.nodes)} nodes"
        )
    if plan.algorithm in ("nvls", "nvls_tree", "tree", "pat") and not grouping.even:
        raise CollectiveError(f"{plan.algorithm} needs as many members on every node", expected="ring, for uneven nodes")
    if plan.algorithm == "nvls" and len(grouping.nodes) > 1:
        raise CollectiveError("nvls serves one node", expected="nvls_tree between nodes")
    if plan.algorithm == "pat" and grouping.rails > 1:
        raise CollectiveError("pat serves one GPU per node", expected="ring, tree or nvls_tree")
    if collective.operation in ("broadcast", "reduce"):
        return chain_schedule(plan, collective, grouping, wires)
    if plan.algorithm == "ring":
        return ring_schedule(plan, collective, grouping, wires)
    if plan.algorithm == "tree":
        return tree_schedule(plan, collective, grouping, wires)
    if plan.algorithm == "nvls":
        return nvls_schedule(plan, collective, grouping, wires)
    if plan.algorithm == "nvls_tree":
        return nvls_tree_schedule(plan, collective, grouping, wires)
    if plan.algorithm == "pat":
        return pat_schedule(plan, collective, grouping, wires)
    return exchange_schedule(plan, collective, grouping, wires, pxn=pxn)
