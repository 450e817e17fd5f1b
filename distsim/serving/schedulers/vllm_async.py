"""vLLM's present scheduler with async scheduling: the rules of ``vllm_v1``, batches formed one iteration ahead.

Rules: vLLM from 0.14 on, ``vllm/v1/core/sched/async_scheduler.py``; see ``vllm_v1`` and distsim.serving.ahead.
"""

from __future__ import annotations

from distsim.registry import register
from distsim.serving.ahead import Ahead
from distsim.serving.schedulers.vllm_v1 import VllmV1


@register("scheduler", "vllm_async")
class VllmAsync(Ahead, VllmV1):
    """As ``vllm_v1``; what arrives during an iteration misses the next one."""
