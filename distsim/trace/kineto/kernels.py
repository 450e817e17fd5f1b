"""The class of a GPU operation by its name: what reports group by, and what durations are rescaled by.

Names are those of CUDA and ROCm libraries as profilers print them (cuBLAS, CUTLASS, cuDNN, PyTorch, Triton, NCCL, rocBLAS,
MIOpen, FlashAttention, FBGEMM): a list of words for each class, the first class that has a word in the name holds.
"""

from __future__ import annotations

import re
from functools import lru_cache

#: every class, in the order in which reports show them
CLASSES = (
    "gemm", "attention", "convolution", "norm", "softmax", "elementwise", "reduction", "embedding", "index", "optimizer",
    "copy", "set", "communication", "graph", "other",
)  # fmt: skip

# NOTE: the order decides: "gemm_softmax_fmha" is attention, "cudnn::bn_fw" a norm although cuDNN has convolutions too,
# and "softmax_warp_backward" no reduction; the word of PyTorch's wrapper (reduce_kernel, elementwise_kernel) comes late,
# since nearly every functor stands in one
_WORDS = tuple(
    (name, re.compile(words))
    for name, words in (
        ("copy", r"^memcpy|copybuffer|^dma"),
        ("set", r"^memset|fillbuffer"),
        ("communication", r"nccl|rccl|msccl|nvshmem|deep_ep|deepep|all_?reduce|all_?gather|reduce_?scatter|all_?to_?all"
                          r"|sendrecv|cross_device_reduce|(intra|inter)node::"),
        ("graph", r"cudagraph|graph_?launch"),
        ("attention", r"flash|fmha|attention|attn|mha_|paged_?kv|_mla_|sdpa"),
        ("optimizer", r"adam|sgd|adagrad|lamb_|multi_tensor_apply|rowwise_adagrad|optimizer|lion_|muon"),
        ("norm", r"layer_?norm|rms_?norm|group_?norm|batch_?norm|rowwise_?moments|gammabeta|_norm_kernel|instance_?norm"
                 r"|\bbn_(fw|bw)|layernorm|batchnorm|lpnorm"),
        ("convolution", r"conv(?!ert)|wgrad|dgrad|fprop|winograd|implicit_gemm|cudnn_infer|im2col|col2im|xmma_new|nchwto"
                        r"|nhwcto"),
        ("softmax", r"soft_?max|nll_?loss|cross_?entropy"),
        ("gemm", r"gemm|gemv|cublas|cutlass|cijk_|matmul|splitk|xmma|\bmm_|bmm|dot_kernel|nvjet|wgmma|sgemm|_mm_"),
        ("embedding", r"embedding|tbe_|fbgemm|pooled|sparse_features"),
        ("index", r"sort|scatter|gather|index|topk|unique|radix|permute_|cub::|thrust|masked_select|nonzero|histogram"
                  r"|cumsum|scan"),
        ("reduction", r"reduce|\bsum|mean|argmax|norm_kernel"),
        ("elementwise", r"elementwise|vectorized|pointwise|functor|fill|copy|cat(array|_)|dropout|gelu|relu|silu|bias|cast"
                        r"|triton_|transpose|swiglu|rotary|rope|where|mul_|add_|quant|foreach"),
    )
)  # fmt: skip


@lru_cache(maxsize=65536)
def kernel_class(name: str) -> str:
    """One of CLASSES.

    >>> kernel_class("ampere_sgemm_128x64_tn"), kernel_class("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgs)")
    ('gemm', 'communication')
    >>> kernel_class("Memcpy HtoD (Pinned -> Device)"), kernel_class("void my_own_kernel(float*)")
    ('copy', 'other')
    """
    lowered = name.lower()
    # words of the argument list name types ("ncclWork*"), not the kernel; an anonymous namespace has brackets of its own
    head = re.split(r"(?<!anonymous namespace)\((?!anonymous)", lowered, maxsplit=1)[0]
    return next((kind for kind, words in _WORDS if words.search(head)), "other")


def is_communication(name: str) -> bool:
    """Whether a kernel of this name moves data between GPUs."""
    return kernel_class(name) == "communication"
