"""Serving systems as far as they decide how long an iteration takes and how much memory is left: defaults, with sources."""

from __future__ import annotations

from dataclasses import dataclass

from distsim.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Backend:
    """One serving system.

    Attributes:
        utilisation: share of the GPU's memory that it takes; of what is left after the weights where ``of_free``.
        tokens: most new tokens of an iteration; sequences: most sequences of one.
        graph: most sequences of a generating batch that has a CUDA graph; batches in between are padded to the next captured
            size: powers of two up to 8, then multiples of 8.
        piecewise: batches with prompts have one as well, up to as many tokens; attention is launched between its pieces, which
            the GPU does not wait for.
        host, host_sequence: s per iteration, and per sequence in it, in which the GPU waits for the host.
        launch: s of the host per operation outside a graph.
        all_reduce: implementation in distsim.serving.forward.allreduce.
    """

    name: str
    utilisation: float
    of_free: bool
    tokens: int
    sequences: int
    graph: int
    piecewise: bool
    host: float
    host_sequence: float
    launch: float
    all_reduce: str


#: s of the host for one operation that is no part of a graph. A call of an all-reduce that takes 5 us in a graph takes 20 us in
#: a loop of Python on the hosts of H100 and B200 (``reference/nccl``, vLLM and SGLang, eager and graph); inside models 60 us
#: pass between launches of eager modules (ai-dynamo/aiconfigurator, collector/layerwise/fpm_ground_truth: Nsight traces of vLLM
#: 0.20 on B300). Compiled code (vLLM) is taken for the loop, modules called one by one for the middle of the two.
COMPILED, EAGER = 20e-6, 40e-6
#: s per sequence, where the host does not work ahead: a gap of 5 to 6 ms between iterations of 256 sequences (vllm-project/vllm
#: issue 10634)
HOST = 5.5e-3 / 256
BACKENDS = {
    # vLLM (vllm/config, engine/arg_utils.py): gpu_memory_utilization 0.9; 8192 batched tokens and 1024 sequences for a server
    # on H100 and larger; graphs up to 512 sequences (cudagraph_mode FULL_AND_PIECEWISE)
    "vllm": Backend("vllm", 0.9, False, 8192, 1024, 512, True, 0.0, HOST, COMPILED, "custom"),
    # SGLang (server_args.py): mem_fraction_static about 0.88 of 80 GB; chunked_prefill_size 8192; graphs up to 512 sequences
    "sglang": Backend("sglang", 0.88, False, 8192, 1024, 512, False, 0.0, HOST, EAGER, "custom"),
    # TensorRT-LLM (llmapi/llm_args.py): free_gpu_memory_fraction 0.9 of what weights leave; max_num_tokens 8192; max_batch_size
    # 2048, with graphs for all
    "trtllm": Backend("trtllm", 0.9, True, 8192, 2048, 2048, False, 0.0, HOST, EAGER, "trtllm"),
}


def backend_named(name: str, *, where: str = "") -> Backend:
    """The backend of that name. Raises UnknownNameError."""
    if name not in BACKENDS:
        raise UnknownNameError("backend", name, BACKENDS, where=where)
    return BACKENDS[name]
