"""SGLang's scheduler with its overlap schedule: the rules of ``sglang``, batches formed one iteration ahead.

Rules: SGLang from 0.4 on, ``managers/scheduler.py`` (``event_loop_overlap``, its default); see ``sglang`` and
distsim.serving.ahead.
"""

from __future__ import annotations

from distsim.registry import register
from distsim.serving.ahead import Ahead
from distsim.serving.schedulers.sglang import Sglang


@register("scheduler", "sglang_async")
class SglangAsync(Ahead, Sglang):
    """SGLang with its overlap scheduler: longest cached prefix first; what arrives during an iteration misses the next one."""
