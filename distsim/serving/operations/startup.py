"""How long a replica takes to start: processes, and its weights from storage."""

from __future__ import annotations

from pydantic import Field

from distsim.params import Bandwidth, Parameters
from distsim.serving.deployment import Deployment
from distsim.serving.durations import Duration, ps
from distsim.serving.kv.sizes import weight_bytes
from distsim.units import PS_PER_S, parse_bandwidth


class StartupParams(Parameters):
    """A constant, and the weights of all its ranks over one storage."""

    startup: Duration = Field("0", description="what a start takes beside the weights: container, processes, graphs")
    storage: Bandwidth | None = Field(None, description="rate at which a replica reads its weights; default: in no time")


def startup_time(params: StartupParams, deployment: Deployment) -> int:
    """ps from the decision, or the repair, to the first request."""
    total = ps(params.startup)
    if params.storage is not None:
        total += round(stored_bytes(deployment) / parse_bandwidth(params.storage) * PS_PER_S)
    return total


def stored_bytes(deployment: Deployment) -> float:
    """Bytes of weights that the ranks of a replica load. Attention ranks in data parallel each load their own."""
    return sum(weight_bytes(deployment, stage) for stage in range(deployment.pp)) * deployment.tp * deployment.dp
