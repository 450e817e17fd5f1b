"""Collects the operations of one rank in order."""

from __future__ import annotations

from dataclasses import dataclass

from distsim.cost.kernel import WIDTH, Kernel, gemm, grouped_gemm, memory
from distsim.hardware.gpu import Gpu
from distsim.models.spec import Model
from distsim.serving.deployment import Deployment
from distsim.serving.formats import Format, format_named
from distsim.workload.training.operations import Operation

#: bytes of an activation
ACTIVATION = 2.0
PLAIN = format_named("bf16")


@dataclass(frozen=True, slots=True, eq=False)
class Rank:
    """A deployment with its names looked up, as one rank of a stage meets it."""

    deployment: Deployment
    model: Model
    gpu: Gpu
    linear: Format
    expert: Format

    @classmethod
    def of(cls, deployment: Deployment) -> Rank:
        """Looks the names up."""
        return cls(deployment, deployment.spec, deployment.device, deployment.linear, deployment.expert_format)

    @property
    def tp(self) -> int:
        return self.deployment.tp


class Writer:
    """Operations in program order."""

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.operations: list[Operation] = []

    def kernel(self, name: str, kind: str, kernel: Kernel, launches: int = 1) -> None:
        """Any kernel."""
        self.operations.append(Operation(name, kind, kernel, launches=launches))

    def gemm(self, name: str, m: int, n: int, k: int, weights: Format = PLAIN) -> None:
        """y (m, n) = x (m, k) W, W in ``weights``. x is quantised first where the products are narrower than bf16."""
        dtype = weights.computes(self.rank.gpu)
        if m < 1:
            return
        if WIDTH[dtype] >= ACTIVATION and weights.bytes < ACTIVATION:
            moved = weights.bytes * n * k + ACTIVATION * m * (n + k)
            self.kernel(name, "gemm", Kernel("weight_only_gemm", (1, m, n, k), dtype, 2.0 * m * n * k, moved))
            return
        self.kernel(name, "gemm", gemm(m, n, k, dtype), 1 if dtype == "bf16" else 2)

    def experts(self, name: str, groups: int, m: int, n: int, k: int, weights: Format) -> None:
        """``groups`` experts of m rows each, launched as one."""
        dtype = weights.computes(self.rank.gpu)
        if WIDTH[dtype] >= ACTIVATION and weights.bytes < ACTIVATION:
            moved = groups * (weights.bytes * n * k + ACTIVATION * m * (n + k))
            self.kernel(name, "experts", Kernel("weight_only_gemm", (groups, m, n, k), dtype, 2.0 * groups * m * n * k, moved))
            return
        self.kernel(name, "experts", grouped_gemm(groups, m, n, k, dtype), 1 if dtype == "bf16" else 2)

    def memory(self, name: str, moved: float, launches: int = 1) -> None:
        """A kernel that moves bytes."""
        self.kernel(name, "memory", memory(moved), launches)

    def exchange(self, name: str, group: str, operation: str, size: float) -> None:
        """A collective of ``size`` bytes (per-rank input), or a send."""
        self.operations.append(
            Operation(name, group, None, operation=operation, bytes=round(size), group=group, stream=group)
        )  # fmt: skip
