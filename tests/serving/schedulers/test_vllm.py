"""vLLM's two schedulers, rule by rule."""

from __future__ import annotations

import pytest
from stepping import drive, run, scheduler_of

from distsim.serving.request import Request


def planned(text, requests, blocks=1000):
    scheduler = scheduler_of(text, blocks, hashed=False)
    return [{row: new for row, (new, _) in plan.items()} for _, plan, _ in drive(scheduler, requests)]


def test_v1_one_budget_for_prompts_and_generation():
    requests = [Request(0, 0, 10, 5), Request(1, 1, 100, 2), Request(2, 1, 20, 1)]
    assert planned("vllm_v1:max_num_batched_tokens=64", requests) == [
        {0: 10}, {0: 1, 1: 63}, {0: 1, 1: 37, 2: 20}, {0: 1, 1: 1}, {0: 1},
    ]  # fmt: skip


def test_v1_without_chunks_a_prompt_waits_for_its_whole_budget():
    requests = [Request(0, 0, 10, 4), Request(1, 0, 60, 1)]
    assert planned("vllm_v1:max_num_batched_tokens=64,chunked=false", requests) == [{0: 10}, {0: 1, 1: 60}, {0: 1}, {0: 1}]
    scheduler = scheduler_of("vllm_v1:max_num_batched_tokens=64,chunked=false", 100)
    assert "max_num_batched_tokens" in scheduler.refusal(Request(0, 0, 65, 1))


def test_v1_the_last_is_preempted_and_nobody_is_admitted_in_that_iteration():
    requests = [Request(0, 0, 32, 20), Request(1, 0, 31, 20), Request(2, 3, 10, 1)]
    scheduler = scheduler_of("vllm_v1:max_num_seqs=2", 5, hashed=False)
    seen = [sorted(plan) for _, plan, _ in drive(scheduler, requests)]
    assert (requests[0].restarts, requests[1].restarts) == (0, 1)
    gone = next(at for at, rows in enumerate(seen) if at and 1 not in rows)
    assert seen[gone] == [0]


def test_v1_seats():
    scheduler = scheduler_of("vllm_v1:max_num_seqs=3", 1000)
    assert max(len(plan) for _, plan, _ in run(scheduler, [Request(row, 0, 10, 5) for row in range(9)])) == 3


def test_v0_prompts_go_alone_and_are_padded():
    requests = [Request(0, 0, 30, 3), Request(1, 0, 20, 3), Request(2, 0, 10, 3), Request(3, 1, 5, 2)]
    assert planned("vllm_v0:max_tokens=60", requests) == [
        {0: 30, 1: 20}, {2: 10, 3: 5}, {0: 1, 1: 1, 2: 1, 3: 1}, {0: 1, 1: 1, 2: 1},
    ]  # fmt: skip


def test_v0_admission_leaves_the_watermark():
    def together(watermark):
        requests = [Request(0, 0, 16, 8), Request(1, 0, 128, 2)]
        return len(planned(f"vllm_v0:watermark={watermark}", requests, blocks=10)[0])

    assert together(0.1) == 2
    assert scheduler_of("vllm_v0:watermark=0.2", 10).refusal(Request(1, 0, 128, 2)) == "longer than the KV cache"
    assert together(0.11) == 2
    requests = [Request(0, 0, 32, 8), Request(1, 0, 112, 2)]
    assert planned("vllm_v0:watermark=0.2", requests, blocks=10)[0] == {0: 32}


def test_v0_everyone_needs_a_free_block_even_to_begin_none():
    """Four blocks, all taken by prompts: both would fit their next tokens, and still the younger goes."""
    requests = [Request(0, 0, 30, 3), Request(1, 0, 30, 3)]
    scheduler = scheduler_of("vllm_v0", 4, hashed=False)
    run(scheduler, requests)
    assert [one.restarts for one in requests][1] >= 1
    assert requests[0].completed < requests[1].completed


@pytest.mark.parametrize("name", ["vllm_v0", "vllm_v1"])
def test_one_request_takes_what_it_takes(name):
    request = Request(0, 0, 100, 50)
    assert len(run(scheduler_of(name, 20), [request])) == 50
    assert (request.first, request.completed, request.restarts) == (1, 50, 0)
