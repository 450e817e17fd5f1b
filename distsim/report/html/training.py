"""What only a training step has: utilisation, where each pipeline stage's time goes, and the memory of its GPUs.

A results folder holds the specification, from which the execution graph and the memory are worked out again (milliseconds:
nothing is simulated), and the spans, which say when everything ran.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distsim.analysis.training import PARTS, Breakdown, breakdown, providers
from distsim.command import is_training
from distsim.errors import DistsimError
from distsim.report.html import lines
from distsim.report.html.markup import chart, paragraph, table
from distsim.report.html.section import Figure, Section
from distsim.report.training import answer
from distsim.result import Result
from distsim.training import Training, TrainSpec, execution_graph, job
from distsim.units import format_size, format_time
from distsim.workload.training.memory import memory_of
from distsim.workload.training.memory.timeline import timeline

#: stages that have a line of their own
_STAGES = 8


@dataclass(frozen=True, slots=True)
class Step:
    """A training step as it was simulated; without ``training`` where its names mean nothing any more."""

    training: Training | None
    found: Breakdown | None
    answer: str
    figures: tuple[Figure, ...]
    warnings: tuple[str, ...]


def step_of(result: Result) -> Step | None:
    """The training step that a result is of; None for any other run."""
    spec = result.spec
    if not is_training(spec):
        return None
    try:
        work = job(TrainSpec(**{name: value for name, value in spec.items() if name in TrainSpec.model_fields}))
        training = Training(work, execution_graph(work), result, memory_of(work.model, work.plan, work.stack, work.gpu))
        found = breakdown(training)
    except (DistsimError, ValueError) as error:
        why = str(error).splitlines()[0]
        said = f"utilisation, stages and memory are left out, as the step cannot be built again: {why}"
        return Step(None, None, "", (), (said,))
    gpu, memory = work.gpu, training.memory
    figures = (
        Figure("MFU", f"{100 * training.mfu:.1f} %", f"{training.flops_per_gpu / 1e12:.0f} TFLOP/s/GPU"),
        Figure("Throughput", f"{training.tokens_per_s_gpu:,.0f}", "tokens/s/GPU"),
        Figure("Memory", f"{memory.device / 2**30:.1f} GiB", f"of {gpu.memory / 2**30:.0f} on {gpu.name}"),
    )
    return Step(training, found, answer(training, found), figures, work.notes)


def section(step: Step) -> Section | None:
    """Where the time of the step and of every stage goes."""
    if step.training is None or step.found is None:
        return None
    training, found = step.training, step.found
    shown = [part for part in PARTS if found.parts[part] >= 0.0005 * training.step_ps]
    rows = [(PARTS[part], format_time(round(found.parts[part])), f"{100 * found.share(part):.1f} %") for part in shown]
    keys = [(None, found.parts[part], found.share(part)) for part in shown]
    data = {
        "parts": [{"name": PARTS[part], "stages": [stage[part] for stage in found.stages]} for part in shown],
        "step": training.step_ps,
    }
    kernels = providers(training)
    html = [
        chart("training-stages", "Parts of the step of every pipeline stage; the table below has their mean",
              80 + 30 * len(found.stages)),
        table(("where the time goes", "time", "share"), rows, keys=keys, caption="The compute stream, mean over ranks"),
    ]  # fmt: skip
    if kernels:
        head = ("kernel times from", "kernels", "seconds of a micro-batch", "usual error")
        told = [(name, f"{count:,}", f"{seconds:.4g}", f"{100 * off:.0f} %") for name, (count, seconds, off) in kernels.items()]
        html.append(table(head, told, caption="Sources of kernel times"))
    return Section("training", "Training step", "\n".join(html), data, ("training.js",), charts=True)


def memory(step: Step) -> Section | None:
    """The memory of every stage's GPUs by term, against what they have."""
    if step.training is None:
        return None
    stages, gpu = step.training.memory.stages, step.training.job.gpu
    terms = [{**one.terms, "fragmentation": one.reserved - one.allocated, "CUDA and NCCL": one.device - one.reserved}
             for one in stages]  # fmt: skip
    names = sorted({name for each in terms for name, size in each.items() if size}, key=lambda n: (-_sum(terms, n), n))
    sizes = {name: [each.get(name, 0) for each in terms] for name in names} | {"device": [one.device for one in stages]}
    rows = [(name, *map(format_size, column)) for name, column in sizes.items()]
    keys: list[tuple[str | float, ...]] = [(name, *map(float, column)) for name, column in sizes.items()]
    data = {
        "names": names, "stages": [one.stage for one in stages], "limit": gpu.memory,
        "bytes": [sizes[name] for name in names],
    }  # fmt: skip
    full = step.training.memory.worst
    through = _through(step.training)
    data["charts"] = lines.data([through])["charts"]
    html = [
        paragraph(f"At its fullest ({full.moment}), stage {full.stage} takes {format_size(full.device)} of the "
                  f"{format_size(gpu.memory)} of {gpu.name}.", "note"),
        chart("memory-stages", "Memory of every pipeline stage by term; the table below says the same", 80 + 30 * len(stages)),
        table(("what", *(f"stage {one.stage}" for one in stages)), rows, keys=keys,
              caption="Memory of a GPU of every stage at its fullest"),
        through.html(),
        paragraph("Allocated tensors: weights, states and what forward passes keep for their backward passes; without "
                  "fragmentation, CUDA and NCCL. The last slot is the optimizer's.", "note"),
    ]  # fmt: skip
    return Section("memory", "Memory", "\n".join(html), data, ("lines.js", "training.js"), charts=True)


def _through(training: Training) -> lines.Chart:
    """Allocated memory slot by slot of the pipeline's schedule, on a rank of each stage, or of some of many."""
    work, stages = training.job, training.memory.stages
    step = max(1, (len(stages) - 1) // (_STAGES - 1))
    some = sorted({*range(0, len(stages), step), training.memory.worst.stage}) if len(stages) > _STAGES else range(len(stages))
    drawn = []
    for stage in some:
        found = timeline(work.model, work.plan, work.stack, work.gpu, stage)
        sizes = np.array([*(point.during for point in found.points), found.optimizer], np.float64) / 2**30
        edges = np.arange(len(sizes) + 1, dtype=np.float64)
        # NOTE: a level for every slot: both of its edges
        drawn.append(lines.Line(f"stage {stage}", np.repeat(edges, 2)[1:-1], np.repeat(sizes, 2)))
    return lines.Chart("memory-slots", "Memory through the step", "slot of the schedule", "GiB", tuple(drawn), x_kind="")


def _sum(terms: list[dict[str, int]], name: str) -> int:
    return sum(each.get(name, 0) for each in terms)
