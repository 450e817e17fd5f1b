"""Attention and feed-forward layers on different GPUs."""

from __future__ import annotations

import pytest

from distsim.errors import ConfigError, OutOfMemoryError
from distsim.serving.deployment import Deployment
from distsim.serving.iteration import Shape
from distsim.serving.kv.sizes import kv_blocks
from distsim.serving.times.afd import AfdTimes, _cut
from distsim.serving.times.model import ModelTimes

DENSE = Deployment(model="llama3-8b", gpu="h100_sxm")
SPARSE = Deployment(model="qwen3-30b-a3b", gpu="h100_sxm", dp=2, ep=2)
DECODE = Shape((), 64, 64 * 1000, 1000, 64)


def test_no_side_is_faster_than_its_own_work_and_no_pipeline_slower_than_one_after_the_other():
    whole = sum(ModelTimes(DENSE).times(DECODE))
    one = AfdTimes(DENSE, micro_batches=1).times(DECODE)[0]
    assert one > whole * 0.9, "apart, one micro-batch gains nothing from the second GPU"
    for count in (2, 4):
        assert AfdTimes(DENSE, micro_batches=count).times(DECODE)[0] > whole / 2 * 0.9


@pytest.mark.parametrize("deployment", [DENSE, SPARSE])
def test_steady_says_what_times_says(deployment):
    times = AfdTimes(deployment, ffn_ranks=2)
    ps, count = times.steady(10, 5123, 700)
    for step in range(count):
        shape = Shape((), 10, 5123 + 10 * step, 700 + step, 10)
        assert times.times(shape) == (ps,)


def test_lanes_wait_for_the_slowest():
    times = AfdTimes(SPARSE, ffn_ranks=2)
    assert times.group_times([DECODE, None])[0] <= times.group_times([DECODE, DECODE])[0]


def test_parts_hold_every_token_once():
    shape = Shape(((100, 0), (50, 20), (7, 0)), 9, 9000, 2000, 11)
    parts = _cut(shape, 4)
    assert sum(part.tokens for part in parts) == shape.tokens
    assert sum(part.sequences for part in parts) == 9
    assert sorted(pair for part in parts for pair in part.prefills) == sorted(shape.prefills)


def test_attention_alone_leaves_more_room_for_the_cache():
    assert AfdTimes(DENSE).kv_blocks() > kv_blocks(DENSE)


def test_what_cannot_be():
    with pytest.raises(ConfigError, match="pp=2"):
        AfdTimes(DENSE.model_copy(update={"pp": 2}))
    with pytest.raises(OutOfMemoryError, match="feed-forward"):
        AfdTimes(Deployment(model="llama3-70b", gpu="h100_sxm", tp=8), ffn_ranks=1).kv_blocks()
