"""How the members of a communicator sit on nodes: what NCCL's rings, chains and trees are built along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grouping:
    """Members by node. The place of a member in its node is its *rail*: members of one rail talk over one rail switch.

    Attributes:
        nodes: members of every node in the order of their local ranks; nodes in the order of their first members.
    """

    nodes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, node_of: Sequence[int]) -> Grouping:
        """From the node of every member.

        >>> Grouping.of([7, 7, 3, 3]).nodes
        ((0, 1), (2, 3))
        """
        found: dict[int, list[int]] = {}
        for member, node in enumerate(node_of):
            found.setdefault(node, []).append(member)
        return cls(tuple(tuple(members) for members in found.values()))

    @property
    def size(self) -> int:
        """Members of all nodes."""
        return sum(len(members) for members in self.nodes)

    @property
    def even(self) -> bool:
        """Whether all nodes have as many members."""
        return len({len(members) for members in self.nodes}) == 1

    @property
    def rails(self) -> int:
        """Rails on which every node has a member."""
        return min(len(members) for members in self.nodes)
