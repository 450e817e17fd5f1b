"""Names of the tasks of a captured trace that no profiler names: the host's own work, between calls."""

from __future__ import annotations

from distsim.trace.kineto.calls import call_kind
from distsim.trace.kineto.capture import CallKind

_BEFORE = "host work before "


def host_work(call: str) -> str:
    """Of a thread's own work up to this call of the runtime; "": up to where it hands over, or stops."""
    return f"{_BEFORE}{call}" if call else "host"


def launches(name: str) -> bool:
    """Whether host work of this name ends with a call that puts work on a stream.

    >>> launches("host work before cudaLaunchKernel"), launches("host work before cudaDeviceSynchronize"), launches("host")
    (True, False, False)
    """
    return name.startswith(_BEFORE) and call_kind(name.removeprefix(_BEFORE)) in (CallKind.LAUNCH, CallKind.BLOCKING_COPY)
