"""A message schedule in columns: sends, receives and computations of all ranks, what each waits for, CPU and NIC numbers.

What GOAL text says, and what a LogGOPS model runs. It says two things that a :class:`TaskGraph` cannot: that an operation
waits for another's *start*, and that a receive takes a message from any rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SEND, RECV, CALC = 1, 2, 3
KINDS = ("", "send", "recv", "calc")
#: as a peer or a tag: any
ANY = -1


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Operations by rank, within a rank in the order of the text."""

    source: str
    ranks: int
    rank: Ints  #: of every operation, ascending
    kind: Ints  #: SEND, RECV, CALC
    bytes: Ints  #: of a message; 0 of a calc
    duration: Ints  #: ps of a calc; 0 of a message
    peer: Ints  #: the other rank of a message; ANY: of whichever send comes first; -1 of a calc
    tag: Ints  #: of a message; ANY matches all
    cpu: Ints  #: which CPU of the rank it runs on
    nic: Ints  #: which NIC of the rank it uses
    child: Ints  #: dependencies: this operation ...
    parent: Ints  #: ... waits for this one of the same rank
    at_start: NDArray[np.bool_]  #: for its start (``irequires``) instead of its end (``requires``)
    label: Callable[[int], str]  #: name of an operation, for messages

    def __len__(self) -> int:
        return len(self.kind)

    def describe(self, op: int) -> str:
        """``send "l3" of rank 2 to rank 5 (64 B, tag 7)``."""
        kind = int(self.kind[op])
        text = f'{KINDS[kind]} "{self.label(op)}" of rank {int(self.rank[op])}'
        if kind == CALC:
            return text
        peer, tag = int(self.peer[op]), int(self.tag[op])
        whom = f"rank {peer}" if peer >= 0 else "any rank"
        which = f"tag {tag}" if tag >= 0 else "any tag"
        return f"{text} {'to' if kind == SEND else 'from'} {whom} ({int(self.bytes[op])} B, {which})"
