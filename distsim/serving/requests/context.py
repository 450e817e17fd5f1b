"""Sequences longer than a model is made for.

A server has a longest sequence (``max_model_len``), prompt and answer together. vLLM refuses a prompt that leaves no room for a
token, and stops an answer where the sequence is full (``finish_reason`` length); its HTTP server refuses, too, a request whose
``max_tokens`` goes beyond, but what a trace tells is the length of the answer, not what was asked for. So answers are cut here.

Source: vLLM 0.11, ``v1/core/sched/utils.py`` (check_stop) and ``entrypoints/openai/serving_engine.py`` (_validate_input).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from distsim.models.spec import Model
from distsim.serving.requests.table import Requests


def within(table: Requests, longest: int) -> Requests:
    """Answers cut where prompt and answer reach ``longest`` tokens, counted in a warning. Prompts that leave no room for an
    answer stay as they are: the service drops them."""
    full = table.prompt + table.output > longest
    cut = full & (table.prompt < longest)
    if not cut.any():
        return table
    output = np.where(cut, longest - table.prompt, table.output)
    # numbers beyond what is generated would name content that is never there
    hashes = {
        row: numbers[: longest // table.hash_block] if cut[row] else numbers for row, numbers in table.hashes.items()
    }  # fmt: skip
    warning = f"{int(cut.sum())} requests: answers cut to max_model_len={longest}"
    return replace(table, output=output, hashes=hashes, warnings=(*table.warnings, warning))


def beyond(table: Requests, model: Model) -> str:
    """A warning that counts sequences longer than the model's usual one; empty where there are none."""
    count = int((table.prompt + table.output > model.seq).sum())
    if not count:
        return ""
    return (
        f"{count} requests are longer than {model.name}'s usual {model.seq:,} tokens, prompt and answer together; "
        f"--max-model-len {model.seq} would drop or cut them"
    )
