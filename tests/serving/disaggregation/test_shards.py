"""Who sends whom which keys and values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.serving.deployment import Deployment
from distsim.serving.kv.shards import heads_of, pieces
from distsim.serving.kv.sizes import token_bytes

DEGREES = st.sampled_from([(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (1, 2), (2, 3), (4, 4), (8, 2), (16, 3)])


def of(model, degrees, **more):
    return Deployment.of(model=model, gpu="h100", tp=degrees[0], pp=degrees[1], **more)


@given(source=DEGREES, target=DEGREES, model=st.sampled_from(["llama3-8b", "llama3-70b"]))
def test_every_receiver_gets_each_layer_and_head_once_from_one_who_has_it(source, target, model):
    mine, theirs = of(model, source), of(model, target)
    heads = mine.spec.kv_heads
    each = 2.0 * mine.spec.head_dim * 2
    found = pieces(mine, theirs)
    for stage in range(theirs.pp):
        for rank in range(theirs.tp):
            incoming = [piece for piece in found if piece.dst == stage * theirs.tp + rank]
            got = []
            for piece in incoming:
                sender, of_group = divmod(piece.src, mine.tp)
                held, wanted = heads_of(heads, mine.tp, of_group), heads_of(heads, theirs.tp, rank)
                common = sorted(set(held) & set(wanted))
                assert piece.each == len(common) * each
                assert set(range(piece.first, piece.last)) <= set(mine.layers_of(sender))
                got += [(layer, head) for layer in range(piece.first, piece.last) for head in common]
            expected = [(layer, head) for layer in theirs.layers_of(stage) for head in heads_of(heads, theirs.tp, rank)]
            assert sorted(got) == expected
            assert sum((piece.last - piece.first) * piece.each for piece in incoming) == token_bytes(theirs, stage)


@given(source=st.sampled_from([1, 2, 8]), target=st.sampled_from([1, 4, 16]))
def test_latents_go_whole_to_every_rank_from_senders_by_turns(source, target):
    mine = of("deepseek-v3", (source, 1), ep=source, weights="fp8_block")
    theirs = of("deepseek-v3", (target, 1), ep=target, weights="fp8_block")
    found = pieces(mine, theirs)
    assert [piece.dst for piece in found] == list(range(target))
    assert {piece.src for piece in found} == {rank % source for rank in range(target)}
    assert all((piece.last - piece.first) * piece.each == token_bytes(theirs) for piece in found)


def test_copies_of_a_head_share_the_sending():
    found = pieces(of("llama3-8b", (16, 1)), of("llama3-8b", (16, 1)))
    assert sorted(piece.src for piece in found) == list(range(16))


@pytest.mark.parametrize("other", [{"model": "llama3-70b"}, {"kv_dtype": "fp8"}])
def test_both_sides_keep_the_same(other):
    with pytest.raises(ConfigError, match="hands over to"):
        pieces(of("llama3-8b", (1, 1)), Deployment.of(**{"model": "llama3-8b", "gpu": "h100", **other}))
