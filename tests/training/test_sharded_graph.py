"""Sharded weights as frameworks run them: what is gathered and reduced, by whom, how often, and what waits for it."""

from __future__ import annotations

import pytest

from distsim.cost.kernel import Answer
from distsim.hardware.gpu import gpu
from distsim.models.spec import Model, Moe
from distsim.topology.spec import build as build_topology
from distsim.trace.graph import CollectiveType, NodeType
from distsim.workload.training.communicators import members
from distsim.workload.training.costs import Costs
from distsim.workload.training.graph import build
from distsim.workload.training.layers import layer
from distsim.workload.training.layers.shard import Shard
from distsim.workload.training.plan import plan
from distsim.workload.training.stack import Stack
from distsim.workload.training.uncontended import step_ps

MODEL = Model(name="m", layers=4, hidden=2048, heads=16, kv_heads=8, head_dim=128, ffn_hidden=8192, vocab=32000, seq=2048)
SPARSE = MODEL.model_copy(update={"moe": Moe(experts=128, topk=8, ffn_hidden=1024)})


def answer(kernel, device) -> Answer:
    return Answer(max(kernel.flops / (0.6 * device.peak["bf16"]), kernel.bytes / device.memory_bandwidth), "test", 0.1)


def stack(**options) -> Stack:
    usual = {"overlap_grad_reduce": True, "overlap_param_gather": True, "master": "weights"}
    return Stack(
        **{
            "name": "s",
            "about": "",
            "gemm": {"*": 1.0},
            "attention": "flash2",
            "fusion": "fused",
            "launch": 0.0,
            "sources": {},
            **usual,
            **options,
        }
    )


def costs_of(options, model=MODEL, device="h100_sxm", **software) -> Costs:
    made = plan(**{"dp": 16, "zero": 3, "global_batch": 32, "seq": 2048, **options})
    return Costs(model, made, stack(**software), gpu(device), build_topology("dgx_h100", made.world), answer)


def collectives(costs: Costs) -> list[tuple[str, str, int]]:
    """(kind, communicator, bytes) of the first rank's collectives in the order of issue."""
    graph = build(costs)
    program = graph.programs[0]
    return [
        (
            CollectiveType(int(program.collective[i])).name.lower(),
            graph.groups[int(program.group[i])].name,
            int(program.bytes[i]),
        )
        for i in range(len(program.type))
        if program.type[i] == NodeType.COMM_COLL
    ]


def parameters(costs: Costs) -> int:
    return sum(unit.dense for units in costs.units for unit in units)


@pytest.mark.parametrize("group", [2, 4, 8])
def test_shard_and_replica_groups_partition_the_data_parallel_one(group):
    made = plan(tp=2, dp=8, cp=2, zero=3, shard_group=group, global_batch=8)
    everyone = members(made, "dp", 3)
    for name, size in (("shard", group), ("replica", 16 // group)):
        found = {members(made, name, rank) for rank in everyone}
        assert {len(one) for one in found} == {size}
        assert sorted(rank for one in found for rank in one) == sorted(everyone)
        assert all(rank in members(made, name, rank) for rank in everyone)
    assert len(set(members(made, "shard", 3)) & set(members(made, "replica", 3))) == 1


def test_copies_of_a_shard_group_average_their_parts():
    """HSDP: weights are gathered and gradients scattered within a group, and each part is reduced over the groups."""
    costs = costs_of({"shard_group": 4, "global_batch": 16})
    found = collectives(costs)
    weights = parameters(costs)
    moved = {key: sum(size for *kind, size in found if tuple(kind) == key) for key in {tuple(kind) for *kind, _ in found}}
    assert moved["reduce_scatter", "shard"] == 4 * weights
    assert moved["all_reduce", "replica"] == pytest.approx(4 * weights / 4, rel=1e-6)
    assert not any(name == "dp" for _, name in moved)
    layers = sum(unit.dense for units in costs.units for unit in units if unit.name == "layer")
    assert moved["all_gather", "shard"] == pytest.approx(2 * (weights + layers) / 4, rel=1e-6)


def test_one_group_of_all_ranks_is_plain_fsdp():
    assert step_ps(build(hsdp := costs_of({"shard_group": 16})), hsdp) == step_ps(build(fsdp := costs_of({})), fsdp)


def test_weights_that_are_kept_are_gathered_once_per_micro_batch():
    """FULL_SHARD gathers layers twice, SHARD_GRAD_OP (stage 2) once; both scatter gradients after every micro-batch."""

    def count(found, kind):
        return sum(one == kind for one, *_ in found)

    full, kept = collectives(costs_of({})), collectives(costs_of({"zero": 2}))
    assert count(full, "all_gather") == 2 * (MODEL.layers * 2 + 2)
    assert count(kept, "all_gather") == 2 * (MODEL.layers + 2)
    assert count(full, "reduce_scatter") == count(kept, "reduce_scatter") == 2 * (MODEL.layers + 2)


def test_late_prefetch_gathers_behind_the_gradients_before():
    early = [kind for kind, *_ in collectives(costs_of({"global_batch": 16}))]
    late = [kind for kind, *_ in collectives(costs_of({"global_batch": 16}, late_prefetch=True))]
    gather, scatter = "all_gather", "reduce_scatter"
    assert early[6:10] == [gather, scatter, gather, scatter]  # the last layer beside the head, the next beside it
    assert late[6:10] == [scatter, gather, scatter, gather]
    assert sorted(early) == sorted(late)


def test_what_does_not_overlap_is_paid_in_full():
    """Without any overlap a step is its computation and its communication, one after the other."""
    costs = costs_of({"global_batch": 16, "clip": False}, overlap_grad_reduce=False, overlap_param_gather=False)
    graph = build(costs)
    computing = int(graph.programs[0].duration_ps[graph.programs[0].type == NodeType.COMP].sum())
    moving = sum(costs.collectives.time(kind, size, name) for kind, name, size in collectives(costs))
    assert step_ps(graph, costs) == computing + moving
    overlapped = costs_of({"global_batch": 16, "clip": False})
    assert computing < step_ps(build(overlapped), overlapped) < computing + moving


def test_slower_collectives_count_as_more_bytes():
    usual, slow = collectives(costs_of({})), collectives(costs_of({}, shard_rate=0.25))
    for (kind, name, size), (_, _, more) in zip(usual, slow, strict=True):
        assert more == (size if name == "world" else 4 * size), kind


@pytest.mark.parametrize(("pp", "vpp"), [(2, 1), (2, 2)])
def test_pipelines_with_fsdp2_gather_and_scatter_once(pp, vpp):
    options = {"dp": 8, "pp": pp, "vpp": vpp, "global_batch": 64}
    found = collectives(costs_of(options, sharding="fsdp2"))
    gathers = [one for one in found if one[0] == "all_gather"]
    scatters = [one for one in found if one[0] == "reduce_scatter"]
    units = MODEL.layers // pp + 1  # with the embedding, on the first stage
    assert len(gathers) == len(scatters) == units
    assert len(collectives(costs_of(options))) > 2 * units


def test_deferred_gradients_are_scattered_behind_the_last_micro_batch():
    every = collectives(costs_of({}))
    once = collectives(costs_of({}, defer_reduce=True))
    assert sum(kind == "reduce_scatter" for kind, *_ in every) == 2 * sum(kind == "reduce_scatter" for kind, *_ in once)


@pytest.mark.parametrize(
    ("sharding", "grad_dtype", "each"),
    [("plain", "fp32", 0), ("fsdp1", "fp32", 18), ("fsdp1", "bf16", 8), ("fsdp2", "fp32", 6), ("fsdp2", "bf16", 4)],
)
def test_copies_of_gradients_move_so_many_bytes(sharding, grad_dtype, each):
    costs = costs_of({}, sharding=sharding, grad_dtype=grad_dtype)
    bandwidth = gpu("h100_sxm").memory_bandwidth
    assert costs.scattered_ps(10**9) == pytest.approx(each * 1e9 / bandwidth * 1e12, abs=1)


def test_selective_recomputation_of_operations_is_every_second_product():
    """Of a Llama layer: keys, the output projection, one of the two up projections."""
    h, f, kv, tokens = 2048, 8192, 8 * 128, 2048
    made = plan(dp=8, zero=3, global_batch=8, seq=tokens, recompute="selective")
    operations = layer.backward(Shard(MODEL, made, stack(selective="operations")), 0)
    again = sum(one.kernel.flops for one in operations if one.kernel and one.part == "recompute")
    assert again == 2 * tokens * h * (kv + h + f)
    # two products: every second is the down projection
    plain = MODEL.model_copy(update={"gated": False})
    operations = layer.backward(Shard(plain, made, stack(selective="operations")), 0)
    again = sum(one.kernel.flops for one in operations if one.kernel and one.part == "recompute")
    assert again == 2 * tokens * h * (kv + h + f)
    assert not any(one.part == "recompute" for one in layer.backward(Shard(MODEL, made, stack()), 0))


@pytest.mark.parametrize(("ep", "domains", "met"), [(8, 1, 1), (16, 1, 1), (64, 1, 4), (64, 8, 1), (64, 32, 2)])
def test_neighbouring_experts_are_met_on_few_ranks(ep, domains, met):
    """8 of 128 experts in a row lie on ep / 16 ranks, and a token goes to each of them once, or once to each of their nodes."""
    made = plan(dp=64, ep=ep, global_batch=64, seq=2048)
    sent = {}
    for gate in ("even", "neighbours"):
        operations = layer.forward(Shard(SPARSE, made, stack(gate=gate), domains), 0)
        sent[gate] = sum(one.bytes for one in operations if one.operation == "all_to_all")
    assert sent["neighbours"] / sent["even"] == pytest.approx(met / 8)


def test_casts_are_left_out_where_they_are_fused():
    made = plan(dp=8, global_batch=8, seq=2048, precision="fp8")
    names = [one.name for one in layer.forward(Shard(MODEL, made, stack()), 0)]
    fused = [one.name for one in layer.forward(Shard(MODEL, made, stack(fused_casts=True)), 0)]
    assert "quantise" in names
    assert fused == [name for name in names if name != "quantise"]


def test_attention_rates_go_by_generation_and_context_parallelism():
    def attention_ps(device="h100_sxm", cp=1, **software):
        costs = costs_of({"cp": cp}, device=device, **software)
        operations = costs.units[0][1].forward
        return sum(costs.kernel_ps(one) for one in operations if one.kind == "attention" and one.kernel.kind == "attention")

    assert attention_ps(attention_rate={"hopper": 0.5}) == pytest.approx(2 * attention_ps(), rel=1e-7)
    assert attention_ps(attention_rate={"ampere": 0.5}) == attention_ps()
    assert attention_ps(device="a100_sxm", attention_rate={"ampere": 0.5, "*": 2.0}) == pytest.approx(
        2 * attention_ps(device="a100_sxm"), rel=1e-7
    )
    assert attention_ps(context_rate=0.5) == attention_ps()
    assert attention_ps(cp=2, context_rate=0.5) == pytest.approx(2 * attention_ps(cp=2), rel=1e-7)


def test_lower_clocks_slow_matrix_products_only():
    usual, limited = costs_of({}), costs_of({})
    limited = Costs(MODEL, limited.plan, limited.stack, limited.gpu.model_copy(update={"clock": 0.5}), limited.topology, answer)
    for fast, slow in zip(usual.units[0][1].forward, limited.units[0][1].forward, strict=True):
        if fast.kernel is not None:
            factor = 1 if fast.kind == "memory" else 2
            assert limited.kernel_ps(slow) == pytest.approx(factor * usual.kernel_ps(fast), rel=1e-7), fast.name


def test_zero3_of_2021_falls_as_published():
    """SC21 (Narayanan et al., 2021), table 2: 175B by ZeRO-3 on 384, 768 and 1,536 A100: 144, 88 and 44 TFLOP/s per GPU, with a
    global batch of 1,536 sequences and full recomputation counted."""
    from distsim.models.catalog import model
    from distsim.training import TrainSpec, job

    gpt = model("gpt3-175b")
    flops = 96 * 1536 * 2048 * gpt.layers * gpt.hidden**2
    flops *= 1 + 2048 / (6 * gpt.hidden) + gpt.vocab / (16 * gpt.layers * gpt.hidden)
    for gpus, published in ((384, 144), (768, 88), (1536, 44)):
        row = {"dp": gpus, "zero": 3, "micro_batch": 1536 // gpus, "global_batch": 1536, "seq": 2048, "precision": "fp16"}
        point = {"model": "gpt3-175b", "cluster": f"dgx_a100:gpus={gpus}", "stack": "zero3_2021", "recompute": "full"}
        work = job(TrainSpec.of({**point, **row}))
        seconds = step_ps(build(work.costs), work.costs) / 1e12
        assert flops / seconds / gpus / 1e12 == pytest.approx(published, rel=0.12)
