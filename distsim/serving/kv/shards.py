"""Which rank holds which keys and values, and so who sends whom how much when they move from one deployment to another."""

from __future__ import annotations

from typing import NamedTuple

from distsim.cost.kernel import WIDTH
from distsim.errors import ConfigError
from distsim.serving.deployment import Deployment


class Piece(NamedTuple):
    """What one rank sends another. Ranks are numbers within a lane: ``stage * tp + rank of the tensor parallel group``."""

    src: int
    dst: int
    first: int  #: layers first .. last - 1
    last: int
    each: float  #: bytes of a token in a layer


def pieces(source: Deployment, target: Deployment) -> tuple[Piece, ...]:
    """Every receiver gets what it will hold, each layer and key head once. Where several senders hold a head (more tensor
    parallel ranks than heads, or MLA's latent, which all of them hold), receivers are spread over them.

    Raises: ConfigError where the two serve different models or keep their cache in different types.
    """
    for name in ("model", "kv_dtype"):
        mine, other = getattr(source, name), getattr(target, name)
        if mine != other:
            raise ConfigError(
                f"{mine} hands over to {other}", where=f"{name} of prefill and decode pools", expected="the same on both sides"
            )
    model = source.spec
    width = WIDTH[source.kv_dtype]
    found = []
    for stage in range(target.pp):
        wanted = target.layers_of(stage)
        for rank in range(target.tp):
            for other in range(source.pp):
                held = source.layers_of(other)
                first, last = max(held.start, wanted.start), min(held.stop, wanted.stop)
                if first >= last:
                    continue
                if model.mla is not None:
                    senders = [(rank % source.tp, (model.mla.kv_lora + model.mla.rope) * width)]
                else:
                    senders = _of_heads(model.kv_heads, source.tp, target.tp, rank, 2.0 * model.head_dim * width)
                for sender, each in senders:
                    found.append(Piece(other * source.tp + sender, stage * target.tp + rank, first, last, each))
    return tuple(found)


def heads_of(heads: int, tp: int, rank: int) -> range:
    """Key heads of a tensor parallel rank: its share, or, with more ranks than heads, one that others hold too."""
    if tp >= heads:
        head = rank * heads // tp
        return range(head, head + 1)
    share = heads // tp
    return range(rank * share, (rank + 1) * share)


def _of_heads(heads: int, source: int, target: int, rank: int, each: float) -> list[tuple[int, float]]:
    """(sender, bytes of a token in a layer) for one receiver."""
    wanted = heads_of(heads, target, rank)
    if source >= heads:  # every sender has one head, ``copies`` have the same
        copies = source // heads
        return [(head * copies + rank % copies, each) for head in wanted]
    found = []
    for sender in range(source):
        held = heads_of(heads, source, sender)
        shared = min(held.stop, wanted.stop) - max(held.start, wanted.start)
        if shared > 0:
            found.append((sender, each * shared))
    return found
