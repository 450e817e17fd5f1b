"""Fit the two scalars per GPU generation that distsim/nccl/constants.py carries.

  python scripts/fit_nccl_defaults.py ../shared/reference/nccl/nccl_measured.csv.gz

Least mean relative error over all single-node NVSwitch rows of a generation (impl NCCL, use yes; all_reduce, all_gather,
reduce_scatter; 1 KiB to 512 MiB), all systems of the generation together. Prints the scalars, the error with them, and whether
constants.py says the same.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from distsim.nccl.constants import GENERATIONS
from distsim.nccl.fit import Sample
from distsim.nccl.model import chosen
from distsim.nccl.shape import shape
from distsim.validation.nccl import judged_samples

_ROUNDS = 60
_NOISE = 0.02  # residuals below are not told apart, as in distsim.nccl.fit


def parts_of(sample: Sample) -> tuple[float, float]:
    """What ``latency`` and what ``transfer`` multiply, in us."""
    at = chosen(sample.operation, sample.size, sample.system)
    base, intra, _, transfer, ramp = shape(sample.operation, at.algorithm, at.protocol, sample.size, sample.system).parts()
    return base + intra, transfer + ramp


def scalars_of(samples: list[Sample]) -> tuple[np.ndarray, float]:
    """The two scalars and the mean relative error that they leave."""
    columns = np.array([parts_of(one) for one in samples]) / np.array([one.time_us for one in samples])[:, None]
    weights = np.ones(len(columns))
    for _ in range(_ROUNDS):
        scaled = columns * weights[:, None]
        found = np.linalg.solve(scaled.T @ columns, scaled.sum(axis=0))
        weights = 1 / np.maximum(np.abs(columns @ found - 1), _NOISE)
    return found, float(np.abs(columns @ found - 1).mean())


def main(path: str) -> int:
    """Print the scalars of every generation that the file has rows of."""
    generations: dict[str, list[Sample]] = defaultdict(list)
    for sample in judged_samples(Path(path)):
        if sample.system.nodes == 1:
            generations[sample.system.kind.generation].append(sample)
    same = True
    for name, samples in sorted(generations.items()):
        (latency, transfer), error = scalars_of(samples)
        held = GENERATIONS[name]
        agrees = abs(held.latency - latency) < 2e-3 and abs(held.transfer - transfer) < 2e-3
        same &= agrees
        print(
            f"{name}: latency {latency:.3f}, transfer {transfer:.3f}; {len(samples)} rows, mean error {100 * error:.1f} %; "
            + ("as in constants.py" if agrees else f"constants.py says {held.latency}, {held.transfer}")
        )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
