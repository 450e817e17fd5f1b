"""A stack: what is constant about a training software and its era: what it fuses, overlaps and launches, and how efficiently.

These are the only constants that may be fitted to measured steps: few, one set per stack, each with its source or fit in the
YAML file (``stacks/``) and in docs/accuracy.md. Nothing is fitted per row.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distsim.errors import ConfigError, UnknownNameError
from distsim.params import worst

FOLDER = Path(__file__).parent / "stacks"
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Stack(BaseModel):
    """Constants of one software stack.

    Efficiencies multiply the rate (below 1: slower than the provider's microbenchmark); times are seconds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: str
    gemm: Mapping[str, Rate] = Field(
        description="GEMM rate over the microbenchmark's, by GPU or generation, or these with a data type; '*' for the others")
    experts: Mapping[str, Rate] = Field(
        {}, description="the same of grouped GEMMs, over one GEMM of all their tiles; gemm's if empty")
    wgrad_rate: float = Field(1.0, gt=0, description="rate of weights' gradients over other GEMMs: they add to what is there")
    attention: Literal["unfused", "flash", "flash2", "flash3"] = Field(description="unfused: scores written to memory")
    attention_rate: Rate | Mapping[str, Rate] = Field(1.0, description="attention rate over the provider's, as gemm")
    context_rate: float = Field(1.0, gt=0, description="attention rate under context parallelism over that without it")
    memory_rate: float = Field(1.0, gt=0, description="bandwidth of element-wise kernels over the provider's")
    fusion: Literal["eager", "fused", "compiled"] = Field(description="passes over memory between the GEMMs")
    launch: float = Field(ge=0, description="CPU time per kernel issued without CUDA graphs, s")
    layer_overhead: float = Field(0.0, ge=0, description="CPU time per layer and pass beside its kernels (framework), s")
    moe_overhead: float = Field(0.0, ge=0, description="CPU time per sparse layer and pass beside that (routing, dispatch), s")
    micro_batch_overhead: float = Field(0.0, ge=0, description="host waits per micro-batch and stage, half each way, s")
    step_overhead: float = Field(0.0, ge=0, description="per step: data loading, logging, synchronisation, s")
    cuda_graphs: bool = False
    interference: float = Field(1.0, ge=1.0, description="how much slower computation is while a collective runs beside it")
    overlap_grad_reduce: bool = False
    overlap_param_gather: bool = False
    overlap_p2p: bool = False
    tp_overlap: bool = False
    ep_overlap: bool | Literal["across"] = Field(False, description="across: where experts are on several NVLink domains")
    dispatch: Literal["alltoall", "per_node"] = Field(
        "alltoall", description="tokens go to every expert, or once to every node that has some for them (DeepEP)")
    gate: Literal["even", "neighbours"] = Field(
        "even", description="experts of a token: anywhere, or neighbours (a benchmark's gate), sent once per rank")
    grouped: Literal["one", "per_expert"] = Field("one", description="kernels of a grouped GEMM")
    expert_bias: Literal["fused", "eager"] = Field("fused", description="the bias behind experts: in the GEMM, or operators")
    scatter_gather: bool = Field(False, description="pipeline messages split over tp and gathered again (SC21)")
    wgrad_overlap: bool = Field(False, description="the backward all-reduce of tensor parallelism hides under weight gradients")
    sharding: Literal["plain", "fsdp1", "fsdp2"] = Field(
        "plain", description="copies that sharded weights and gradients pass through: none, PyTorch's FSDP, its FSDP2")
    shard_rate: float = Field(
        1.0, gt=0, description="rate of gathering weights and reducing gradients over NCCL's: bytes count as so many more")
    defer_reduce: bool = Field(False, description="FSDP scatters gradients behind the last micro-batch only")
    late_prefetch: bool = Field(
        False, description="FSDP gathers weights for the backward pass only behind the gradients before them (BACKWARD_POST)")
    bucket_bytes: int = Field(40_000_000, gt=0, description="gradient bucket")
    fused_casts: bool = Field(
        False, description="casts to FP8 and FP4 are part of the kernels before them (torch.compile); providers add that of x")
    grad_dtype: Literal["fp32", "bf16"] = "fp32"
    loss: Literal["eager", "parallel", "fused", "compiled"] = Field("fused", description="copies of the logits that it makes")
    selective: Literal["attention", "operations"] = Field(
        "attention", description="selective recomputation: of the attention core, or all but every second matrix product")
    master: Literal["optimizer", "weights"] = Field(
        "optimizer", description="fp32 master copy beside 16-bit weights in the optimizer, or the weights themselves (FSDP)")
    dropout: bool = Field(False, description="dropout's masks are kept (GPT recipes before 2023)")
    quantised_weights: bool = Field(
        False, description="weights that FP8 products read live in FP8 only (fp8_param_gather), not in 16 bits too")
    dummy_gradients: bool = Field(
        False, description="fused weight gradients hand autograd an empty tensor of each weight's shape (Transformer Engine)")
    gradient_copy: bool = Field(False, description="an fp32 copy of its share of 16-bit gradients stays (DeepSpeed ZeRO)")
    fragmentation: float = Field(0.04, ge=0, description="memory reserved by the allocator over allocated, less 1")
    context_bytes: int = Field(1_600_000_000, ge=0, description="outside the allocator: CUDA context, modules, NCCL buffers")
    sources: Mapping[str, str] = Field(description="field -> where its figure comes from, or how it was fitted")


@cache
def stacks() -> dict[str, Stack]:
    """All shipped stacks by name."""
    found = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        try:
            one = Stack(**yaml.safe_load(file.read_text()))
        except (ValidationError, yaml.YAMLError, TypeError) as error:
            raise ConfigError(f"not a stack: {error}", where=str(file)) from None
        found[one.name] = one
    return found


def stack(name: str) -> Stack:
    """The stack of that name, or of a YAML file. Raises UnknownNameError with near names, ConfigError."""
    if name.endswith((".yaml", ".yml")):
        try:
            content = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ConfigError("is no stack", where=name, expected="a mapping with name, gemm, attention, fusion ...",
                                  fix="Copy one of the shipped stacks (distsim train --list stacks).")  # fmt: skip
            return Stack(**content)
        except ValidationError as error:
            first = worst(error)
            key = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"not a stack: {key}: {first['msg']}", where=name) from None
        except (UnicodeDecodeError, yaml.YAMLError, TypeError, OSError) as error:
            raise ConfigError(f"not a stack: {' '.join(str(error).split())}", where=name) from None
    if name not in stacks():
        raise UnknownNameError("stack", name, stacks())
    return stacks()[name]
