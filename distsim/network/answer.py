"""What a DAG does when nothing disturbs it: found out once, then told again and again without simulating anything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distsim.network.model import Finished, LinkUsage

_OPEN = 1024  # answers counted before they are written to the links


@dataclass(slots=True, eq=False)
class Answer:
    """Relative to the start of the group: its duration, the last delivery of every host, bytes and busy ps of its links."""

    duration: int  #: ps
    host_end: list[tuple[int, int]]  #: (host, ps)
    links: NDArray[np.int64]
    sent: NDArray[np.int64]
    busy: NDArray[np.int64]
    uses: int = 0  #: since its ledger last wrote them down

    def finished(self, group: int, start: int) -> Finished:
        """The report of a group that started at ``start``."""
        return Finished(group, start + self.duration, {host: start + end for host, end in self.host_end})


class Ledger:
    """Use of links by whole answers. An answer given a thousand times is counted a thousand times and added up once."""

    def __init__(self, links: int) -> None:
        self._sent = np.zeros(links, dtype=np.int64)
        self._busy = np.zeros(links, dtype=np.int64)
        self._open: list[Answer] = []

    def count(self, answer: Answer) -> None:
        """A group does what ``answer`` says."""
        if not answer.uses:
            if len(self._open) == _OPEN:
                self._write()
            self._open.append(answer)
        answer.uses += 1

    def usage(self) -> LinkUsage:
        """Everything counted so far."""
        self._write()
        return LinkUsage(bytes=self._sent.copy(), busy=self._busy.copy())

    def _write(self) -> None:
        for answer in self._open:
            self._sent[answer.links] += answer.uses * answer.sent
            self._busy[answer.links] += answer.uses * answer.busy
            answer.uses = 0
        self._open.clear()
