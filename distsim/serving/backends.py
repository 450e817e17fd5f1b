"""Serving systems as far as they decide how long an iteration takes and how much memory is left: defaults, with their sources."""

from __future__ import annotations

from dataclasses import dataclass

from distsim.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Backend:
    """One serving system.

    Attributes:
        utilisation: share of the GPU's memory that it takes; of what is left after the weights where ``of_free``.
        tokens: most new tokens of an iteration; sequences: most sequences of one.
        block: tokens of a KV block.
        graph: most sequences of a generating batch that has a CUDA graph.
        captured: batch sizes with a graph: powers of two up to ``fine``, then multiples of ``step``.
        host: s per iteration in which the GPU waits for the host: scheduling, input tensors, sampled tokens.
        host_sequence: s of that per sequence of the batch.
        launch: s of the host per kernel launched outside a graph.
        all_reduce: key of distsim.serving.allreduce.CONSTANTS.
        chunked: prompts are computed in parts that share an iteration with generation.
    """

    name: str
    utilisation: float
    of_free: bool
    tokens: int
    sequences: int
    block: int
    graph: int
    fine: int
    step: int
    host: float
    host_sequence: float
    launch: float
    all_reduce: str
    chunked: bool


#: s of the host for one operation that is no part of a graph. A call of an all-reduce that takes 5 us in a graph takes 20 us in a
#: loop of Python on the hosts of H100 and B200 (``reference/nccl``, vLLM and SGLang, eager and graph); inside models 60 us pass
#: between launches of eager modules (aiconfigurator, collector/layerwise/fpm_ground_truth, Nsight traces of vLLM 0.20 on B300).
#: Compiled code (vLLM) is taken for the loop, modules that are called one by one for the middle of the two.
COMPILED, EAGER = 20e-6, 40e-6
BACKENDS = {
    # vLLM 0.12 (vllm/config, engine/arg_utils.py): gpu_memory_utilization 0.9; on H100 and larger 8192 batched tokens and 1024
    # sequences for its server; blocks of 16; graphs of 1, 2, 4, then each multiple of 8 (16 from 256 on), up to 512
    "vllm": Backend("vllm", 0.9, False, 8192, 1024, 16, 512, 8, 8, 0.0, 0.0, COMPILED, "custom", True),
    # SGLang 0.5 (server_args.py): mem_fraction_static about 0.88 of 80 GB; chunked_prefill_size 8192; pages of 1 token;
    # graphs up to 256 or 512 sequences; scheduling hidden behind the GPU (zero-overhead batch scheduler, SGLang 0.4 blog)
    "sglang": Backend("sglang", 0.88, False, 8192, 1024, 1, 512, 8, 8, 0.0, 0.0, EAGER, "custom", True),
    # TensorRT-LLM 1.x (llmapi/llm_args.py): free_gpu_memory_fraction 0.9 of what weights leave; max_num_tokens 8192;
    # max_batch_size 2048; blocks of 32; overlap scheduler hides the host's work
    "trtllm": Backend("trtllm", 0.9, True, 8192, 2048, 32, 2048, 8, 8, 0.0, 0.0, EAGER, "trtllm", False),
}


def backend_named(name: str, *, where: str = "") -> Backend:
    """The backend of that name. Raises UnknownNameError."""
    if name not in BACKENDS:
        raise UnknownNameError("backend", name, BACKENDS, where=where)
    return BACKENDS[name]
