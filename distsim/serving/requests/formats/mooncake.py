"""The Mooncake traces: JSON lines of timestamp (ms), input_length, output_length and hash_ids, one per 512 prompt tokens.

Equal ids are equal prefixes up to and including that block. Where the prompt does not end on a block, the last id is of a
partial block; Requests number whole blocks only, so it is left out (two equal prompts share all but their last 511 tokens at
most). What is generated has no ids: that a later prompt repeats an answer cannot be seen.

Source: Qin et al., "Mooncake: trading more storage for less computation" (FAST 2025); github.com/kvcache-ai/Mooncake.
"""

from __future__ import annotations

from distsim.errors import ConfigError
from distsim.registry import register
from distsim.serving.requests.columns import Columns
from distsim.serving.requests.trace import ReplayParameters, Rows, picoseconds
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
        hashes = {}
        if "hash_ids" in columns.cells:
            for row, (ids, tokens) in enumerate(zip(columns.lists("hash_ids"), prompt.tolist(), strict=True)):
                # NOTE: ids may be fewer than blocks (a trace may name its first blocks only), never more
                if len(ids) > -(-tokens // BLOCK):
                    raise ConfigError(
                        f"{len(ids)} ids for {tokens} tokens", where=columns.place(row, "hash_ids"),
                        expected=f"at most {-(-tokens // BLOCK)}, one per {BLOCK} tokens",
                    )  # fmt: skip
                hashes[row] = ids[: tokens // BLOCK]
        return Rows(
            file=columns.file, arrival=picoseconds(columns, "timestamp", PS_PER_MS), prompt=prompt,
            output=columns.whole("output_length"), hashes=hashes, hash_block=BLOCK,
        )  # fmt: skip
