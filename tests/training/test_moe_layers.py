"""Sparse layers: dispatch over hosts, kernels per expert, eager biases; multi-token prediction; rates by GPU and data type."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.cost.kernel import Answer
from distsim.hardware.gpu import gpu
from distsim.models.spec import Model, Moe
from distsim.topology.spec import build as topology
from distsim.workload.training.costs import Costs
from distsim.workload.training.layers import layer as layers
from distsim.workload.training.layers.shard import Shard
from distsim.workload.training.plan import Plan
from distsim.workload.training.stack import Stack
from distsim.workload.training.weights import weights

MOE = Moe(experts=32, topk=4, ffn_hidden=512)
SHAPE = dict(name="moe", layers=4, hidden=1024, heads=16, kv_heads=4, head_dim=64, ffn_hidden=2816, vocab=32000, moe=MOE)
MODEL = Model.model_validate(SHAPE)


def software(**options: object) -> Stack:
    given = {"name": "s", "about": "", "gemm": {"*": 1.0}, "attention": "flash2", "fusion": "fused", "launch": 0.0}
    return Stack.model_validate({**given, "sources": {}, **options})


def plan(**options: object) -> Plan:
    return Plan.model_validate({"global_batch": 64, "seq": 2048, **options})


def costs(model=MODEL, cluster="dgx_h100", stack=None, **options) -> Costs:
    made = plan(**options)
    device = gpu("b200" if "b200" in cluster else "h100")
    wires = topology(cluster, made.world)
    return Costs(model, made, stack or software(), device, wires, lambda kernel, on: Answer(1.0, "", 0.0))


def operations(stack, direction="forward", model=MODEL, domains=1, **options):
    shard = Shard(model, plan(**options), stack, domains)
    return (layers.forward if direction == "forward" else layers.backward)(shard, 2)


def exchanged(found) -> int:
    return sum(o.bytes for o in found if o.operation == "all_to_all")


def test_an_expert_group_knows_how_many_hosts_it_is_spread_over():
    assert costs(dp=8, ep=8).shard.ep_domains == 1
    assert costs(dp=32, ep=32).shard.ep_domains == 4
    assert costs(cluster="gb200_nvl72", dp=32, ep=32).shard.ep_domains == 1


@settings(max_examples=30, deadline=None)
@given(domains=st.integers(1, 16), topk=st.integers(1, 8))
def test_once_per_node_sends_what_distinct_nodes_need(domains, topk):
    model = Model.model_validate({**SHAPE, "moe": Moe(experts=32, topk=topk, ffn_hidden=512)})
    plain = exchanged(operations(software(), model=model, domains=domains, dp=32, ep=32))
    once = exchanged(operations(software(dispatch="per_node"), model=model, domains=domains, dp=32, ep=32))
    if domains == 1:
        assert once == plain
    else:
        nodes = domains * (1 - (1 - 1 / domains) ** topk)  # expected distinct nodes of topk even draws
        assert once / plain == pytest.approx(nodes / topk, rel=1e-6)
        assert once <= plain * (1 + 1e-9)


def test_overlap_across_hosts_only():
    stack = software(ep_overlap="across")
    assert not costs(stack=stack, dp=8, ep=8).shard.ep_overlap
    assert costs(stack=stack, dp=32, ep=32).shard.ep_overlap
    assert not costs(stack=stack, dp=32, ep=32, ep_overlap=False).shard.ep_overlap


def launches(found) -> int:
    return sum(o.launches for o in found if o.kind == "experts")


def test_one_kernel_per_expert_and_three_with_scales():
    assert launches(operations(software(), dp=8, ep=8)) == 2
    assert launches(operations(software(grouped="per_expert"), dp=8, ep=8)) == 2 * 4
    assert launches(operations(software(grouped="per_expert"), "backward", dp=8, ep=8, precision="mxfp8")) == 4 * 4 * 3


def test_eager_biases_of_experts_cost_passes_only_where_there_are_biases():
    biased = Model.model_validate({**SHAPE, "bias": True})

    def traffic(model, stack, direction):
        return sum(o.kernel.bytes for o in operations(stack, direction, model, dp=8, ep=8) if o.kind == "memory")

    for direction, each in (("forward", 28), ("backward", 38)):
        more = traffic(biased, software(expert_bias="eager"), direction) - traffic(biased, software(), direction)
        assert more == pytest.approx(each * 2048 * 4 * 1024)  # every copy of every token
        assert traffic(MODEL, software(expert_bias="eager"), direction) == traffic(MODEL, software(), direction)


def test_the_host_waits_for_counts_of_tokens_unless_there_is_a_capacity():
    stack = software(moe_overhead=100.0, layer_overhead=1.0)
    made = costs(stack=stack, dp=8, ep=8)
    unit = made.units[0][1]
    assert made.time(unit, "forward").host == 101_000_000_000_000
    fixed = costs(stack=stack, dp=8, ep=8, capacity=1.0)
    assert fixed.time(fixed.units[0][1], "forward").host == 1_000_000_000_000
    assert costs(stack=stack, dp=8, ep=8, cuda_graphs=True).time(unit, "forward").host == 0


def test_multi_token_prediction_is_a_layer_a_projection_and_a_second_head():
    plain, model = costs(dp=8, ep=8), Model.model_validate({**SHAPE, "mtp": 1})
    more = costs(model, dp=8, ep=8)
    assert [unit.name for unit in more.units[-1][-3:]] == ["layer", "prediction", "head"]
    assert len(more.units[-1]) == len(plain.units[-1]) + 2
    tokens, h = 2048, 1024
    prediction, head = more.units[-1][-2], more.units[-1][-1]

    def products(found):
        return sum(o.kernel.flops for o in found if o.kind == "gemm")

    assert products(prediction.forward) == products(head.forward) + 2.0 * tokens * h * 2 * h
    assert products(prediction.backward) == 2 * products(prediction.forward)
    added = weights(model, more.plan)[-1], weights(MODEL, plain.plan)[-1]
    assert added[0].expert - added[1].expert == 32 // 8 * 3 * h * 512
    assert added[0].dense - added[1].dense == model.layer_parameters(4, experts=0) + 2 * h * h
    staged = costs(model, dp=8, ep=8, pp=2, global_batch=64)
    assert [len(units) for units in staged.units] == [3, 5]


def test_rates_go_from_the_gpu_with_its_data_type_to_all():
    def took(rates, cluster="dgx_b200", direction="forward", **options):
        made = costs(cluster=cluster, stack=software(gemm=rates, **options), dp=8, ep=8)
        found = getattr(made.units[0][1], direction)
        return {o.name: made.kernel_ps(o) / 1e12 for o in found if o.kernel and "gemm" in o.kernel.kind}

    assert took({"*": 0.5})["qkv"] == pytest.approx(2.0)
    assert took({"*": 0.5, "blackwell": 0.8})["qkv"] == pytest.approx(1.25)
    assert took({"blackwell": 0.8, "blackwell bf16": 0.4})["qkv"] == pytest.approx(2.5)
    assert took({"blackwell bf16": 0.4, "b200_sxm": 0.8})["qkv"] == pytest.approx(1.25)
    assert took({"b200_sxm bf16": 0.5, "b200_sxm": 0.8})["qkv"] == pytest.approx(2.0)
    assert took({"hopper": 0.5})["qkv"] == pytest.approx(1.0)
    both = took({"*": 0.5}, experts={"*": 0.25})
    assert both["qkv"] == pytest.approx(2.0)
    assert both["expert up"] == pytest.approx(4.0)
    slow = took({"*": 1.0}, direction="backward", wgrad_rate=0.5)
    assert slow["qkv wgrad"] == pytest.approx(2.0)
    assert slow["qkv dgrad"] == pytest.approx(1.0)
