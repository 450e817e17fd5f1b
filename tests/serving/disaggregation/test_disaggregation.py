"""Requests that are computed here and generated there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.errors import ConfigError, DistsimError, UnknownNameError
from distsim.serve import ServeSpec, ServiceRun, pools_of, serve
from distsim.serving.deployment import Deployment
from distsim.serving.iteration import Shape
from distsim.serving.requests.table import requests_of
from distsim.serving.times.model import ModelTimes
from distsim.topology.spec import build

#: two leaves of four hosts, 100 Gb/s
TREE = "fat_tree:tiers=2,k=2,pods=2,hosts_per_leaf=4,bandwidth=100Gbps,latency=1us"
BASE = {"model": "llama3-8b", "gpu": "h100", "cluster": TREE, "requests": "static", "disaggregate": "prefill=1,decode=1"}
TOKEN = 32 * 8 * 128 * 2 * 2  #: bytes in cache
RATE = 12.5e9


def run(arrival, prompt, output, hashes=None, **point):
    columns = (np.array(column, np.int64) for column in (arrival, prompt, output))
    table = requests_of(*columns, hashes=hashes)
    made = ServiceRun(ServeSpec.of({**BASE, **point}), table)
    made.connect()
    made.start()
    made.clock.run()
    return made, made.result()


def test_one_request_in_closed_form():
    """Prompt, then its keys and values over two hops of 1 us at 12.5 GB/s, then a token per iteration."""
    made, result = run([0], [1000], [20])
    times = ModelTimes(Deployment.of(model="llama3-8b", gpu="h100"), build(TREE, None))
    first = times.times(Shape(((1000, 0),), 0, 0, 0, 1))[0]
    sent = round(1000 * TOKEN / RATE * 1e12) + 2 * 10**6  # both replicas are on one leaf: two hops
    decode = sum(times.times(Shape((), 1, 1000 + step, 1000 + step, 1))[0] for step in range(19))
    requests = result.requests
    assert int(requests.ttft[0]) == first
    assert int(requests.completed[0]) == first + sent + decode
    assert made.cluster.disaggregation.waits == {0: sent}
    assert result.counts["kv_bytes_sent"] == 1000 * TOKEN
    assert result.counts["handed_over"] == 1
    assert int(requests.replica[0]) == 1
    assert [row.iterations for row in result.replicas] == [1, 19]


@pytest.mark.parametrize("parts", [1, 2, 8, 32])
def test_layers_that_were_sent_meanwhile_are_not_waited_for(parts):
    """Exposed is the last part, or what the cable is behind."""
    whole, _ = run([0], [1000], [5])
    made, result = run([0], [1000], [5], kv_transfer=f"layerwise:parts={parts}")
    first = int(result.requests.first[0])
    sent = round(1000 * TOKEN / RATE * 1e12)
    (wait,) = made.cluster.disaggregation.waits.values()
    least = max(sent / parts, sent - first * (parts - 1) / parts)
    assert least - 1 <= wait - 2 * 10**6 <= least + sent / parts + parts
    assert wait <= whole.cluster.disaggregation.waits[0]
    assert result.counts["kv_bytes_sent"] == 1000 * TOKEN


def test_chunks_are_sent_as_they_are_computed():
    point = {"scheduler": "vllm_v1:max_num_batched_tokens=500", "kv_transfer": "layerwise:parts=4"}
    made, result = run([0], [2100], [3], **point)
    (wait,) = made.cluster.disaggregation.waits.values()
    assert wait < 0.2 * 2100 * TOKEN / RATE * 1e12
    assert result.counts["kv_bytes_sent"] == 2100 * TOKEN
    piped, other = run([0], [2100], [3], **point, disaggregate="prefill=1,decode=1,prefill_pp=2")
    assert other.counts["kv_bytes_sent"] == 2100 * TOKEN  # a pipeline sends chunk by chunk
    assert 0 < piped.cluster.disaggregation.waits[0] < 2100 * TOKEN / 2 / RATE * 1e12


def test_a_request_of_one_token_is_not_handed_over():
    _made, result = run([0, 0], [100, 100], [1, 2])
    assert result.requests.replica.tolist() == [0, 1]
    assert result.counts["handed_over"] == 1


SOME = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 900), st.integers(1, 60)), min_size=1, max_size=14)


@settings(max_examples=40, deadline=None)
@given(
    rows=SOME, blocks=st.integers(70, 200), mode=st.sampled_from(["whole", "layerwise:parts=3"]),
    scheduler=st.sampled_from([
        "vllm_v1", "vllm_v1:max_num_batched_tokens=300", "vllm_v0", "sarathi", "orca:max_len=1024", "lightllm",
        "static:max_num_seqs=4,max_len=1024",
    ]),
    layout=st.sampled_from(["prefill=1,decode=1", "prefill=2,decode=1,decode_tp=2", "prefill=1,decode=2,prefill_tp=2"]),
    shared=st.booleans(),
)  # fmt: skip
def test_law_5_stepped_is_fast_forwarded_and_blocks_are_conserved(rows, blocks, mode, scheduler, layout, shared):
    rows.sort()
    arrival = [row[0] * 10**9 for row in rows]
    point = {"disaggregate": layout, "kv_blocks": blocks, "kv_transfer": mode, "scheduler": scheduler}
    tables = [[row[column] for row in rows] for column in (1, 2)]
    hashes = {row: list(range(prompt // 16)) for row, prompt in enumerate(tables[0])} if shared else None
    ends = []
    for stepped in (False, True):
        made, result = run(arrival, *tables, hashes, **point, stepped=stepped)
        columns = result.requests
        assert (columns.done | (columns.status == 1)).all()  # finished, or dropped with a reason
        assert all(columns.reason[row] for row in np.flatnonzero(columns.status == 1))
        for replica in made.replicas:
            assert replica.scheduler.kv.used == 0
            assert replica.scheduler.idle
            assert not replica.scheduler.fetching
            assert not replica.scheduler.handed
        assert not made.cluster.disaggregation.unfinished
        handed = columns.done & (columns.output > 1)
        assert result.counts["handed_over"] == handed.sum() == len(made.cluster.disaggregation.waits)
        if not columns.restarts.any():
            assert result.counts["kv_bytes_sent"] == int(columns.prompt[handed].sum()) * TOKEN
        assert (columns.first[columns.done] <= columns.completed[columns.done]).all()
        ends.append([column.tolist() for column in (columns.scheduled, columns.first, columns.completed, columns.restarts)])
    assert ends[0] == ends[1]


def test_the_prefill_side_keeps_blocks_while_the_decode_side_is_full():
    """Two requests fit the decode replica's cache at once; the third waits with its blocks on the prefill side."""
    point = {"disaggregate": "prefill=1,decode=1,decode_kv_blocks=16,prefill_kv_blocks=64"}
    seen = []
    table = requests_of(np.zeros(3, np.int64), np.full(3, 96), np.full(3, 30))
    made = ServiceRun(ServeSpec.of({**BASE, **point}), table)
    made.connect()
    made.start()
    source, target = made.replicas
    made.clock.run(watch=lambda now: seen.append((source.used, target.used)), every=1)
    result = made.result()
    assert result.requests.done.all()
    assert max(used for _, used in seen) <= 16
    first, second, third = np.sort(result.requests.completed)
    # the third prompt's six blocks stay where they are until the others have ended
    assert first == second < third
    assert {(6, 12), (6, 14), (6, 6)} <= set(seen)
    waits = sorted(made.cluster.disaggregation.waits.values())
    assert waits[2] > 10 * waits[0]


def test_an_oversubscribed_cable_slows_keys_and_values():
    def latency(**point):
        return run([0] * 4, [1500] * 4, [4] * 4, **point)[1].requests

    fan = "fat_tree:tiers=2,k=2,pods=2,hosts_per_leaf=4,bandwidth=100Gbps,uplink_bandwidth={}"
    layout = {"disaggregate": "prefill=4,decode=4"}  # leaf 0 computes, leaf 1 generates
    wide, narrow = (latency(cluster=fan.format(rate), **layout) for rate in ("400Gbps", "100Gbps"))
    assert np.array_equal(wide.first, narrow.first)
    extra = (narrow.completed - wide.completed) / 1e12
    assert extra == pytest.approx(3 * 1500 * TOKEN / RATE, rel=1e-3)  # four flows share what one had


def test_several_levels_carry_keys_and_values():
    levels = ("fluid", "cut_through", "analytic")
    alone = {level: run([0], [500], [3], network=level)[1].requests.completed[0] for level in levels}
    assert len(set(alone.values())) == 1
    assert run([0], [500], [3], network="ideal")[1].requests.completed[0] < alone["fluid"]


def test_what_the_decode_side_can_never_hold_is_dropped_and_counted():
    _, result = run([0, 0], [100, 40], [300, 4], disaggregate="prefill=1,decode=1,decode_kv_blocks=10")
    assert result.requests.reason == ("decode: longer than the KV cache", "")
    assert result.requests.done.tolist() == [False, True]


def test_lanes_on_both_sides():
    point = {
        "model": "qwen3-30b-a3b", "cluster": "dgx_h100:gpus=16", "kv_blocks": 60,
        "disaggregate": "prefill=1,decode=1,prefill_dp=2,prefill_ep=2,decode_dp=4,decode_ep=8,decode_tp=2",
    }  # fmt: skip
    results = [
        run([0] * 9, [300, 200, 500, 100, 640, 64, 65, 300, 20], [30] * 9, **point, stepped=stepped)[1] for stepped in (0, 1)
    ]
    one, other = (result.requests for result in results)
    assert one.done.all()
    assert np.array_equal(one.completed, other.completed)
    moved = int(one.prompt.sum()) * 48 * 4 * 128 * 2 * 2
    assert results[0].counts["kv_bytes_sent"] == moved


def test_routers_of_the_decode_side():
    _, turns = run([0] * 6, [100] * 6, [4] * 6, disaggregate="prefill=1,decode=3")
    assert turns.requests.replica.tolist() == [1, 2, 3, 1, 2, 3]
    _, least = run([0] * 6, [100] * 6, [4] * 6, disaggregate="prefill=1,decode=3", decode_router="least_outstanding")
    assert sorted(least.requests.replica.tolist()) == [1, 1, 2, 2, 3, 3]


def test_pools_by_shorthand_and_by_list_are_the_same():
    made = pools_of("prefill=2,decode=1,decode_tp=2,prefill_scheduler=sarathi")
    assert made[0] == {"role": "prefill", "name": "prefill", "replicas": "2", "scheduler": "sarathi"}
    short = ServeSpec.of({**BASE, "disaggregate": "prefill=2,decode=1,decode_tp=2,prefill_scheduler=sarathi"})
    listed = ServeSpec.of({**{key: value for key, value in BASE.items() if key != "disaggregate"}, "pools": made})
    assert short == listed


@pytest.mark.parametrize(("point", "error", "words"), [
    ({"disaggregate": "prefill=2"}, ConfigError, "no decode replicas"),
    ({"disaggregate": "prefill=1,decode=1,decode_tpp=2"}, UnknownNameError, "decode_tp"),
    ({"disaggregate": "prefill=1,decoder=1"}, UnknownNameError, "decode"),
    ({"disaggregate": "prefill=1,decode"}, ConfigError, "key=value"),
    ({"disaggregate": "prefill=0,decode=1"}, ConfigError, "at least one of each"),
    ({"disaggregate": "prefill=1,decode=x"}, ConfigError, "replicas"),
    ({"disaggregate": "prefill=1,decode=1", "pools": [{}]}, ConfigError, "beside pools"),
    ({"disaggregate": "prefill=1,decode=1,decode_kv_dtype=fp8"}, ConfigError, "hands over to"),
    ({"disaggregate": "prefill=6,decode=6"}, ConfigError, "12 GPUs"),
    ({"kv_transfer": "layerwis"}, UnknownNameError, "layerwise"),
    ({"kv_transfer": "layerwise:parts=0"}, ConfigError, "parts"),
    ({"decode_router": "round_robbin"}, UnknownNameError, "round_robin"),
    ({"cluster": TREE.replace("100Gbps", "0Gbps")}, ConfigError, "must be positive"),
    ({"network": "coflow"}, ConfigError, "coflow"),
])  # fmt: skip
def test_wrong_specifications_are_refused(point, error, words):
    with pytest.raises(error, match=words):
        serve(**{**BASE, "lengths": "fixed:prompt=10,output=3", "n": 1, **point})


def test_a_pool_of_one_role_alone_is_refused():
    base = {key: value for key, value in BASE.items() if key != "disaggregate"}
    with pytest.raises(DistsimError, match="at least one of each"):
        serve(**base, lengths="fixed:prompt=10,output=3", n=1, pools=[{"role": "decode", "replicas": 1}])
