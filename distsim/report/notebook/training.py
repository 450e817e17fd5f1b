"""A training step in a notebook: the answer, where the time goes, memory, and the warnings."""

from __future__ import annotations

from distsim.analysis.training import PARTS, breakdown
from distsim.registry import register
from distsim.report.answer import percentages
from distsim.report.notebook.fragment import bar, fragment, notes, rows
from distsim.report.training import answer
from distsim.training import Training
from distsim.units import format_size, format_time


@register("notebook", "training")
def html(training: Training) -> str:
    """``Training._repr_html_``."""
    found = breakdown(training)
    told = [(part, found.share(part)) for part in PARTS if found.share(part) > 0]
    total = sum(share for _, share in told) or 1.0
    whole = percentages([share / total for _, share in told])
    shares = [(PARTS[part], share, f"{percent} %") for (part, share), percent in zip(told, whole, strict=True)]
    shares.sort(key=lambda one: -one[1])
    stage = training.memory.worst
    held = sorted(stage.terms.items(), key=lambda item: -item[1])
    return fragment(
        answer(training, found), bar([one for one in shares if one[1] >= 0.005]),
        rows(
            ("where the time goes", "time", "share"),
            [(name, format_time(round(share * training.step_ps)), said) for name, share, said in shares if share >= 0.005],
        ),
        rows(
            (f"memory of stage {stage.stage}", "size"),
            [(name, format_size(size)) for name, size in held if size >= 1 << 26],
        ),
        notes((*training.warnings, *training.result.warnings)),
    )  # fmt: skip
