"""What the calls of the CUDA and HIP runtimes and drivers do, by their names."""

from __future__ import annotations

from distsim.trace.kineto.capture import CallKind


def call_kind(name: str) -> CallKind:
    """What a runtime or driver call of this name does.

    >>> call_kind("cudaLaunchKernelExC").name, call_kind("cuMemcpyDtoH_v2").name, call_kind("hipStreamWaitEvent").name
    ('LAUNCH', 'BLOCKING_COPY', 'EVENT_WAIT')
    """
    lowered = name.lower()
    if "memcpy" in lowered and "async" not in lowered:
        return CallKind.BLOCKING_COPY
    if ("launch" in lowered and "hostfunc" not in lowered) or "memcpy" in lowered or "memset" in lowered:
        return CallKind.LAUNCH
    for words, kind in (
        ("eventrecord", CallKind.EVENT_RECORD), ("streamwaitevent", CallKind.EVENT_WAIT),
        ("streamsynchronize", CallKind.STREAM_SYNC), ("eventsynchronize", CallKind.EVENT_SYNC),
        ("devicesynchronize", CallKind.DEVICE_SYNC), ("ctxsynchronize", CallKind.DEVICE_SYNC),
    ):  # fmt: skip
        if words in lowered:
            return kind
    return CallKind.OTHER
