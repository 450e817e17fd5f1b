"""The meaning of a block: which bytes a payload number names, who starts with them and who must end with them.

Every buffer is cut into ``pieces`` (one per chunk; double_binary_tree cuts each chunk in two halves), and every piece into
``size`` segments, one per member. A block is the int ``piece * size + segment``, only for all_to_all it also names the
sender: ``(piece * size + destination) * size + source``. All cuts are balanced: parts differ by at most one byte and add
up exactly; a part of zero bytes still is a part and travels as a transfer of zero bytes.

============== ======================== =========================== ============================ ==========================
operation      ``Collective.bytes``     segment s of a piece is     rank r starts with           rank r must end with
============== ======================== =========================== ============================ ==========================
all_reduce     vector of each member    the s-th part of the vector its own addend in every block all n addends, every block
reduce         vector of each member    the s-th part of the vector its own addend in every block root: all n addends
broadcast      the root's vector        the s-th part of the vector root: its value, every block root's value, every block
reduce_scatter whole vector of a member what rank s will own        its own addend in every block all n addends in segment r
all_gather     shard of each member     rank s's shard              its value in segment r       every owner's value
gather         shard of each member     rank s's shard              its value in segment r       root: every owner's value
scatter        the root's whole buffer  what rank s will own        root: its value, every block root's value in segment r
all_to_all     whole buffer of a member from source to destination  blocks of source r           blocks of destination r
barrier        (ignored)                block 0: a 1-byte token     having entered itself        everybody has entered
============== ======================== =========================== ============================ ==========================

Where the segments belong to members (reduce_scatter, all_gather, gather, scatter, all_to_all) the buffer is cut by member
first, so that what a rank owns does not depend on the number of pieces; elsewhere it is cut by piece first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.collectives.schedule import Collective

#: operations whose transfers add up at the receiver
REDUCING = frozenset({"all_reduce", "reduce", "reduce_scatter"})
#: operations in which every member brings a shard of ``bytes``, and n shards exist
GATHERING = frozenset({"all_gather", "gather"})
#: operations in which a segment is the property of one member
OWNED = frozenset({"reduce_scatter", "all_gather", "gather", "scatter", "all_to_all"})


def balanced(total: int, parts: int) -> NDArray[np.int64]:
    """``total`` in ``parts`` parts that differ by at most one and sum exactly; grouping neighbours is balanced again.

    >>> balanced(7, 3).tolist()
    [2, 2, 3]
    """
    each, rest = divmod(total, parts)
    edges = rest * np.arange(parts + 1, dtype=np.int64) // parts
    return each + np.diff(edges)


@dataclass(frozen=True, slots=True)
class Layout:
    """The blocks of one collective, cut into ``pieces``: sizes in bytes, initial and required contents."""

    collective: Collective
    pieces: int

    def sizes(self) -> NDArray[np.int64]:
        """Bytes of [piece, segment]; for all_to_all the segment is the destination, for every source alike."""
        c, n = self.collective, self.collective.size
        if c.operation == "barrier":
            return np.ones((self.pieces, n), np.int64)
        if c.operation in GATHERING:
            return np.repeat(balanced(c.bytes, self.pieces)[:, None], n, axis=1)
        parts = balanced(c.bytes, self.pieces * n)
        return parts.reshape(n, self.pieces).T.copy() if c.operation in OWNED else parts.reshape(self.pieces, n)

    def blocks(self) -> range:
        """Every block that exists."""
        n = self.collective.size
        if self.collective.operation == "barrier":
            return range(1)
        return range(self.pieces * n * (n if self.collective.operation == "all_to_all" else 1))

    def block_bytes(self) -> list[int]:
        """Bytes of every block, by its number."""
        if self.collective.operation == "barrier":
            return [1]
        flat = self.sizes().reshape(-1)
        if self.collective.operation == "all_to_all":
            flat = np.repeat(flat, self.collective.size)
        return [int(b) for b in flat]

    def starts_with(self, rank: int, block: int) -> bool:
        """Whether ``rank`` holds a contribution of its own to ``block`` at the start."""
        operation, n = self.collective.operation, self.collective.size
        if operation in REDUCING or operation == "barrier":
            return True
        if operation in ("broadcast", "scatter"):
            return rank == self.collective.root
        return block % n == rank  # all_gather, gather: the owner; all_to_all: the source

    def must_end_with(self, rank: int, block: int) -> list[int] | None:
        """The ranks whose contribution ``rank`` must hold exactly once in ``block`` at the end; None: nothing is asked."""
        operation, n, root = self.collective.operation, self.collective.size, self.collective.root
        if operation in ("reduce", "gather") and rank != root:
            return None
        if operation in ("reduce_scatter", "scatter") and block % n != rank:
            return None
        if operation == "all_to_all":
            return [block % n] if block // n % n == rank else None
        if operation in ("broadcast", "scatter"):
            return [root]
        return [block % n] if operation in GATHERING else list(range(n))

    def least_bytes(self) -> int:
        """Lower bound on the bytes that all members together must send (Patarasuk & Yuan 2009; one-way gossip, 2n-2)."""
        c, n = self.collective, self.collective.size
        if n == 1:
            return 0
        if c.operation == "barrier":
            return n
        if c.operation == "scatter":
            return c.bytes - int(self.sizes()[:, c.root].sum())
        return (n - 1) * c.bytes * {"all_reduce": 2, "all_gather": n}.get(c.operation, 1)
