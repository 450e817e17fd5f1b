"""SGLang's rules, one by one."""

from __future__ import annotations

import pytest
from stepping import drive, run, scheduler_of

from distsim.serving.kv.radix import RadixBlocks
from distsim.serving.request import Request


def order(scheduler, requests):
    """Rows in the order in which their prompts began."""
    seen = []
    for batch, _, _ in drive(scheduler, requests):
        seen += [request.row for request, _ in batch.prefills if request.row not in seen]
    return seen


def chain(group, count):
    return [100 * group + at for at in range(count)]


def test_the_longest_cached_prefix_goes_first():
    def requests():
        first = Request(0, 0, 96, 4, hashes=chain(1, 6))
        late = [(1, 40, []), (2, 97, chain(1, 6)), (3, 65, chain(1, 2) + chain(9, 2)), (4, 97, chain(1, 4) + chain(8, 2))]
        return [first] + [Request(row, 1, prompt, 2, hashes=hashes) for row, prompt, hashes in late]

    assert order(scheduler_of("sglang:max_num_seqs=1", 100), requests()) == [0, 2, 4, 3, 1]
    assert order(scheduler_of("sglang:max_num_seqs=1,policy=fcfs", 100), requests()) == [0, 1, 2, 3, 4]


def test_of_those_with_the_same_new_prefix_one_goes_first_and_the_others_find_it():
    requests = [Request(row, 0, 65, 2, hashes=chain(1, 4)) for row in range(3)] + [Request(3, 0, 20, 2)]
    scheduler = scheduler_of("sglang:max_num_seqs=2", 100)
    assert order(scheduler, requests) == [0, 3, 1, 2]
    assert [one.cached for one in requests] == [0, 64, 64, 0]


def test_a_long_queue_is_left_as_it_is():
    requests = [Request(0, 0, 64, 2, hashes=chain(1, 4))]
    requests += [Request(row, 1, 20, 1) for row in range(1, 129)] + [Request(129, 1, 65, 1, hashes=chain(1, 4))]
    assert order(scheduler_of("sglang:max_num_seqs=1", 100), requests)[:3] == [0, 1, 129]  # 129 wait, and then 128


def test_prompts_stop_generation_and_mixed_ones_do_not():
    def alone(text):
        requests = [Request(0, 0, 10, 20), Request(1, 3, 100, 5)]
        return [(len(batch.prefills), len(planned)) for batch, planned, _ in drive(scheduler_of(text, 100), requests)][3:7]

    assert alone("sglang:chunk=64") == [(1, 1), (1, 1), (0, 2), (0, 2)]
    assert alone("sglang:chunk=64,mixed=true") == [(1, 2), (1, 2), (0, 2), (0, 2)]


def test_chunks_are_cut_at_the_end_of_a_page_and_go_on_first():
    requests = [Request(0, 0, 100, 1), Request(1, 0, 30, 1), Request(2, 0, 30, 1)]
    scheduler = scheduler_of("sglang:chunk=72", 100)
    planned = [{row: new for row, (new, _) in plan.items()} for _, plan, _ in drive(scheduler, requests)]
    assert planned == [{0: 64}, {0: 36, 1: 16}, {1: 14, 2: 30}]  # whole pages are counted: 36 tokens are 48


def test_room_is_kept_for_a_share_of_what_is_to_come():
    """One runs and may take 0.7 * 100 tokens more: a second one is admitted if what is left holds all of it."""

    def together(blocks):
        requests = [Request(0, 0, 16, 101), Request(1, 1, 16, 101)]
        seen = run(scheduler_of("sglang", blocks), requests)
        return max(len(planned) for _, planned, _ in seen)

    # 16 blocks are 256 tokens: 240 free - 70 expected = 170 > 16 + 101; 12 blocks: 176 - 70 = 106
    assert together(16) == 2
    assert together(12) == 1


def test_retraction_takes_the_least_generated_and_sets_the_ratio_anew():
    scheduler = scheduler_of("sglang:conservativeness=0", 12, hashed=False)
    requests = [Request(0, 0, 60, 40), Request(1, 1, 60, 40), Request(2, 6, 20, 30)]
    before = None
    for _ in drive(scheduler, requests):
        if scheduler.preemptions and before is None:
            before = scheduler.ratio()
            # the youngest gives 32 tokens of room, less than 20 for each of two; so the next goes too
            assert [one.row for one in scheduler.waiting] == [2, 1]
            done = sum(one.output - scheduler.pool.left(one) for one in scheduler.pool.members)
            # the ratio was taken one iteration ago, when it had generated one token less
            assert before == pytest.approx((done - 1 + 20) / 41)
    assert before is not None


def test_of_equals_the_longest_prompt_is_retracted():
    scheduler = scheduler_of("sglang:conservativeness=0", 12, hashed=False)
    requests = [Request(0, 0, 60, 40), Request(1, 1, 60, 40), Request(2, 2, 20, 30)]  # prompts first: all generate together
    run(scheduler, requests)
    assert [one.restarts for one in requests] == [0, 1, 0]


def test_the_ratio_sinks_with_every_iteration_of_generation_and_starts_afresh():
    scheduler = scheduler_of("sglang", 1000)
    assert scheduler.ratio() == 0.7
    ratios = [scheduler.ratio() for _ in drive(scheduler, [Request(0, 0, 10, 701)])]
    step = 0.7 * 0.86 / 600
    assert ratios[:3] == pytest.approx([0.7, 0.7 - step, 0.7 - 2 * step])
    assert ratios[650] == pytest.approx(0.098)
    assert scheduler.next_batch() is None
    assert scheduler.ratio() == 0.7


def test_a_request_that_can_never_be_admitted_is_refused():
    scheduler = scheduler_of("sglang", 10)
    assert scheduler.refusal(Request(0, 0, 100, 59)) == ""
    assert scheduler.refusal(Request(0, 0, 100, 60)) == "longer than the KV cache"


def test_what_is_computed_twice_is_kept_once():
    requests = [Request(row, 0, 64, 8, hashes=chain(1, 4)) for row in range(2)]
    scheduler = scheduler_of("sglang:policy=fcfs", 20)
    seen = drive(scheduler, requests)
    next(seen)
    assert scheduler.kv.used == 4
    assert all(one.held[0] is requests[0].held[0] for one in requests)


def test_free_room_goes_first_and_then_the_least_recently_used_leaf():
    kv = RadixBlocks(6, 16)
    rows = [Request(row, 0, 48, 1, hashes=chain(row, 3)) for row in range(2)]
    for one in rows:
        kv.admit(one, 0, 3)
        kv.fill(one, 48)
    for one in rows:
        one.computed = 48
        kv.release(one)
    kv.touch(rows[0], 32)  # somebody who waits looks up its first two blocks
    other = Request(2, 0, 16, 1)
    gone = []
    for _ in range(6):
        kv.admit(other, 0, 1)
        other.blocks = 0
        gone.append([kv.match(Request(9, 0, 49, 1, hashes=one.hashes)) // 16 for one in rows])
    assert gone == [[2, 3], [2, 2], [2, 1], [2, 0], [1, 0], [0, 0]]
