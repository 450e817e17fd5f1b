"""The Mooncake traces: JSON lines of timestamp (ms), input_length, output_length and hash_ids, one id per 512 tokens of the prompt.

Equal ids are equal prefixes up to and including that block. Where the prompt does not end on a block, the last id is of a partial
block: equal ids of partial blocks mean equal whole prompts. Requests number whole blocks only, so by blocks of 512 tokens that last
one is left out; ``block=16`` numbers the 16-token blocks inside, those of the partial block too, and loses nothing (it is what a
cache of 16-token blocks shares). What is generated has no ids: which later prompt repeats it is not in the trace.

Source: Qin et al., "Mooncake: trading more storage for less computation" (FAST 2025); github.com/kvcache-ai/Mooncake.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from distsim.errors import ConfigError
from distsim.registry import register
from distsim.serving.requests.blocks import Split
from distsim.serving.requests.columns import Columns
from distsim.serving.requests.trace import ReplayParameters, Rows
from distsim.units import PS_PER_MS

BLOCK = 512  #: tokens per id


@register("requests", "mooncake")
class Mooncake:
    """``mooncake:file=conversation_trace.jsonl,qps=2``."""

    columns = ("timestamp", "input_length", "output_length")
    Params = ReplayParameters

    @staticmethod
    def rows(columns: Columns) -> Rows:
        """See Format."""
        prompt = columns.whole("input_length")
        times = columns.numbers("timestamp")
        late = np.flatnonzero((times < 0) | (times * PS_PER_MS >= float(1 << 62)))
        if len(late):
            raise ConfigError(
                f"{times[late[0]]:g} ms cannot be used", where=columns.place(int(late[0]), "timestamp"), expected="0 to 53 days"
            )
        hashes = {}
        if "hash_ids" in columns.cells:
            for row, (ids, tokens) in enumerate(zip(columns.lists("hash_ids"), prompt.tolist(), strict=True)):
                # NOTE: ids may be fewer than blocks (a trace may name its first blocks only), never more
                if len(ids) > -(-tokens // BLOCK):
                    raise ConfigError(
                        f"{len(ids)} ids for {tokens} tokens", where=columns.place(row, "hash_ids"),
                        expected=f"at most {-(-tokens // BLOCK)}, one per {BLOCK} tokens",
                    )  # fmt: skip
                hashes[row] = ids
        return Rows(
            file=columns.file, arrival=np.rint(times * PS_PER_MS).astype(np.int64), prompt=prompt,
            output=columns.whole("output_length"), hashes=hashes, hash_block=BLOCK,
        )  # fmt: skip
