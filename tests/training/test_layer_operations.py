"""Operations of layers: their FLOPs and messages are those of the closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsim.models.spec import Mla, Model, Moe
from distsim.workload.training.layers import layer as layers
from distsim.workload.training.layers.shard import Shard
from distsim.workload.training.plan import plan
from distsim.workload.training.stack import Stack

DENSE = Model(name="dense", layers=4, hidden=1024, heads=16, kv_heads=4, head_dim=64, ffn_hidden=2816, vocab=32000, seq=2048)
SPARSE = Model(
    name="sparse",
    layers=4,
    hidden=1024,
    heads=16,
    kv_heads=16,
    head_dim=64,
    ffn_hidden=2816,
    vocab=32000,
    seq=2048,
    mla=Mla(q_lora=256, kv_lora=128, nope=64, rope=32, v=64),
    moe=Moe(experts=32, topk=4, ffn_hidden=512, shared_ffn_hidden=1024, dense_layers=1),
)


def software(**options: object) -> Stack:
    given = {
        "name": "s",
        "about": "",
        "gemm": {"*": 1.0},
        "attention": "flash2",
        "fusion": "fused",
        "launch": 0.0,
        "sources": {},
    }
    return Stack(**{**given, **options})


def flops(operations, *, recomputed: bool = False) -> float:
    return sum(
        o.kernel.flops
        for o in operations
        if o.kernel is not None and (o.part == "recompute") == recomputed and o.kernel.kind != "memory"
    )


def moved(operations, group: str) -> int:
    return sum(o.bytes for o in operations if o.group == group)


def of(model, direction="forward", layer=2, stack=None, **options):
    made = Shard(model, plan(seq=2048, **options), stack or software())
    return (layers.forward if direction == "forward" else layers.backward)(made, layer)


@settings(max_examples=40, deadline=None)
@given(tp=st.sampled_from([1, 2, 4]), mb=st.sampled_from([1, 2]), sp=st.booleans(), model=st.sampled_from([DENSE, SPARSE]))
def test_forward_flops_are_two_per_active_weight_and_attention(tp, mb, sp, model):
    done = tp * flops(of(model, tp=tp, micro_batch=mb, sequence_parallel=sp, global_batch=mb))
    tokens = mb * 2048
    weights = model.attention_parameters()
    if model.moe is None:
        weights += model.mlp_parameters(model.ffn_hidden)
    else:
        weights += model.moe.topk * model.mlp_parameters(model.moe.ffn_hidden) + model.mlp_parameters(1024) + 1024 * 32
    width = 64 + 64 if model.mla is None else 96 + 64
    attention = 2.0 * mb * 16 * width * (2048 * 2049 / 2)
    expected = 2.0 * tokens * weights + attention
    extra = (
        2.0 * tokens * 1024 * (256 + 160) * (tp - 1) if model.mla and not (sp and tp > 1) else 0.0
    )  # down-projections, not split
    assert done == pytest.approx(expected + extra, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(tp=st.sampled_from([1, 2, 4]), model=st.sampled_from([DENSE, SPARSE]))
def test_backward_is_twice_the_matrix_products_and_recompute_is_the_forward_again(tp, model):
    forward, backward = of(model, tp=tp), of(model, "backward", tp=tp)
    matrices = sum(o.kernel.flops for o in forward if o.kernel and "gemm" in o.kernel.kind)
    assert sum(o.kernel.flops for o in backward if o.kernel and "gemm" in o.kernel.kind) == pytest.approx(2 * matrices)
    full = of(model, "backward", tp=tp, recompute="full")
    assert flops(full, recomputed=True) == pytest.approx(flops(forward))
    assert flops(full) == pytest.approx(flops(backward))


def test_tensor_parallel_messages_are_those_of_megatron():
    # 2 all-reduces of s b h each way (Shoeybi et al. 2019); sequence parallelism: the same volume as gathers and scatters,
    # and one gathering more in the backward pass (Korthikanti et al. 2022, section 4.2.2)
    hidden = 2048 * 1024 * 2
    for direction in ("forward", "backward"):
        plain = [o for o in of(DENSE, direction, tp=4) if o.group == "tp"]
        assert [o.operation for o in plain] == ["all_reduce"] * 2
        assert {o.bytes for o in plain} == {hidden}
    split = [o for o in of(DENSE, tp=4, sequence_parallel=True) if o.group == "tp"]
    assert [(o.operation, o.bytes) for o in split] == [("all_gather", hidden // 4), ("reduce_scatter", hidden)] * 2
    back = [o for o in of(DENSE, "backward", tp=4, sequence_parallel=True) if o.group == "tp"]
    assert sum(o.operation == "all_gather" for o in back) == 4
    assert sum(o.operation == "reduce_scatter" for o in back) == 2


def test_asynchronous_tensor_parallelism_moves_the_same_bytes_beside_the_products():
    plain = of(DENSE, tp=4, sequence_parallel=True)
    pieces = of(DENSE, tp=4, sequence_parallel=True, tp_overlap=True)
    assert moved(plain, "tp") == moved(pieces, "tp")
    assert len(pieces) > len(plain)
    gathered = next(i for i, o in enumerate(pieces) if o.name.endswith("rest"))
    product = next(o for o in pieces if o.name == "qkv")
    assert gathered not in product.after


def test_experts_exchange_every_copy_of_every_token():
    operations = of(SPARSE, ep=8, dp=8, global_batch=8)
    exchanged = [o for o in operations if o.group == "ep"]
    assert [o.operation for o in exchanged] == ["all_to_all"] * 2
    assert {o.bytes for o in exchanged} == {2048 * 4 * 1024 * 2}
    grouped = [o.kernel.shape for o in operations if o.kernel and o.kernel.kind == "grouped_gemm"]
    assert grouped == [(4, 2048 * 4 // 4, 1024, 1024), (4, 2048 * 4 // 4, 1024, 512)]
    fuller = [
        o.kernel.shape
        for o in of(SPARSE, ep=8, dp=8, global_batch=8, ep_imbalance=1.5)
        if o.kernel and o.kernel.kind == "grouped_gemm"
    ]
    assert fuller[0][1] == grouped[0][1] * 1.5


def test_ring_attention_passes_keys_and_values_behind_attention():
    ring = of(DENSE, cp=4)
    sends = [i for i, o in enumerate(ring) if o.group == "cp"]
    assert len(sends) == 3
    assert {ring[i].bytes for i in sends} == {4 * 128 * 512 * 2}
    whole = flops(of(DENSE))
    assert 4 * flops(ring) == pytest.approx(whole, rel=0.01)
    gathered = of(DENSE, cp=4, cp_mode="all_gather")
    assert [o.operation for o in gathered if o.group == "cp"] == ["all_gather"]
    assert 4 * flops(gathered) == pytest.approx(whole, rel=0.01)


def test_scores_are_computed_again_where_they_were_not_kept():
    unfused = software(attention="unfused")
    kept = of(DENSE, "backward", stack=unfused)
    again = of(DENSE, "backward", stack=unfused, recompute="selective")
    assert flops(kept, recomputed=True) == 0
    assert flops(again, recomputed=True) == pytest.approx(4.0 * 2048 * 2048 * 1024)


def test_every_operation_waits_only_for_earlier_ones():
    for model in (DENSE, SPARSE):
        for options in (
            {"tp": 4, "sequence_parallel": True, "tp_overlap": True},
            {"cp": 2},
            {"ep": 2, "dp": 2, "global_batch": 2},
        ):
            if "ep" in options and model is DENSE:
                continue
            for direction in ("forward", "backward"):
                for place, operation in enumerate(of(model, direction, **options)):
                    assert all(0 <= one < place for one in operation.after)
                    assert (operation.kernel is None) == bool(operation.group)
