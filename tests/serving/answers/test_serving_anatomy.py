"""What the time of iterations went to, with prompts in parts; seats as a limit; GPUs that nobody uses; counts of copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim.analysis import serving_work
from distsim.analysis.serving import summary
from distsim.analysis.serving_findings import findings
from distsim.analysis.serving_limit import limit, seats_of
from distsim.analysis.serving_work import parts
from distsim.report.serving import answer, text
from distsim.report.serving_document import document
from distsim.serve import serve
from distsim.serving.deployment import Deployment
from distsim.serving.fleet import make_scheduler, usual_options
from distsim.serving.iteration import Shape, attended
from distsim.serving.requests.table import requests_of

OPTIONS = {"model": "llama3-8b", "cluster": "dgx_h100:gpus=1", "requests": "-"}


def asked(n, prompt, output, gap=0, **more):
    return requests_of(np.arange(n, dtype=np.int64) * gap, np.full(n, prompt), np.full(n, output), **more)


@given(st.integers(1, 200), st.integers(0, 500), st.integers(1, 5))
def test_attended_tokens_are_those_of_each_new_one(new, cached, alike):
    pairs = sum(cached + place + 1 for place in range(new))
    assert attended([(new, cached)] * alike) == alike * pairs == Shape(((new, cached),) * alike, 0, 0, 0, 0).attended


def test_chunks_of_a_prompt_attend_to_all_of_it_together():
    result = serve(**OPTIONS, table=asked(1, 30_000, 2))
    log = result.iterations
    assert (log["prefills"] > 0).sum() > 1
    assert log["attended"].sum() == 30_000 * 30_001 // 2


def test_long_prompts_in_chunks_are_arithmetic_and_nobody_waits_for_the_host():
    result = serve(**OPTIONS, table=asked(10, 30_000, 100, gap=3 * 10**12))
    shares = parts(result)
    log = result.iterations
    took = log["ps"] * log["count"]
    with_prompts = took[log["prefills"] > 0].sum() / took.sum()
    assert shares["host"] == 0  # a server that works ahead, with graphs for what only generates
    # prompts of thousands of rows are arithmetic but for norms and the like, generation of one or two is not
    assert 0.85 * with_prompts < shares["compute"] < with_prompts
    assert limit(result, summary(result)).by == "compute"


def test_the_host_takes_what_the_software_says():
    shares = parts(serve(**OPTIONS, overlap=False, table=asked(1, 16, 400)))
    ahead = parts(serve(**OPTIONS, table=asked(1, 16, 400)))
    assert ahead["host"] == pytest.approx(0, abs=1e-3)
    result = serve(**OPTIONS, overlap=False, table=asked(1, 16, 400))
    took = (result.iterations["ps"] * result.iterations["count"]).sum()
    assert shares["host"] == pytest.approx(400 * 5.5e9 / 256 / took, rel=0.02)  # 5.5 ms over 256 sequences, of each iteration


def mixed(stepped=False):
    rng = np.random.default_rng(3)
    n = 150
    table = requests_of(
        np.cumsum(rng.exponential(2e11, n)).astype(np.int64), rng.integers(20, 12_000, n), rng.integers(2, 300, n)
    )
    return serve(**OPTIONS, table=table, stepped=stepped)


def test_shares_hardly_depend_on_the_sample_and_not_at_all_on_stepping(monkeypatch):
    result = mixed()
    usual = parts(result)
    assert parts(mixed(stepped=True)) == usual
    monkeypatch.setattr(serving_work, "_SAMPLE", 4000)
    many = parts(result)
    assert all(abs(many[part] - share) < 0.01 for part, share in usual.items())


def test_seats_that_are_all_taken_are_named():
    result = serve(**OPTIONS, table=asked(200, 200, 100, gap=10**10), scheduler="vllm_v1:max_num_seqs=16")
    verdict = limit(result, summary(result))
    assert (verdict.by, verdict.of) == ("queue", "all 16 seats taken")
    assert verdict.full > 0.5
    assert "limited by queue (all 16 seats taken)" in answer(result, findings(result))
    free = serve(**OPTIONS, table=asked(200, 200, 100, gap=10**10), scheduler="vllm_v1:max_num_seqs=256")
    assert limit(free, summary(free)).full == 0
    # waiting is a small part of the latency, and yet seats are what is short
    long = serve(**OPTIONS, table=asked(60, 50, 3000, gap=10**12), scheduler="vllm_v1:max_num_seqs=16")
    verdict = limit(long, summary(long))
    assert verdict.waiting < 0.5
    assert (verdict.by, verdict.of) == ("queue", "all 16 seats taken")


@pytest.mark.parametrize(("gpu", "backend", "seats"), [("h100", "vllm", 1024), ("a100", "vllm", 256), ("h100", "trtllm", 2048)])
def test_seats_are_those_of_the_software_unless_given(gpu, backend, seats):
    result = serve(**{**OPTIONS, "gpu": gpu, "backend": backend}, table=asked(1, 10, 2))
    assert seats_of(result) == {"pool 0": seats}
    usual = usual_options(Deployment.of(model="llama3-8b", gpu=gpu, backend=backend))
    assert make_scheduler("vllm_v1", 100, 1, usual=usual).params.max_num_seqs == seats
    assert make_scheduler("vllm_v1:max_num_seqs=7", 100, 1, usual=usual).params.max_num_seqs == 7
    assert make_scheduler("vllm_v0", 100, 1, usual=usual).params.max_num_seqs == 128


def test_gpus_that_no_replica_has_are_told():
    idle = serve(**{**OPTIONS, "cluster": "h100:gpus=12"}, tp=8, table=asked(2, 10, 2))
    assert any("4 of 12 GPUs serve nobody" in warning for warning in idle.warnings)
    for more in ({"tp": 8}, {"tp": 4}, {"tp": 2, "replicas": 1}):  # none is left, or left on purpose
        full = serve(**{**OPTIONS, "cluster": "h100:gpus=8"}, **more, table=asked(2, 10, 2))
        assert not any("serve nobody" in warning for warning in full.warnings)


def test_accepted_tokens_are_counted():
    draft = "draft:tokens=3,acceptance=0.7"
    result = serve(**OPTIONS, table=asked(40, 20, 300), speculation=draft)
    (found,) = result.tallies.drafts
    assert found.tokens == 40 * 299  # the first token comes from the prompt
    assert found.accepted_per_step == pytest.approx((1 - 0.7**4) / 0.3 - 1, rel=0.05)
    assert document(result, findings(result))["speculation"][0]["accepted_per_step"] == found.accepted_per_step
    assert "of 3 drafted tokens accepted" in text(result, findings(result))
    assert found.steps == result.iterations["sequences"].sum()
    failing = serve(**OPTIONS, table=asked(40, 20, 300), speculation=draft, failures="down:at=200ms,replica=0,repair=1s")
    # counts outlive a failure; the log has the iteration that it broke off, which came to nothing
    assert 0 <= failing.iterations["sequences"].sum() - failing.tallies.drafts[0].steps <= 40


def test_tiers_and_swaps_leave_their_counts():
    n, block = 40, 16
    hashes = {row: tuple(1000 * (row % 8) + place for place in range(32)) for row in range(n)}
    table = asked(n, 520, 40, gap=10**11, hashes=hashes, hash_block=block)
    tiers = "cpu:size=200MB,bandwidth=50GB/s+disk:size=1GB,bandwidth=5GB/s"
    result = serve(**OPTIONS, table=table, kv_blocks=120, kv_tiers=tiers)
    cpu, disk = result.tallies.tiers
    size = 131_072 * block  # llama3-8b: 32 layers, 8 key heads of 128, keys and values of 2 bytes
    assert (cpu.name, disk.name) == ("cpu", "disk")
    assert cpu.hits + disk.hits > 0
    for tier in (cpu, disk):
        assert tier.loaded_bytes == tier.loaded_tokens // block * size
        assert tier.written_bytes >= tier.dropped_bytes
    assert disk.written_bytes == 8 * 32 * size  # every prefix once, however often the tier above throws it out
    assert cpu.dropped_bytes > disk.written_bytes
    shown = document(result, findings(result))
    assert [one["hits"] for one in shown["tiers"]] == [cpu.hits, disk.hits]
    assert f"{disk.hits:,} prompts loaded {disk.loaded_tokens:,} tokens" in " ".join(text(result, findings(result)).split())
    swapped = serve(**OPTIONS, table=asked(20, 300, 400), kv_blocks=400, scheduler="vllm_v1:preemption=swap")
    (swap,) = swapped.tallies.swaps
    assert swap.out_tokens == swap.back_tokens > 0
    assert swap.out_bytes == swap.out_tokens * 131_072
    assert summary(swapped).preemptions > 0
    plain = serve(**OPTIONS, table=asked(2, 10, 2))
    assert (plain.tallies.tiers, plain.tallies.swaps, plain.tallies.drafts) == ((), (), ())


def test_nothing_served_says_why():
    result = serve(**OPTIONS, table=asked(3, 600, 50), scheduler="vllm_v1:max_num_batched_tokens=100,chunked=false")
    said = answer(result, findings(result))
    assert "on 1 x h100_sxm" in said
    assert "nothing served (longer than max_num_batched_tokens" in said
    assert "limited by" not in said
    assert len(repr(result)) < 200
    assert len(repr(result.requests)) < 200


def test_the_error_of_whole_answers_stands_beside_that_of_kernels():
    result = serve(**OPTIONS, table=asked(2, 100, 20))
    found = findings(result)
    assert list(found.measured) == ["dense models"]
    assert "of whole answers, against measured servers" in " ".join(text(result, found).split())
    assert document(result, found)["measured_relative_error"]["dense models"]["tpot"] > found.errors["model"]
