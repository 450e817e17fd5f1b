"""Binary tree: up to the root and down again over 2 log2(n) hops; few messages, but inner nodes carry double the bytes.

Source: the binary trees in Thakur, Rabenseifner & Gropp, "Optimization of collective communication operations in MPICH"
(2005) and in Sanders, Speck & Traeff (2009). Choose it for small buffers and for rooted operations; with many chunks it
streams at half of an inner node's bandwidth, which double_binary_tree mends.
"""

from __future__ import annotations

from distsim.collectives.schedule import Collective, Schedule
from distsim.collectives.trees import DIRECTIONS, tree_schedule
from distsim.registry import register


def parents(size: int, root: int) -> list[int]:
    """The complete binary tree, counted from the root as in a heap: the v-th member has the (2v+1)-th and (2v+2)-th below.

    >>> parents(5, 0)
    [-1, 0, 0, 1, 1]
    """
    tree = [-1] * size
    for v in range(1, size):
        tree[(root + v) % size] = (root + (v - 1) // 2) % size
    return tree


def below(size: int, root: int, member: int) -> list[int]:
    """The member and all under it."""
    found, first, last = [], (member - root) % size, (member - root) % size
    while first < size:
        found += [(root + v) % size for v in range(first, min(last, size - 1) + 1)]
        first, last = 2 * first + 1, 2 * last + 2
    return found


@register("collective", "binary_tree")
class BinaryTree:
    """One complete binary tree with ``root`` on top; serves every group. gather and scatter move a subtree's shards."""

    operations = tuple(DIRECTIONS)

    def schedule(self, collective: Collective) -> Schedule:
        """The transfers of all chunks."""
        n, root = collective.size, collective.root
        subtree = (lambda node: below(n, root, node)) if collective.operation in ("gather", "scatter") else None
        return tree_schedule(collective, [parents(n, root)], subtree)
