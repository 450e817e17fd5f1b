"""A request whose replica has failed goes on at another, with all that had come out as part of its prefill: whatever a policy's
limits for prompts are, it is served to its end."""

from __future__ import annotations

import pytest

from distsim.registry import names
from distsim.serving.fleet import make_scheduler
from distsim.serving.request import Request

PROMPT, OUTPUT = 90, 40
OPTIONS = {
    "lightllm": "lightllm:max_tokens=90", "vllm_v0": "vllm_v0:max_tokens=129", "orca": "orca:max_len=129",
    "static": "static:max_len=129", "sarathi": "sarathi:chunk=32", "sglang": "sglang:chunk=32,max_tokens=32",
}  # fmt: skip


def serve_to_the_end(scheduler, request):
    for now in range(1, 1000):
        batch = scheduler.next_batch()
        if batch is None:
            break
        if scheduler.finish(batch, 1, now):
            return
    raise AssertionError(f"{request} is never done")


@pytest.mark.parametrize("name", names("scheduler"))
def test_whoever_was_accepted_is_accepted_again(name):
    text = OPTIONS.get(name, name)
    least = next(blocks for blocks in range(1, 1000) if not _refused(text, blocks))
    for generated in range(1, OUTPUT):
        scheduler = make_scheduler(text, least, 1)
        request = Request(0, 0, PROMPT, OUTPUT)
        request.computed, request.left, request.blocks = PROMPT + generated - 1, OUTPUT - generated, 1
        request.lose(anew=False)
        assert request.prefill == PROMPT + generated
        scheduler.enqueue(request)
        serve_to_the_end(scheduler, request)


def _refused(text, blocks):
    return make_scheduler(text, blocks, 1).refusal(Request(0, 0, PROMPT, OUTPUT))
