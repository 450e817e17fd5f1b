"""Requests of vLLM benchmark runs: JSON lines of input_toks, output_toks, arrival_time_ns and, if recorded, input_tok_ids.

Token ids become hash chains of whole 16-token blocks, as vLLM's prefix cache has them (its default block size).
"""

from __future__ import annotations

from distsim.errors import ConfigError
from distsim.registry import register
from distsim.serving.requests.blocks import Chains
from distsim.serving.requests.columns import Columns
from distsim.serving.requests.trace import ReplayParameters, Rows, picoseconds

BLOCK = 16  #: tokens per number


@register("requests", "vllm")
class VLLM:
    """``vllm:file=sharegpt.jsonl.gz``."""

    columns = ("input_toks", "output_toks", "arrival_time_ns")
    Params = ReplayParameters

    @staticmethod
    def rows(columns: Columns) -> Rows:
        """See Format."""
        prompt = columns.whole("input_toks")
        hashes = {}
        if "input_tok_ids" in columns.cells:
            chains = Chains(BLOCK)
            for row, (ids, tokens) in enumerate(zip(columns.lists("input_tok_ids"), prompt.tolist(), strict=True)):
                if ids and len(ids) != tokens:
                    raise ConfigError(
                        f"{len(ids)} token ids for {tokens} tokens", where=columns.place(row, "input_tok_ids"),
                        expected="as many as input_toks",
                    )  # fmt: skip
                hashes[row] = chains.of(ids)
        return Rows(
            file=columns.file, arrival=picoseconds(columns, "arrival_time_ns", 1000), prompt=prompt,
            output=columns.whole("output_toks"), hashes=hashes, hash_block=BLOCK,
        )  # fmt: skip
