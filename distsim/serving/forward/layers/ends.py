"""What the first and the last stage do beside their layers: the embedding; the head and the choice of tokens."""

from __future__ import annotations

from distsim.serving.forward.layers.writer import ACTIVATION, Writer

#: bytes per logit of choosing a token: bf16 to fp32, largest or softmax, and their reading
_CHOICE = 14.0


def embedding(w: Writer, rows: int) -> None:
    """Look-up; the vocabulary is spread over tensor parallel ranks, and parts are summed."""
    h = w.rank.model.hidden
    w.memory("embedding", 2 * ACTIVATION * rows * h)
    if w.rank.tp > 1:
        w.exchange("reduce embedding", "tp", "all_reduce", ACTIVATION * rows * h)


def head(w: Writer, samples: int) -> None:
    """Last norm, logits of sequences that sample, their gathering, the choice."""
    model, tp = w.rank.model, w.rank.tp
    if not samples:
        return
    part = -(-model.vocab // tp)
    w.memory("norm", 4 * ACTIVATION * samples * model.hidden)
    w.gemm("logits", samples, part, model.hidden)
    if tp > 1:
        w.exchange("gather logits", "tp", "all_gather", ACTIVATION * samples * part)
    w.memory("choose tokens", _CHOICE * samples * model.vocab, 5)


def hand_on(w: Writer, rows: int) -> None:
    """Hidden states and residual to the next stage; each tensor parallel rank sends its own copy."""
    w.exchange("send to next stage", "pp", "send", 2 * ACTIVATION * rows * w.rank.model.hidden)
