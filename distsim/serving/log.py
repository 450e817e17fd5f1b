"""What replicas did, iteration by iteration, in columns: steady stretches take one row."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray

#: columns of a row. ``count`` iterations of ``ps`` each follow one another from ``start``; ``sequences`` generate, with ``kv``
#: tokens in cache before the first of them; ``prefills`` prompts compute ``tokens`` new tokens, which attend to ``attended``
#: tokens, counted for each of them (distsim.serving.iteration.attended: what was in cache before counts); ``waiting`` and
#: ``used``: queue and KV blocks in use when it began. With several pipeline stages a row is a batch from start to end, ``ps``
#: all of it.
COLUMNS = ("replica", "start", "ps", "count", "sequences", "kv", "prefills", "tokens", "attended", "waiting", "used")


class IterationLog:
    """Append-only."""

    def __init__(self) -> None:
        self._rows = array("q")
        #: append one row: the values of COLUMNS
        self.append = self._rows.extend

    def __len__(self) -> int:
        return len(self._rows) // len(COLUMNS)

    def columns(self) -> dict[str, NDArray[np.int64]]:
        """Name -> column, in order of completion."""
        table = np.array(self._rows, dtype=np.int64).reshape(-1, len(COLUMNS))
        return {name: table[:, at].copy() for at, name in enumerate(COLUMNS)}
