"""What limits a service, in cases where it can only be one thing."""

from __future__ import annotations

import numpy as np
import pytest
from served_results import MS, Linear, served, workload

from distsim.analysis.serving import summary
from distsim.analysis.serving_limit import limit
from distsim.analysis.serving_work import compute_bound, parts
from distsim.cost.kernel import gemm
from distsim.hardware.gpu import gpu
from distsim.serve import serve
from distsim.serving.requests.table import requests_of


def found(result):
    return limit(result, summary(result))


def test_more_load_than_seats_is_a_queue():
    verdict = found(served(workload(80, 0, rate=1000), seats=2))
    assert verdict.by == "queue"
    assert verdict.waiting > 0.5
    assert "for their turn" in verdict.because


def test_more_load_than_kv_blocks_is_memory():
    verdict = found(served(workload(80, 0, rate=1000), kv_blocks=48))
    assert (verdict.by, verdict.of) == ("memory", "KV capacity")
    assert verdict.short_of_waiting > 0.5


def test_without_a_deployment_tokens_decide():
    prompts = served(workload(30, 0, rate=0.05, prompt=(3000, 4000), output=(1, 3)), times=Linear(token=MS))
    assert found(prompts).by == "compute"
    generation = served(workload(30, 0, rate=5, prompt=(1, 5), output=(50, 100)))
    assert (found(generation).by, found(generation).of) == ("memory", "bandwidth")


def test_long_prompts_are_compute_and_long_answers_of_few_are_weights():
    options = {"model": "llama3-8b", "cluster": "dgx_h100:gpus=1", "requests": "-"}
    n = 12
    arrival = (np.arange(n) * 2 * 10**12).astype(np.int64)
    prompts = serve(**options, table=requests_of(arrival, np.full(n, 8000), np.full(n, 1)))
    shares = parts(prompts)
    assert sum(shares.values()) == pytest.approx(1)
    assert found(prompts).by == "compute"
    assert shares["compute"] > 0.7
    answers = serve(**options, table=requests_of(arrival, np.full(n, 10), np.full(n, 200)))
    shares = parts(answers)
    assert (found(answers).by, found(answers).of) == ("memory", "bandwidth")
    assert shares["weights"] > 0.7
    long = serve(**options, table=requests_of(np.zeros(40, np.int64), np.full(40, 10_000), np.full(40, 500)))
    assert parts(long)["kv"] > 0.2


def test_tensor_parallelism_over_a_slow_network_is_the_network():
    arrival = (np.arange(4) * 10**13).astype(np.int64)
    table = requests_of(arrival, np.full(4, 4000), np.full(4, 1))
    result = serve(
        model="llama3-8b", cluster="switch:hosts=2,bandwidth=1Gbps,latency=1us", gpu="h100", tp=2, requests="-", table=table
    )
    assert found(result).by == "network"
    assert parts(result)["network"] > 0.5


def test_the_roofline_tells_large_products_from_small_ones():
    h100 = gpu("h100")
    assert compute_bound(gemm(4096, 4096, 4096, "bf16"), h100)
    assert not compute_bound(gemm(8, 4096, 4096, "bf16"), h100)
