"""The plan: how a model is spread over ranks and how a step runs. What a user chooses, and what a sweep varies."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distsim.errors import ConfigError, UnknownNameError
from distsim.models.spec import Model

#: precision -> (dtype of the big GEMMs, dtype of everything else); mx and nv: 32- and 16-wide scaled formats
PRECISIONS = {
    "fp32": ("fp32", "fp32"), "tf32": ("tf32", "fp32"), "fp16": ("fp16", "fp16"), "bf16": ("bf16", "bf16"),
    "fp8": ("fp8", "bf16"), "mxfp8": ("fp8", "bf16"), "nvfp4": ("fp4", "bf16"),
}  # fmt: skip

#: a plan beyond these is a slip of the keyboard: nobody has such a cluster, or waits for such a step
MOST_RANKS = 4_000_000
MOST_BLOCKS = 4_000_000


class Plan(BaseModel):
    """A parallelism plan. Ranks are numbered with tp fastest, then cp, dp, pp (Megatron's order); ep lies inside dp * cp.

    ``world`` = tp * cp * dp * pp; dp counts data-parallel replicas (expert parallelism takes its ranks among them).
    None means: as the stack (the software) does it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tp: int = Field(1, ge=1, description="tensor parallel")
    pp: int = Field(1, ge=1, description="pipeline stages")
    dp: int = Field(1, ge=1, description="data-parallel replicas (train: all that is left of the cluster)")
    cp: int = Field(1, ge=1, description="context parallel")
    ep: int = Field(1, ge=1, description="expert parallel: ranks that share out the experts, within dp * cp * tp / etp")
    etp: int = Field(1, ge=1, description="tensor parallel inside experts")
    vpp: int = Field(1, ge=1, description="virtual stages (model chunks) per rank")
    micro_batch: int = Field(1, ge=1, description="sequences per micro-batch and replica")
    global_batch: int = Field(1, ge=1, description="sequences per step (train: 4 x pp micro-batches per replica)")
    seq: int = Field(2048, ge=1, description="tokens per sequence (train: the model's usual length)")
    precision: Literal["fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4"] = "bf16"
    schedule: str = Field("", description="pipeline schedule; default 1f1b, interleaved where vpp > 1")
    layers_per_stage: tuple[int, ...] | None = Field(None, description="uneven: layers of every (virtual) stage in order")
    recompute: Literal["none", "selective", "full"] = "none"
    sequence_parallel: bool = Field(False, description="norms and residuals split over tp as well (train: where tp > 1)")
    zero: int = Field(0, ge=0, le=3, description="ZeRO: 1 optimizer (train's default), 2 and gradients, 3 and weights (FSDP)")
    reshard: bool = Field(True, description="zero 3: drop gathered weights after the forward pass")
    prefetch: int = Field(1, ge=0, description="zero 3: layers gathered ahead")
    shard_group: int = Field(0, ge=0, description="zero: ranks that share a copy (HSDP); 0: all of dp * cp")
    bucket_bytes: int = Field(0, ge=0, description="gradient bucket; 0: the stack's")
    overlap_grad_reduce: bool | None = None
    overlap_param_gather: bool | None = None
    overlap_p2p: bool | None = None
    tp_overlap: bool | None = Field(None, description="asynchronous (pipelined) tensor parallelism")
    cp_mode: Literal["ring", "all_gather"] = "ring"
    ep_overlap: bool | None = Field(None, description="expert all-to-all behind computation")
    ep_imbalance: float = Field(1.0, ge=1.0, allow_inf_nan=False, description="tokens of the fullest expert rank over the mean")
    capacity: float = Field(0.0, ge=0.0, allow_inf_nan=False, description="capacity factor of experts; 0: dropless")
    cuda_graphs: bool | None = None
    grad_dtype: Literal["fp32", "bf16"] | None = None
    clip: bool = Field(True, description="clip gradients by their global norm")

    @property
    def world(self) -> int:
        """Ranks."""
        return self.tp * self.cp * self.dp * self.pp

    @property
    def micro_batches(self) -> int:
        """Micro-batches per replica and step."""
        return self.global_batch // (self.micro_batch * self.dp)

    @property
    def chunks(self) -> int:
        """Virtual stages in all."""
        return self.pp * self.vpp

    @property
    def pipeline(self) -> str:
        """Name of the pipeline schedule."""
        return self.schedule or ("interleaved" if self.vpp > 1 else "1f1b")

    @property
    def dtypes(self) -> tuple[str, str]:
        """(dtype of the big GEMMs, dtype of activations and messages)."""
        return PRECISIONS[self.precision]

    @property
    def expert_dp(self) -> int:
        """Copies of every expert."""
        return self.tp * self.cp * self.dp // (self.ep * self.etp)

    def stage_layers(self, model: Model) -> tuple[int, ...]:
        """Layers of every virtual stage, in model order (stage s of chunk v is number v * pp + s).

        What does not divide goes one layer each to the middle stages, so that first and last, which hold embedding and
        head, stay light.
        """
        if self.layers_per_stage is not None:
            return self.layers_per_stage
        n = self.chunks
        each, more = divmod(model.layers, n)
        first = (n - more) // 2
        return tuple(each + (first <= i < first + more) for i in range(n))

    def check(self, model: Model) -> None:
        """Raise ConfigError with the first constraint that the plan breaks on this model, and how to mend it."""
        rules = (
            (self.world <= MOST_RANKS, f"{self.world:,} ranks are more than {MOST_RANKS:,}"),
            (self.chunks * max(1, self.global_batch // (self.micro_batch * self.dp)) <= MOST_BLOCKS,
             f"{self.micro_batches:,} micro-batches on {self.chunks:,} virtual stages are more than {MOST_BLOCKS:,} blocks"),
            (model.heads % self.tp == 0, f"tp {self.tp} does not divide {model.heads} attention heads"),
            (self.global_batch % (self.micro_batch * self.dp) == 0,
             f"global batch {self.global_batch} is no multiple of micro batch {self.micro_batch} x dp {self.dp}"),
            (self.seq % (self.cp * (2 if self.cp > 1 else 1)) == 0,
             f"sequence {self.seq} is no multiple of 2 x cp {self.cp}"),
            (not self.sequence_parallel or self.seq % (self.tp * self.cp) == 0,
             f"sequence parallelism splits {self.seq} tokens over tp {self.tp} x cp {self.cp}"),
            (self.chunks <= model.layers, f"pp {self.pp} x vpp {self.vpp} is more than {model.layers} layers"),
            (self.vpp == 1 or self.pp > 1, "vpp needs a pipeline (pp > 1)"),
            (self.ep == 1 or model.moe is not None, f"{model.name} has no experts to spread (ep {self.ep})"),
            (self.etp == 1 or model.moe is not None, f"{model.name} has no experts to split (etp {self.etp})"),
            (model.moe is None or model.moe.experts % self.ep == 0,
             f"ep {self.ep} does not divide {model.moe.experts if model.moe else 0} experts"),
            (self.tp * self.cp * self.dp % (self.ep * self.etp) == 0,
             f"ep {self.ep} x etp {self.etp} does not divide tp x cp x dp = {self.tp * self.cp * self.dp}"),
            (self.layers_per_stage is None
             or (len(self.layers_per_stage) == self.chunks and sum(self.layers_per_stage) == model.layers
                 and min(self.layers_per_stage) >= 0),
             f"layers_per_stage must be {self.chunks} numbers, 0 or more, that add up to {model.layers}"),
            (self.shard_group == 0 or (self.dp * self.cp) % self.shard_group == 0,
             f"shard_group {self.shard_group} does not divide dp x cp = {self.dp * self.cp}"),
        )  # fmt: skip
        for holds, wrong in rules:
            if not holds:
                raise ConfigError(wrong, where="plan")


def plan(**options: object) -> Plan:
    """A Plan, or one error that names the first thing wrong with it. Raises ConfigError, UnknownNameError."""
    try:
        return Plan(**options)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UnknownNameError("plan option", name, Plan.model_fields) from None
        raise ConfigError(f"{name} is {first['input']!r}: {first['msg']}", where="plan") from None
