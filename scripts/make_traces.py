"""Make the traces that distsim ships: ``python scripts/make_traces.py`` (from the repository's root; writes ``traces/``).

Sizes follow from the published architectures, none is typed in. Sources:

* Llama-3-8B: "The Llama 3 Herd of Models" (2024), table 3: 32 layers, hidden 4096, FFN 14336, 32 heads, 8 key/value heads,
  vocabulary 128,256 (hence 8.03 G parameters, embedding and output matrix not shared).
* Mixtral-8x7B: Jiang et al., "Mixtral of Experts" (2024), table 1: 32 layers, hidden 4096, FFN 14336, 32 heads, 8 key/value
  heads, vocabulary 32,000, 8 experts, top 2.
* GPT-2 medium: Radford et al. (2019), table 2: 24 layers, hidden 1024; vocabulary 50,257, context 1024.
* PyTorch DDP: gradients are reduced in buckets of 25 MiB, in the order in which backward finishes them.

Recorded durations follow one rule: the greater of the operations at half of an H100 SXM's 989 TFLOP/s (bf16, dense) and the
bytes at 80 % of its 3.35 TB/s. Matrix products count 2mnk; causal attention half of its square; backward twice forward.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEAK = 0.5 * 989e12
MEMORY = 0.8 * 3.35e12
BF16, FP32 = 2, 4
Node = dict[str, Any]


def compute(name: str, ops: float, size: float, **more: Any) -> Node:
    """A compute node with its duration by the rule above."""
    nanoseconds = max(1, round(1e9 * max(ops / PEAK, size / MEMORY)))
    return {
        "op": "compute",
        "name": name,
        "duration": f"{nanoseconds}ns",
        "num_ops": round(ops),
        "tensor_size": round(size),
        **more,
    }


def comm(op: str, name: str, size: float, **more: Any) -> Node:
    """A communication node."""
    return {"op": op, "name": name, "bytes": round(size), **more}


@dataclass(frozen=True)
class Model:
    """A decoder-only transformer. ``gated``: the FFN has a third matrix (SwiGLU)."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    vocabulary: int
    gated: bool = True

    @property
    def qkv_width(self) -> int:
        return self.hidden + 2 * self.kv_heads * (self.hidden // self.heads)

    @property
    def attention_parameters(self) -> int:
        return self.hidden * self.qkv_width + self.hidden * self.hidden

    @property
    def ffn_parameters(self) -> int:
        return (3 if self.gated else 2) * self.hidden * self.ffn

    def product(self, name: str, tokens: int, inner: int, outer: int, shards: int = 1, times: int = 1, **more: Any) -> Node:
        """tokens x inner times inner x outer, one of ``shards``; ``times`` 2 for backward (gradients of input and weight)."""
        weight, moved = inner * outer / shards, tokens * (inner + outer / shards)
        return compute(name, times * 2 * tokens * weight, times * BF16 * (weight + moved), **more)

    def attention(self, name: str, sequence: int, shards: int = 1, times: int = 1, batch: int = 1) -> Node:
        """Scores and their product with the values, causal, as a fused kernel moves it (no scores in memory)."""
        ops = 2 * 2 * batch * sequence * sequence * self.hidden / 2 / shards
        return compute(name, times * ops, times * BF16 * batch * sequence * (self.qkv_width + self.hidden) / shards)

    def norm(self, name: str, tokens: float, times: int = 1, **more: Any) -> Node:
        """RMS norm and residual: bound by memory."""
        return compute(name, times * 5 * tokens * self.hidden, times * 3 * BF16 * tokens * self.hidden, **more)


LLAMA3_8B = Model(32, 4096, 14336, 32, 8, 128256)
MIXTRAL = Model(32, 4096, 14336, 32, 8, 32000)
GPT2_MEDIUM = Model(24, 1024, 4096, 16, 16, 50257, gated=False)


def adam(name: str, parameters: float, **more: Any) -> Node:
    """Adam in fp32: reads and writes master weight and two moments, reads the gradient, writes the bf16 weight."""
    return compute(name, 12 * parameters, parameters * (6 * FP32 + FP32 + BF16), **more)


def llama_tp_dp(tp: int = 8, dp: int = 8, sequence: int = 8192) -> Node:
    """One step of Llama-3-8B: tensor and sequence parallel in the node, distributed optimizer across nodes."""
    m, s = LLAMA3_8B, sequence
    full, shard = BF16 * s * m.hidden, BF16 * s * m.hidden / tp
    layer = (m.attention_parameters + m.ffn_parameters) / tp + 2 * m.hidden
    table = m.vocabulary * m.hidden / tp

    def gather(name: str, **more: Any) -> Node:
        return comm("all_gather", name, shard, group="tp", stream="tp", **more)

    def scatter(name: str) -> Node:
        return comm("reduce_scatter", name, full, group="tp", stream="tp")

    forward = [
        m.norm("fwd{i}/norm1", s / tp),
        gather("fwd{i}/ag1"),
        m.product("fwd{i}/qkv", s, m.hidden, m.qkv_width, tp),
        m.attention("fwd{i}/attention", s, tp),
        m.product("fwd{i}/out", s, m.hidden, m.hidden, tp),
        scatter("fwd{i}/rs1"),
        m.norm("fwd{i}/norm2", s / tp),
        gather("fwd{i}/ag2"),
        m.product("fwd{i}/gate_up", s, m.hidden, 2 * m.ffn, tp),
        m.product("fwd{i}/down", s, m.ffn, m.hidden, tp),
        scatter("fwd{i}/rs2"),
    ]
    backward = [
        gather("bwd{i}/ag2", after=["bwd{i+1}/norm1?", "bwd_head"]),
        m.product("bwd{i}/down", s, m.ffn, m.hidden, tp, 2),
        m.product("bwd{i}/gate_up", s, m.hidden, 2 * m.ffn, tp, 2),
        scatter("bwd{i}/rs2"),
        m.norm("bwd{i}/norm2", s / tp, 2),
        gather("bwd{i}/ag1"),
        m.product("bwd{i}/out", s, m.hidden, m.hidden, tp, 2),
        m.attention("bwd{i}/attention", s, tp, 2),
        m.product("bwd{i}/qkv", s, m.hidden, m.qkv_width, tp, 2),
        scatter("bwd{i}/rs1"),
        m.norm("bwd{i}/norm1", s / tp, 2),
        comm(
            "reduce_scatter",
            "grad{i}",
            BF16 * layer,
            group="dp",
            stream="dp",
            after=["bwd{i}/norm1", "grad{i+1}?", "grad_head"],
        ),
    ]
    nodes: list[Node] = [
        compute("embedding", 0, BF16 * 2 * s * m.hidden / tp, after=[]),
        {"repeat": m.layers, "nodes": forward},
        m.norm("final_norm", s / tp),
        gather("head_ag"),
        m.product("head", s, m.hidden, m.vocabulary, tp),
        comm("all_reduce", "loss", 3 * FP32 * s, group="tp", stream="tp"),
        m.product("bwd_head_gemm", s, m.hidden, m.vocabulary, tp, 2),
        comm("reduce_scatter", "bwd_head", full, group="tp", stream="tp"),
        comm("reduce_scatter", "grad_head", BF16 * table, group="dp", stream="dp", after="bwd_head_gemm"),
        {"repeat": m.layers, "reverse": True, "nodes": backward},
        compute("bwd_embedding", 0, BF16 * 2 * s * m.hidden / tp, after="bwd0/norm1"),
        comm("reduce_scatter", "grad_embedding", BF16 * table, group="dp", stream="dp", after=["bwd_embedding", "grad0"]),
        comm("all_reduce", "grad_norm", FP32, stream="dp"),
        {
            "repeat": m.layers,
            "nodes": [
                adam("adam{i}", layer / dp, after=["grad_norm", "adam{i-1}?"]),
                comm(
                    "all_gather", "weights{i}", BF16 * layer / dp, group="dp", stream="dp", after=["adam{i}", "weights{i-1}?"]
                ),
            ],
        },
        adam("adam_tables", 2 * table / dp, after=f"adam{m.layers - 1}"),
        comm("all_gather", "weights_tables", BF16 * 2 * table / dp, group="dp", stream="dp"),
    ]
    return trace(
        "llama3_8b_tp8_dp8",
        f"Llama-3-8B, one step: {tp} x tensor parallel (sequence parallel), {dp} x data parallel with a "
        f"distributed optimizer; one sequence of {s} tokens a replica, bf16; "
        "gradients are reduced layer by layer under backward",
        tp * dp,
        {"tp": {"size": tp, "stride": 1}, "dp": {"size": dp, "stride": tp}},
        [program("rank", "all", nodes)],
    )


def pipeline(stages: int = 4, batches: int = 8, sequence: int = 4096) -> Node:
    """Llama-3-8B in stages of equal layers, 1F1B (Narayanan et al., "PipeDream", 2019; Megatron-LM's order)."""
    m, s = LLAMA3_8B, sequence
    layers = m.layers // stages
    ops = layers * (2 * s * (m.attention_parameters + m.ffn_parameters) + 2 * s * s * m.hidden)
    moved = layers * BF16 * ((m.attention_parameters + m.ffn_parameters) + 12 * s * m.hidden)
    table_ops, table_moved = 2 * s * m.hidden * m.vocabulary, BF16 * (m.hidden * m.vocabulary + s * m.vocabulary)
    size = BF16 * s * m.hidden
    programs = []
    for stage in range(stages):
        first, last = stage == 0, stage == stages - 1
        warm = min(stages - 1 - stage, batches)
        order = [("f", k) for k in range(warm)]
        for k in range(batches - warm):
            order += [("f", warm + k), ("b", k)]
        order += [("b", k) for k in range(batches - warm, batches)]
        nodes: list[Node] = []
        before: str | None = None
        for kind, k in order:
            after = [before] if before else []
            coming, going = (not first, not last) if kind == "f" else (not last, not first)
            back, ahead = ("-1", "+1") if kind == "f" else ("+1", "-1")
            tag = k if kind == "f" else batches + k
            if coming:
                nodes.append(comm("receive", f"recv_{kind}{k}", size, peer=back, tag=tag, stream=f"recv_{kind}", after=[]))
                after.append(f"recv_{kind}{k}")
            times = 1 if kind == "f" else 2
            more_ops, more_moved = (table_ops, table_moved) if last else (0, 0)
            nodes.append(compute(f"{kind}{k}", times * (ops + more_ops), times * (moved + more_moved), after=after))
            if going:
                nodes.append(
                    comm("send", f"send_{kind}{k}", size, peer=ahead, tag=tag, stream=f"send_{kind}", after=f"{kind}{k}")
                )
            before = f"{kind}{k}"
        tables = (first + last) * m.vocabulary * m.hidden
        nodes.append(adam("adam", layers * (m.attention_parameters + m.ffn_parameters + 2 * m.hidden) + tables, after=before))
        programs.append(program(f"stage{stage}", str(stage), nodes))
    return trace(
        "pipeline_send_recv",
        f"Llama-3-8B in {stages} pipeline stages, 1F1B over {batches} micro-batches of one sequence of {s} tokens, bf16",
        stages,
        {},
        programs,
    )


def mixture(ep: int = 8, dp: int = 2, sequence: int = 4096, experts: int = 8, top: int = 2) -> Node:
    """Mixtral-8x7B: one expert a rank, attention and batch data-parallel over all ranks."""
    m, s = MIXTRAL, sequence
    routed = BF16 * s * top * m.hidden
    dense = m.attention_parameters + m.hidden * experts + 2 * m.hidden
    expert = m.ffn_parameters * experts // ep

    def block(way: str, times: int, **more: Any) -> list[Node]:
        attention = [
            m.product(way + "{i}/qkv", s, m.hidden, m.qkv_width, 1, times),
            m.attention(way + "{i}/attention", s, 1, times),
            m.product(way + "{i}/out", s, m.hidden, m.hidden, 1, times),
            m.norm(way + "{i}/norm", s, times),
            m.product(way + "{i}/router", s, m.hidden, experts, 1, times),
        ]
        expert_part = [
            comm("all_to_all", way + "{i}/dispatch", routed, group="ep", stream="ep"),
            m.product(way + "{i}/gate_up", s * top, m.hidden, 2 * m.ffn, 1, times),
            m.product(way + "{i}/down", s * top, m.ffn, m.hidden, 1, times),
            comm("all_to_all", way + "{i}/combine", routed, group="ep", stream="ep"),
        ]
        nodes = attention + expert_part if way == "fwd" else expert_part + attention[::-1]
        return [{**nodes[0], **more}, *nodes[1:]]

    nodes: list[Node] = [
        compute("embedding", 0, 2 * BF16 * s * m.hidden, after=[]),
        {"repeat": m.layers, "nodes": block("fwd", 1)},
        m.product("head", s, m.hidden, m.vocabulary),
        m.product("bwd_head", s, m.hidden, m.vocabulary, 1, 2),
        {
            "repeat": m.layers,
            "reverse": True,
            "nodes": [
                *block("bwd", 2, after=["bwd{i+1}/qkv?", "bwd_head"]),
                comm(
                    "all_reduce",
                    "grad_expert{i}",
                    BF16 * expert,
                    group="edp",
                    stream="dp",
                    after=["bwd{i}/gate_up", "grad_dense{i+1}?"],
                ),
                comm("all_reduce", "grad_dense{i}", BF16 * dense, stream="dp", after=["bwd{i}/qkv", "grad_expert{i}"]),
            ],
        },
        comm("all_reduce", "grad_tables", BF16 * 2 * m.vocabulary * m.hidden, stream="dp", after=["bwd0/qkv", "grad_dense0"]),
        adam("adam", m.layers * (dense + expert) + 2 * m.vocabulary * m.hidden),
    ]
    return trace(
        "moe_all_to_all",
        f"Mixtral-8x7B, one step: {ep} x expert parallel, {dp} replicas of the experts, one sequence "
        f"of {s} tokens a rank, top {top} of {experts}, evenly routed, bf16",
        ep * dp,
        {"ep": {"size": ep, "stride": 1}, "edp": {"size": dp, "stride": ep}},
        [program("rank", "all", nodes)],
    )


def buckets(ranks: int = 16, batch: int = 8, bucket: int = 25 << 20) -> Node:
    """GPT-2 medium under PyTorch DDP: fp32 gradients in 25 MiB buckets, reduced while backward goes on."""
    m, s = GPT2_MEDIUM, 1024
    tokens, h = batch * s, m.hidden
    parts = [("qkv", h, m.qkv_width), ("out", h, h), ("up", h, m.ffn), ("down", m.ffn, h)]
    forward: list[Node] = [m.norm("fwd{i}/norm1", tokens)]
    for name, inner, outer in parts:
        forward.append(m.product("fwd{i}/" + name, tokens, inner, outer))
        if name == "qkv":
            forward.append(m.attention("fwd{i}/attention", s, batch=batch))
        if name == "out":
            forward.append(m.norm("fwd{i}/norm2", tokens))
    nodes: list[Node] = [
        compute("embedding", 0, 2 * BF16 * tokens * h, after=[]),
        {"repeat": m.layers, "nodes": forward},
        m.product("head", tokens, h, m.vocabulary),
        m.product("bwd_head", tokens, h, m.vocabulary, 1, 2),
    ]
    filled, count, before = 0, 0, "bwd_head"

    def flush() -> None:
        nonlocal filled, count
        after = [before, f"bucket{count - 1}"] if count else [before]
        nodes.append(comm("all_reduce", f"bucket{count}", filled, stream="ddp", after=after))
        filled, count = 0, count + 1

    for layer in reversed(range(m.layers)):
        for name, inner, outer in reversed(parts):
            nodes.append(m.product(f"bwd{layer}/{name}", tokens, inner, outer, 1, 2, after=before))
            before = nodes[-1]["name"]
            if name == "out":
                nodes.append({**m.attention(f"bwd{layer}/attention", s, times=2, batch=batch), "after": before})
                before = nodes[-1]["name"]
            filled += FP32 * (inner * outer + outer) + (FP32 * 2 * h if name in ("qkv", "up") else 0)
            if filled >= bucket:
                flush()
    filled += FP32 * (m.vocabulary + s) * h  # the embedding is also the output matrix; its gradient is complete last
    nodes.append(compute("bwd_embedding", 0, 2 * BF16 * tokens * h, after=before))
    before = "bwd_embedding"
    flush()
    parameters = m.layers * (sum(a * b + b for _, a, b in parts) + 4 * h) + (m.vocabulary + s) * h
    nodes.append(adam("adam", parameters, after=[before, f"bucket{count - 1}"]))
    return trace(
        "dp_overlapped_buckets",
        f"GPT-2 medium ({parameters / 1e6:.0f} M parameters), one step on {ranks} ranks under PyTorch "
        f"DDP: {batch} sequences of {s} tokens a rank, fp32 gradients in {count} buckets of at least {bucket >> 20} MiB",
        ranks,
        {},
        [program("rank", "all", nodes)],
    )


def program(name: str, ranks: str, nodes: list[Node]) -> Node:
    """A program of a trace."""
    return {"name": name, "ranks": ranks, "nodes": nodes}


def trace(name: str, description: str, ranks: int, groups: Node, programs: list[Node]) -> Node:
    """A native trace."""
    return {
        "format": "distsim-trace/1",
        "name": name,
        "description": description,
        "ranks": ranks,
        "groups": groups,
        "metadata": {
            "made_by": "python scripts/make_traces.py",
            "durations": "max(num_ops / (0.5 * 989 TFLOP/s), tensor_size / (0.8 * 3.35 TB/s)): H100 SXM, bf16",
        },
        "programs": programs,
    }


def text(value: Any, depth: int = 0) -> str:
    """JSON with one node a line."""
    pad = " " * (depth + 1)
    if isinstance(value, dict) and any(key in value for key in ("programs", "nodes")):
        rows = [f"{pad}{json.dumps(key)}: {text(item, depth + 1)}" for key, item in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + " " * depth + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(pad + text(item, depth + 1) for item in value) + "\n" + " " * depth + "]"
    return json.dumps(value)


README = """# Traces

Native distsim traces (docs/traces.md), made by `python scripts/make_traces.py`; its head names the sources of all sizes and the
rule for the recorded durations. `distsim trace FILE` summarises one, `distsim run FILE --topo fat_tree` replays it.

| file | ranks | what |
|---|---|---|
"""


def main() -> None:
    """Write all files and their README."""
    folder = Path(__file__).resolve().parent.parent / "traces"
    folder.mkdir(exist_ok=True)
    rows = ""
    for document in (llama_tp_dp(), pipeline(), mixture(), buckets()):
        body = text(document) + "\n"
        (folder / f"{document['name']}.json").write_text(body)
        rows += f"| {document['name']}.json | {document['ranks']} | {document['description']} |\n"
        print(f"{document['name']}.json: {math.ceil(len(body) / 1000)} kB")
    (folder / "README.md").write_text(README + rows)


if __name__ == "__main__":
    main()
