"""Double binary tree: two trees at once, each on half of the bytes; full bandwidth at logarithmic latency.

Source: Sanders, Speck & Traeff, "Two-tree algorithms for full bandwidth broadcast, reduction and scan" (2009), with the
in-order numbering that NCCL uses (2.4, 2019). Whoever is an inner node of one tree is a leaf of the other where that is
possible, so that with many chunks every member sends and receives at full rate. Choose it for all_reduce, broadcast and
reduce of medium buffers in large groups, with several chunks.

* all_reduce: both trees over all members. With an odd number one member has to be inner in both, as two such trees have n-1
  leaves together.
* broadcast, reduce: the root stands above both trees over the other n-1 members and is joined to the top of each. If n-1 is
  odd, one member is a leaf in both.
* barrier: a token needs no second tree; the first one carries it.
"""

from __future__ import annotations

from distsim.collectives.schedule import Collective, Schedule
from distsim.collectives.trees import tree_schedule
from distsim.registry import register


def in_order(size: int) -> list[int]:
    """Parents in the tree over 0 .. size-1 in which odd numbers are leaves: 0 on top, with one child.

    >>> in_order(6)
    [-1, 2, 4, 2, 0, 4]
    """
    tree = [-1]
    for node in range(1, size):
        low = node & -node
        parent = (node ^ low) | low << 1
        tree.append(parent if parent < size else node ^ low)
    return tree


def two_trees(size: int, root: int | None) -> list[list[int]]:
    """Parents of every member in either tree.

    Args:
        size: members.
        root: the member on top of both trees; None: each tree has its own.
    """
    if root is None:
        first = list(range(size))
        second = [size - 1 - place for place in first] if size % 2 == 0 else [(place - 1) % size for place in first]
    else:
        first = [(member - root) % size for member in range(size)]
        second = [(size - place if size % 2 else place % (size - 1) + 1) if place else 0 for place in first]
    return [_placed(places) for places in (first, second)]


def _placed(places: list[int]) -> list[int]:
    """The in-order tree with member m at ``places[m]``."""
    member_at = {place: member for member, place in enumerate(places)}
    tree = in_order(len(places))
    return [member_at[tree[place]] if tree[place] >= 0 else -1 for place in places]


@register("collective", "double_binary_tree")
class DoubleBinaryTree:
    """Serves every group. Cuts each chunk into two pieces, one per tree."""

    operations = ("all_reduce", "broadcast", "reduce", "barrier")

    def schedule(self, collective: Collective) -> Schedule:
        """The transfers of all chunks."""
        trees = two_trees(collective.size, None if collective.operation == "all_reduce" else collective.root)
        return tree_schedule(collective, trees[:1] if collective.operation == "barrier" else trees)
