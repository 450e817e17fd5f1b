"""How large the KV cache is: bytes of a token on one rank, weights, what is left of the GPU's memory, and so the blocks."""

from __future__ import annotations

from distsim.cost.kernel import WIDTH
from distsim.errors import OutOfMemoryError
from distsim.models.spec import Model
from distsim.serving.deployment import Deployment

#: bytes beside weights, cache and activations: CUDA context, NCCL's and graphs' buffers. vLLM logs 0.3 to 0.6 GiB of each
#: ("non-torch memory", "graph capturing took"); they are the same for all models
RESERVED = 1 << 30
#: of a GPU's nominal memory, what CUDA reports: 79.1 of 80 GiB (``torch.cuda.get_device_properties`` on A100 and H100 SXM; an
#: RTX 4090 reports 23.5 of 24)
REPORTED = 0.989


def token_bytes(deployment: Deployment, stage: int = 0) -> float:
    """Bytes that one token takes in the cache of one rank of a stage.

    Multi-head and grouped attention: keys and values of this rank's key heads (at least one: heads are copied where tensor
    parallelism has more ranks). MLA: the latent and the shared positions, whole on every rank. Windowed layers are counted
    whole, as caches with one size of block have them.
    """
    model = deployment.spec
    return len(deployment.layers_of(stage)) * layer_token_bytes(model, deployment.tp, deployment.kv_dtype)


def layer_token_bytes(model: Model, tp: int, dtype: str) -> float:
    """Bytes of one token in one layer on one rank."""
    if model.mla is not None:
        return (model.mla.kv_lora + model.mla.rope) * WIDTH[dtype]
    return 2 * max(1, model.kv_heads // tp) * model.head_dim * WIDTH[dtype]


def weight_bytes(deployment: Deployment, stage: int = 0) -> float:
    """Bytes of the weights of one rank of a stage: linear layers and experts in their formats, the rest in bf16."""
    model, tp = deployment.spec, deployment.tp
    linear, expert = deployment.linear.bytes, deployment.expert_format.bytes
    total = 0.0
    for layer in deployment.layers_of(stage):
        total += model.attention_parameters() / tp * linear
        moe = model.moe
        if moe is None or not model.sparse(layer):
            total += model.mlp_parameters(model.ffn_hidden) / tp * linear
            continue
        total += moe.experts * model.mlp_parameters(moe.ffn_hidden) / (deployment.ep * deployment.expert_tp) * expert
        total += model.mlp_parameters(moe.shared_ffn_hidden) / tp * linear if moe.shared_ffn_hidden else 0.0
        total += 2.0 * model.hidden * moe.experts
    ends = (stage == 0) + (stage == deployment.pp - 1)
    if ends == 2 and model.tied:
        ends = 1
    return total + ends * 2.0 * model.vocab * model.hidden / tp


def activation_bytes(deployment: Deployment) -> float:
    """Peak bytes of one iteration's activations, as a profiling run with all the tokens of the budget finds them: hidden states
    and residual, the widest pair of intermediate results, and fp32 logits of every sequence."""
    model, tokens = deployment.spec, deployment.budget
    moe = model.moe
    widest = (2 if model.gated else 1) * model.ffn_hidden / deployment.tp
    if moe is not None:
        widest = max(widest, moe.topk * (2 * moe.ffn_hidden / deployment.expert_tp + model.hidden) / deployment.ep)
    heads = (model.heads + 2 * model.kv_heads) * model.head_dim / deployment.tp
    logits = 4.0 * min(deployment.software.sequences, 256) * model.vocab
    return 2.0 * tokens * (2 * model.hidden + max(1.5 * widest, heads)) + logits


def kv_bytes(deployment: Deployment, stage: int = 0) -> float:
    """Bytes left for the cache on one rank: memory * utilisation - weights - activations - reserved (vLLM, SGLang), or that
    share of what the rest leaves free (TensorRT-LLM). Negative where the model does not fit."""
    memory, software = REPORTED * deployment.device.memory, deployment.software
    share = deployment.utilisation or software.utilisation
    used = weight_bytes(deployment, stage) + activation_bytes(deployment) + RESERVED
    return share * (memory - used) if software.of_free else share * memory - used


def kv_blocks(deployment: Deployment) -> int:
    """KV blocks of one attention rank: the least of its stages.

    Raises: OutOfMemoryError where the weights leave no room for a block.
    """
    least = None
    for stage in range(deployment.pp):
        left = kv_bytes(deployment, stage)
        block = deployment.block_tokens * token_bytes(deployment, stage)
        if left < block:
            raise OutOfMemoryError(
                f"weights of {weight_bytes(deployment, stage) / 2**30:.1f} GiB leave no room for a KV cache in"
                f" {deployment.device.memory / 2**30:.0f} GiB",
                where=f"{deployment.spec.name} on {deployment.device.name}, tp={deployment.tp} pp={deployment.pp}",
                stage=stage, term="weights", over=int(block - left), fix="Take more tp, pp or ep, or a narrower weight format.",
            )  # fmt: skip
        blocks = int(left // block)
        least = blocks if least is None else min(least, blocks)
    assert least is not None
    return least
