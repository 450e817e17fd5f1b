"""TensorRT-LLM's policy: budget, seats, reservation, and the iteration that overlap costs."""

from __future__ import annotations

from distsim.serving.kv.blocks import Blocks
from distsim.serving.request import Request
from distsim.serving.schedulers.trtllm import Trtllm


def _scheduler(blocks=1000, **options):
    params = Trtllm.Params(**options)
    return Trtllm(params, Blocks(blocks, params.block))


def _come(scheduler, *lengths, output=4, first=0):
    made = [Request(first + n, 0, prompt, output, 0, -1, 0, ()) for n, prompt in enumerate(lengths)]
    for request in made:
        scheduler.enqueue(request)
    return made


def test_whole_prompts_within_the_budget():
    scheduler = _scheduler(max_num_tokens=100)
    requests = _come(scheduler, 60, 40, 30)
    batch = scheduler.next_batch()
    assert [request for request, _ in batch.prefills] == requests[:2]
    assert [new for _, new in batch.prefills] == [60, 40]
    assert scheduler.refusal(Request(9, 0, 101, 1, 0, -1, 0, ())) == "longer than max_num_tokens"


def test_what_comes_during_an_iteration_is_looked_at_one_later():
    scheduler = _scheduler()
    _come(scheduler, 10, output=9)
    scheduler.finish(scheduler.next_batch(), 1, 1)
    (late,) = _come(scheduler, 20, first=1)
    missed = scheduler.next_batch()
    assert missed.prefills == []
    assert scheduler.steady(missed) == 1
    scheduler.finish(missed, 1, 2)
    assert scheduler.next_batch().prefills == [(late, 20)]


def test_without_overlap_it_joins_at_once():
    scheduler = _scheduler(overlap=False)
    _come(scheduler, 10, output=9)
    scheduler.finish(scheduler.next_batch(), 1, 1)
    (late,) = _come(scheduler, 20, first=1)
    assert scheduler.next_batch().prefills == [(late, 20)]


def test_blocks_are_reserved_and_nobody_is_evicted():
    scheduler = _scheduler(blocks=4, block=16)
    first, second = _come(scheduler, 16, 16, output=33)  # 48 tokens: 3 blocks each
    batch = scheduler.next_batch()
    assert [request for request, _ in batch.prefills] == [first]
    assert scheduler.kv.free == 1
    scheduler.finish(batch, 1, 1)
    for now in range(2, 34):
        scheduler.finish(scheduler.next_batch(), 1, now)
    assert first.completed == 33
    assert [request for request, _ in scheduler.next_batch().prefills] == [second]


def test_a_request_that_gives_up_is_forgotten():
    scheduler = _scheduler(max_batch_size=1)
    _come(scheduler, 10, output=9)
    batch = scheduler.next_batch()
    one, two = _come(scheduler, 20, 30, first=1)
    scheduler.finish(batch, 1, 1)
    scheduler.next_batch()
    assert scheduler.withdraw(one)
    assert not scheduler.withdraw(one)
    assert list(scheduler.waiting) == [two]
