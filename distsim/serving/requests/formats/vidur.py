"""Files of Vidur: the requests of its runs (arrived_at in s, num_prefill_tokens, num_decode_tokens) and its trace CSVs.

Trace CSVs without ``arrived_at`` hold lengths only: they want arrivals, or serve as ``trace`` lengths. The other columns of a
run (replica, scheduled_at, ... completed_at) are its results, not read here. Source: Agrawal et al., "Vidur" (2024).
"""

from __future__ import annotations

from distsim.registry import register
from distsim.serving.requests.columns import Columns
from distsim.serving.requests.trace import ReplayParameters, Rows, picoseconds
from distsim.units import PS_PER_S


@register("requests", "vidur")
class Vidur:
    """``vidur:file=requests.csv.gz``."""

    columns = ("num_prefill_tokens", "num_decode_tokens")
    Params = ReplayParameters

    @staticmethod
    def rows(columns: Columns) -> Rows:
        """See Format."""
        timed = "arrived_at" in columns.cells
        return Rows(
            file=columns.file, arrival=picoseconds(columns, "arrived_at", PS_PER_S) if timed else None,
            prompt=columns.whole("num_prefill_tokens"), output=columns.whole("num_decode_tokens"),
        )  # fmt: skip
