"""What there is to choose from: models, GPUs, training software, pipeline schedules, one line each."""

from __future__ import annotations

from typing import Any

from distsim import registry
from distsim.hardware.gpu import gpus
from distsim.models.catalog import models
from distsim.report.table import table
from distsim.workload.training.stack import stacks

LISTS = ("models", "gpus", "stacks", "schedules")


def rows(what: str) -> list[dict[str, Any]]:
    """Of one of LISTS, JSON-ready; bytes, bytes/s and FLOP/s."""
    if what == "models":
        return [
            {"name": one.name, "parameters": one.parameters, "active": one.active_parameters, "layers": one.layers,
             "hidden": one.hidden, "source": one.source}
            for one in models().values()
        ]  # fmt: skip
    if what == "gpus":
        return [
            {"name": one.name, "bf16": one.peak.get("bf16") or one.peak.get("fp16"), "memory": one.memory,
             "memory_bandwidth": one.memory_bandwidth, "about": one.about}
            for one in gpus().values()
        ]  # fmt: skip
    if what == "stacks":
        return [{"name": one.name, "about": one.about} for one in stacks().values()]
    found = [(name, registry.lookup("pipeline", name)) for name in registry.names("pipeline")]
    return [{"name": name, "about": (one.__doc__ or "").strip().partition("\n")[0]} for name, one in found]


def text(what: str) -> str:
    """The list as a table."""
    found = rows(what)
    if what == "models":
        head = ["model", "parameters", "active", "layers", "hidden"]
        cells = [
            [one["name"], _billions(one["parameters"]), _billions(one["active"]), str(one["layers"]), str(one["hidden"])]
            for one in found
        ]
    elif what == "gpus":
        head = ["GPU", "16-bit TFLOP/s", "GiB", "TB/s"]
        cells = [
            [one["name"], f"{one['bf16'] / 1e12:.0f}", f"{one['memory'] / 2**30:.0f}", f"{one['memory_bandwidth'] / 1e12:.2f}"]
            for one in found
        ]
    else:
        return "\n".join(f"  {one['name']:<26}{one['about']}" for one in found)
    return "\n".join(table(head, cells))


def _billions(count: float) -> str:
    return f"{count / 1e9:.3g} B" if count >= 1e9 else f"{count / 1e6:.0f} M"
