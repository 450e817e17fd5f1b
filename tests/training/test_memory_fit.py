"""What does not fit is refused with the term that breaks it and the nearest change that fits."""

from __future__ import annotations

import pytest
from memory_cases import GPT, LLAMA, UNFUSED, plan, software

from distsim.errors import ConfigError, OutOfMemoryError
from distsim.hardware.gpu import gpu
from distsim.workload.training.memory import check_fit, memory_of
from distsim.workload.training.memory.fit import changes, nearest

H100 = gpu("h100_sxm")
STACK = software()
LLAMA_8B = LLAMA.model_copy(update={"name": "llama3-8b", "layers": 32})


def test_what_fits_passes():
    check_fit(memory_of(LLAMA_8B, plan(dp=64, zero=1, tp=2, sequence_parallel=True), STACK, H100), H100)


def test_states_that_do_not_fit_get_the_optimizer_sharded():
    memory = memory_of(LLAMA_8B, plan(dp=8), STACK, H100)
    with pytest.raises(OutOfMemoryError, match="largest term is optimizer") as caught:
        check_fit(memory, H100)
    error = caught.value
    assert (error.stage, error.term, error.exit_code) == (0, "optimizer", 2)
    assert error.over == memory.device - H100.memory > 0
    assert "--zero 1" in str(error)


def test_bounds_refuse_without_looking_for_advice(monkeypatch):
    monkeypatch.setattr("distsim.workload.training.memory.fit.nearest", lambda memory, gpu: pytest.fail("advice is dear"))
    with pytest.raises(OutOfMemoryError, match="largest term is optimizer") as caught:
        check_fit(memory_of(LLAMA_8B, plan(dp=8), STACK, H100), H100, advise=False)
    assert (caught.value.stage, caught.value.term, caught.value.fix) == (0, "optimizer", "")


def test_activations_that_do_not_fit_get_recomputed():
    memory = memory_of(GPT.model_copy(update={"layers": 4}), plan(dp=2, zero=1, tp=8, micro_batch=32), UNFUSED, H100)
    with pytest.raises(OutOfMemoryError) as caught:
        check_fit(memory, H100)
    assert caught.value.term == "activations"
    assert "--recompute selective fits" in str(caught.value)


@pytest.mark.parametrize("options", [{"dp": 8}, {"dp": 8, "zero": 1, "micro_batch": 8}, {"dp": 8, "zero": 2, "seq": 32768,
                                                                                   "recompute": "full"}])  # fmt: skip
def test_the_advice_fits_and_nothing_cheaper_does(options):
    memory = memory_of(LLAMA_8B, plan(**options), STACK, H100)
    found = nearest(memory, H100)
    assert found is not None
    for said, made in changes(memory):
        try:
            needed = memory_of(LLAMA_8B, made, STACK, H100).device
        except ConfigError:
            continue
        if said == found[0]:
            assert needed == found[1] <= H100.memory
            return
        assert needed > H100.memory
    pytest.fail(f"{found[0]} is no change")


def test_every_change_keeps_the_gpus_and_the_batch():
    memory = memory_of(LLAMA_8B, plan(dp=16, tp=2, zero=1, micro_batch=4), STACK, H100)
    said = [words for words, made in changes(memory)
            if (made.world, made.global_batch) == (memory.plan.world, memory.plan.global_batch)]  # fmt: skip
    assert said == [words for words, _ in changes(memory)]
    assert len(said) > 8


def test_a_hopeless_plan_says_so():
    memory = memory_of(GPT, plan(), UNFUSED, H100)
    with pytest.raises(OutOfMemoryError, match="No single change fits"):
        check_fit(memory, H100)
