"""distsim: a discrete-event simulator of distributed ML training and serving.

The public names below are imported on first use, so that ``import distsim`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distsim.api import simulate
    from distsim.errors import DistsimError
    from distsim.result import Result
    from distsim.run_spec import RunSpec
    from distsim.topology.spec import build as build_topology
    from distsim.trace.convert import convert
    from distsim.trace.read import read_trace

__version__ = "0.1.0"
__all__ = ["DistsimError", "Result", "RunSpec", "build_topology", "convert", "read_trace", "simulate"]

_HOME = {
    "DistsimError": ("distsim.errors", "DistsimError"),
    "Result": ("distsim.result", "Result"),
    "RunSpec": ("distsim.run_spec", "RunSpec"),
    "build_topology": ("distsim.topology.spec", "build"),
    "convert": ("distsim.trace.convert", "convert"),
    "read_trace": ("distsim.trace.read", "read_trace"),
    "simulate": ("distsim.api", "simulate"),
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        from importlib import import_module

        module, attribute = _HOME[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'distsim' has no attribute {name!r}")
