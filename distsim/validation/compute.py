"""Suite ``compute``: measured kernel times against the compute providers as shipped, without any table of these rows.

Layout of the data, every file optional but not all: ``gemm_measured.parquet`` with the columns system, dtype, m, n, k and
latency_us; ``attention_context_measured.parquet`` and ``attention_generation_measured.parquet`` (see their parts). All figures
are shares: 0.12 is 12 %. Groups are kernel, system, dtype and provider; the metric of a kind of kernel is the mean absolute
relative error over all its rows of the provider that the chain asks first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distsim.errors import ConfigError
from distsim.registry import register
from distsim.validation.compute_attention import ContextPart, GenerationPart
from distsim.validation.compute_gemm import GemmPart
from distsim.validation.compute_part import Part, enter
from distsim.validation.suite import Progress, Report

#: every kind of kernel that there is data for
PARTS: tuple[Part, ...] = (GemmPart(), ContextPart(), GenerationPart())


@register("suite", "compute")
class Compute:
    """Mean absolute relative error of GEMM and attention models, as shipped."""

    summary = "measured kernel times: GEMM and attention models as shipped"

    def run(self, data: Path, progress: Progress) -> Report:
        """See Suite.run."""
        present = [(part, data / name) for part in PARTS for name in part.files if (data / name).is_file()]
        if not present:
            listed = ", ".join(name for part in PARTS for name in part.files)
            raise ConfigError("holds no measurements of kernels", where=str(data), expected=f"one of {listed}")
        report = Report("compute")
        for number, (part, path) in enumerate(present):

            def share(fraction: float | None, what: str, number: int = number) -> None:
                progress(None if fraction is None else (number + fraction) / len(present), what)

            errors = enter(part.judge(path, report, share), part.metric, report)
            if errors:
                together = np.concatenate(errors)
                report.metrics[part.metric] = float(np.abs(together).mean())
                report.metrics[part.metric.replace("_mape", "_bias")] = float(together.mean())
        return report
