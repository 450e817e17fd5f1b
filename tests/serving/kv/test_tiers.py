"""Tiers below the GPU's cache: what is in them, what a load costs, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.serve import serve
from distsim.serving.batch import Batch
from distsim.serving.kv.prefix import PrefixBlocks
from distsim.serving.kv.tiers import Tier, Tiers, tiers_of
from distsim.serving.kv.transfers import Transfers
from distsim.serving.request import Request

POINT = {
    "model": "llama3-8b", "cluster": "dgx_h100:gpus=1", "requests": "poisson:qps=4", "lengths": "fixed:prompt=400,output=60",
    "sessions": "turns=6,prefixes=8,prefix_tokens=800,think=2s", "n": 120, "kv_blocks": 900,
}  # fmt: skip


def passed(cache, group, blocks):
    """A request comes, computes its prompt and is done; returns what it found."""
    request = Request(0, 0, 16 * blocks + 1, 1, hashes=[100 * group + at for at in range(blocks)])
    cached = cache.match(request)
    cache.admit(request, cached, blocks + 1)
    cache.fill(request, 16 * blocks)
    request.computed = 16 * blocks + 1
    cache.release(request)
    return cached // 16


def cache_of(blocks, *tiers):
    transfers = Transfers()
    cache = PrefixBlocks(blocks, 16)
    cache.tiers = Tiers(list(tiers), transfers)
    return cache, transfers


def test_what_is_thrown_out_is_found_below_and_loading_takes_time():
    cpu, ssd = Tier("cpu", 2, 10, 3), Tier("ssd", 100, 50, 7)
    cache, transfers = cache_of(5, cpu, ssd)
    assert passed(cache, 1, 4) == 0
    assert passed(cache, 2, 4) == 0  # throws out group 1, its last block first: 3, 2 are passed on to the disk
    assert (list(cpu._held), list(ssd._held)) == ([101, 100], [103, 102])
    assert (cpu.written, cpu.dropped, ssd.written) == (4, 2, 2)
    assert transfers.copied == 0
    assert passed(cache, 1, 4) == 4
    assert (cpu.loaded, ssd.loaded) == (2, 2)
    batch = Batch([], None)
    transfers.charge(batch)
    assert (batch.wait, batch.behind) == (2 * 10 + 3 + 2 * 50 + 7, 0)
    transfers.charge(batch)
    assert batch.wait == 0


def test_overlap_hides_loads_behind_the_iteration():
    cache, transfers = cache_of(5, Tier("cpu", 9, 10, 3, overlap=True))
    for group in (1, 2, 1):
        passed(cache, group, 4)
    batch = Batch([], None)
    transfers.charge(batch)
    assert (batch.wait, batch.behind) == (0, 43)


def test_the_part_on_the_gpu_is_not_loaded():
    cpu = Tier("cpu", 9, 10)
    cache, _ = cache_of(6, cpu)
    passed(cache, 1, 4)
    passed(cache, 2, 3)  # group 1 loses its last two blocks
    assert cache.match(Request(0, 0, 65, 1, hashes=[100, 101, 102, 103])) == 64
    assert passed(cache, 1, 4) == 4
    assert cpu.loaded == 2


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=80), st.integers(1, 6), st.integers(1, 9))
def test_tiers_are_least_recently_used_lists(steps, first, second):
    """Against two plain lists."""
    tiers, lists = Tiers([Tier("a", first, 1), Tier("b", second, 1)], Transfers()), ([], [])
    for number, load in steps:
        if load and number in tiers:
            tiers.load([number])
            held = next(one for one in lists if number in one)
            held.remove(number)
            held.append(number)
        elif not load:
            tiers.put(number)
            for held, room in zip(lists, (first, second), strict=True):
                if number in held:
                    held.remove(number)
                    held.append(number)
                    break
                held.append(number)
                if len(held) <= room:
                    break
                number = held.pop(0)
        assert [list(tier._held) for tier in tiers.tiers] == list(lists)


def test_sizes_and_rates_are_bytes():
    text = "cpu:size=1GiB,bandwidth=20GB/s+ssd:size=1TiB,bandwidth=5GB/s,latency=100us,overlap=true"
    cpu, ssd = tiers_of(text, 2 << 20, Transfers()).tiers
    assert (cpu.name, cpu.room, cpu.load_ps, cpu.latency, cpu.overlap) == ("cpu", 512, 104_857_600, 0, False)
    assert (ssd.name, ssd.room, ssd.load_ps, ssd.latency, ssd.overlap) == ("ssd", 1 << 19, 419_430_400, 100_000_000, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu", "size"), ("cpu:size=1GiB", "bandwidth"), ("cpu:size=1,bandwidth=1GB/s", "holds no prefix"),
        ("cpu:size=1GiB,bandwidth=0GB/s", "bandwidth"), ("cpu:size=1GiB,bandwidth=1GB/s,colour=red", "unknown key 'colour'"),
        ("cpu:size=1GiB,bandwidth=1GB/s+cpu:size=1GiB,bandwidth=1GB/s", "two tiers are called 'cpu'"),
    ],
)  # fmt: skip
def test_bad_tiers_are_refused_in_words(text, message):
    with pytest.raises(ConfigError, match=message):
        serve(**POINT, kv_tiers=text)


def test_tiers_without_prefixes_are_refused():
    with pytest.raises(ConfigError, match="finds no prefixes"):
        serve(**POINT, kv_tiers="cpu:size=1GiB,bandwidth=1GB/s", scheduler="vllm_v0")
    with pytest.raises(ConfigError, match="finds no prefixes"):
        serve(**{**POINT, "sessions": None}, kv_tiers="cpu:size=1GiB,bandwidth=1GB/s")


@pytest.mark.parametrize("scheduler", ["vllm_v1", "sglang"])
def test_a_larger_and_faster_tier_is_better(scheduler):
    def run(tiers):
        result = serve(**POINT, scheduler=scheduler, kv_tiers=tiers)
        return sum(row.hits for row in result.replicas), float(result.requests.ttft.mean())

    none, slow, fast, small = (
        run(one) for one in (None, "cpu:size=64GiB,bandwidth=0.2GB/s", "cpu:size=64GiB,bandwidth=200GB/s",
                             "cpu:size=256MiB,bandwidth=200GB/s")
    )  # fmt: skip
    assert none[0] < small[0] < fast[0]
    assert fast[1] < none[1] < slow[1]
