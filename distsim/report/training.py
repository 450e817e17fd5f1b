"""A simulated training step in words: the answer, what the step is made of, memory, and the warnings."""

from __future__ import annotations

import textwrap
from typing import Any

from distsim.analysis.training import PARTS, Breakdown, breakdown, columns, providers
from distsim.report.answer import percentages
from distsim.report.table import table
from distsim.training import Training
from distsim.units import format_time
from distsim.workload.training.graph import describe

#: parts that are computation; the rest is waiting
_WORK = ("gemm", "attention", "experts", "memory", "optimizer", "interference")


def answer(training: Training, parts: Breakdown | None = None) -> str:
    """``step 8.12 s on 16,384 x h100_sxm: MFU 38.1 % (377 TFLOP/s/GPU), 126 tokens/s/GPU, 71.2 of 80 GiB; 14 % bubble ...``"""
    found = parts or breakdown(training)
    plan, gpu = training.job.plan, training.job.gpu
    lost = sorted(
        ((found.share(part), part) for part in PARTS if part not in _WORK and found.share(part) >= 0.005), reverse=True
    )[:2]
    losses = ", ".join(f"{round(100 * share)} % {_SHORT.get(part, part)}" for share, part in lost)
    gpus = "1" if plan.world == 1 else f"{plan.world:,}"
    return (
        f"step {format_time(training.step_ps)} on {gpus} x {gpu.name}: MFU {100 * training.mfu:.1f} % "
        f"({training.flops_per_gpu / 1e12:.0f} TFLOP/s/GPU), {_number(training.tokens_per_s_gpu)} tokens/s/GPU, "
        f"{training.memory.device / 2**30:.1f} of {gpu.memory / 2**30:.0f} GiB"
        + (f"; lost: {losses}" if losses else "")
    )


_SHORT = {
    "tp": "exposed TP", "cp": "exposed CP", "ep": "exposed EP", "pp": "exposed PP", "dp": "exposed DP",
    "launch": "CPU launches", "overhead": "between steps",
}  # fmt: skip


def text(training: Training, width: int = 100) -> str:
    """The whole screen."""
    found = breakdown(training)
    lines = [answer(training, found), ""]
    job, counts = training.job, training.result.counts
    lines.append(
        f"  {job.model.name} ({job.model.parameters / 1e9:.4g} B parameters), {describe(job.plan)}, {job.plan.pipeline} "
        "pipeline, "
        f"{job.plan.micro_batches} micro-batches of {job.plan.micro_batch} x {job.plan.seq:,} tokens, {job.plan.precision}"
    )
    plan = job.plan
    said = [f"global batch {plan.global_batch:,}", f"ZeRO {plan.zero}", f"recompute {plan.recompute}"]
    said += ["sequence parallel"] if plan.sequence_parallel else []
    lines.append(f"  {', '.join(said)}; {job.topology.name}, network {job.spec.network}, software {job.stack.name}")
    classes = counts.get("classes", 0)
    if classes and classes < job.plan.world:
        lines.append(
            f"  {job.plan.world:,} ranks folded into {classes}, exactly: {counts['simulated']:,} of {counts['nodes']:,} tasks "
            "simulated"
        )
    lines += ["", *_parts(training, found), ""]
    lines += _memory(training)
    sources = [f"{source} ({100 * error:.0f} %)" for source, (_, _, error) in list(providers(training).items())[:4]]
    lines.append(f"  kernel times from (usual error): {', '.join(sources)}")
    for warning in (*training.warnings, *training.result.warnings):
        lines += textwrap.wrap(f"warning: {warning}", width, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def _parts(training: Training, found: Breakdown) -> list[str]:
    """The step by part, as a table with bars."""
    shares = [found.share(part) for part in PARTS]
    total = sum(shares) or 1.0
    whole = percentages([share / total for share in shares])
    rows = []
    for part, percent, share in zip(PARTS, whole, shares, strict=True):
        if share * training.step_ps >= 1e6 and share >= 0.0005:
            rows.append([f"{'  ' if part in _WORK else '- '}{PARTS[part]}", format_time(round(share * training.step_ps)),
                         f"{percent} %", "█" * round(40 * share)])  # fmt: skip
    ideal = training.step_ps * training.mfu
    rows.append(["= step", format_time(training.step_ps), "100 %", ""])
    made = table(["where the time goes (mean over ranks)", "time", "share"], [row[:3] for row in rows], width=100)
    made = [f"{line}   {row[3]}".rstrip() for line, row in zip(made, [["", "", "", ""], *rows], strict=True)]
    return [
        *made,
        f"  ideal (model FLOPs at peak {training.peak / 1e12:.0f} TFLOP/s): {format_time(round(ideal))}"
        + (f"; HFU {100 * training.hfu:.1f} % counts recomputation" if training.hfu > 1.0001 * training.mfu else ""),
    ]


def _memory(training: Training) -> list[str]:
    """The fullest stage by term."""
    memory = training.memory
    stage = memory.worst
    terms = {name: size for name, size in stage.terms.items() if size >= 2**26}
    terms["fragmentation"], terms["CUDA and NCCL"] = stage.reserved - stage.allocated, stage.device - stage.reserved
    said = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in sorted(terms.items(), key=lambda item: -item[1]))
    return textwrap.wrap(
        f"memory of the fullest stage ({stage.stage}), GiB: {said}", 100, initial_indent="  ", subsequent_indent="    "
    )


def document(training: Training) -> dict[str, Any]:
    """The answer as one JSON document; figures end in their unit."""
    found, job = breakdown(training), training.job
    return {
        "format": "distsim-training", "answer": answer(training, found), **columns(training),
        "breakdown_ps": {part: found.parts[part] for part in PARTS},
        "stages_ps": [dict(stage) for stage in found.stages],
        "memory_stages": [
            {"stage": one.stage, "device_bytes": one.device, "allocated_bytes": one.allocated, "terms": one.terms}
            for one in training.memory.stages
        ],
        "providers": {
            source: {"kernels": count, "seconds": seconds, "error": error}
            for source, (count, seconds, error) in providers(training).items()
        },
        "spec": job.spec.model_dump(), "counts": dict(training.result.counts), "provenance": dict(training.result.provenance),
        "warnings": [*training.warnings, *training.result.warnings],
    }  # fmt: skip


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
