"""What a service costs: money per million tokens at a price per GPU hour, and an estimate of the energy.

Energy: a GPU that computes draws idle + (power - idle) * min(1, u / 0.45)^0.7 watts, u the share of its peak FLOP/s that the
iteration uses, ``power`` that of its data sheet; one that waits draws idle. The form, the exponent and the saturation are those
of Oezcan, Wiesner, Weiss and Kao, "Quantifying the Energy Consumption and Carbon Emissions of LLM Inference via Simulations"
(2025, arXiv 2507.11417), who fitted them to A100s. It is an estimate: GPUs only, no hosts, switches or cooling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distsim.analysis.serving import ServingSummary, gpu_time, held
from distsim.analysis.serving_work import deployments
from distsim.errors import ConfigError
from distsim.models.spec import Model
from distsim.serving.deployment import Deployment
from distsim.serving.result import ReplicaRow, ServingResult
from distsim.units import PS_PER_S

#: power at rest over the data sheet's: 60 W of 700 W (H100) and 100 W of 400 W (A100) in the paper above; between them
IDLE = 0.15
#: share of the peak FLOP/s from which on the power no longer grows, and the exponent below it, of the paper above
SATURATION, EXPONENT = 0.45, 0.7


@dataclass(frozen=True, slots=True)
class Price:
    """Of the whole run, in the currency of ``per_gpu_hour``; nan per token where none came out."""

    per_gpu_hour: float
    total: float
    per_million_output_tokens: float
    per_million_tokens: float  #: prompts counted


@dataclass(frozen=True, slots=True)
class Energy:
    """An estimate, see the module. joules: of all GPUs over the run; watts: the mean of one GPU in service."""

    joules: float
    joules_per_output_token: float
    watts_per_gpu: float


def price(found: ServingSummary, per_gpu_hour: float) -> Price:
    """At a price per GPU and hour in service. Raises ConfigError unless it is a positive number."""
    if not 0 < per_gpu_hour < float("inf"):
        raise ConfigError(f"{per_gpu_hour} per GPU and hour is no price", where="--price", expected="a positive number")
    total = found.gpu_seconds / 3600 * per_gpu_hour
    seconds = found.rates.span_ps / PS_PER_S
    output, prompt = found.rates.output_tokens * seconds, found.rates.prompt_tokens * seconds

    def per_million(tokens: float) -> float:
        return total / tokens * 1e6 if tokens else float("nan")

    return Price(per_gpu_hour, total, per_million(output), per_million(output + prompt))


def energy(result: ServingResult, found: ServingSummary) -> Energy | None:
    """Of a run; None where it does not say its deployments, or a data sheet gives no power."""
    by_pool = deployments(result)
    total = 0.0
    for row in result.replicas:
        deployment = by_pool.get(row.pool)
        if deployment is None or not deployment.device.power:
            return None
        total += _joules(result, row, deployment)
    tokens = found.rates.output_tokens * found.rates.span_ps / PS_PER_S
    if not found.gpu_seconds:
        return None
    return Energy(total, total / tokens if tokens else float("nan"), total / found.gpu_seconds)


def _joules(result: ServingResult, row: ReplicaRow, deployment: Deployment) -> float:
    """Of one replica."""
    log, gpu, model = result.iterations, deployment.device, deployment.spec
    rows, start, end = held(result, row.number)
    idle = IDLE * gpu.power
    there = gpu_time(result, row) / PS_PER_S
    if not len(rows):
        return row.gpus * idle * there
    seconds = (end - start) / PS_PER_S
    count, sequences = log["count"][rows], log["sequences"][rows]
    tokens = sequences * count + log["tokens"][rows]
    # NOTE: kv is that before the first of ``count`` iterations, each of which adds a token per sequence
    attended = log["kv"][rows] * count + sequences * count * (count - 1) / 2 + log["attended"][rows]
    flops = 2.0 * model.multiplied_weights() * tokens + _per_attended_token(model) * attended
    peak = gpu.peak.get(deployment.linear.computes(gpu)) or max(gpu.peak.values())
    share = flops / np.maximum(seconds, 1e-12) / (peak * row.gpus)
    watts = idle + (gpu.power - idle) * np.minimum(1.0, share / SATURATION) ** EXPONENT
    busy = float(seconds.sum())
    return row.gpus * (float((watts * seconds).sum()) + idle * max(0.0, there - busy))


def _per_attended_token(model: Model) -> float:
    """FLOPs of attention for every token that a new one attends to: scores, and their product with the values."""
    width = model.heads * (model.mla.kv_lora + model.mla.rope + model.mla.kv_lora) / 2 if model.mla is not None else 0.0
    return 4.0 * model.layers * (width or model.heads * model.head_dim)
