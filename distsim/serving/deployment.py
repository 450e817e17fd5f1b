"""One replica of a service: a model, a GPU, how the model is spread over GPUs, and the software that runs it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator

from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu
from distsim.hardware.gpu import gpu as gpu_named
from distsim.models.catalog import model as model_named
from distsim.models.spec import Model
from distsim.params import Parameters, validated
from distsim.serving.backends import Backend, backend_named
from distsim.serving.formats import Format, format_named


class Deployment(Parameters):
    """What one replica is. ``tp * dp * pp`` GPUs; the ``tp * dp`` of a stage hold its experts ``ep * moe_tp`` ways.

    Raises: ConfigError, in words, where the model cannot be spread like that. Whether it fits the memory is told by
    :func:`distsim.serving.kv.sizes.kv_blocks`.
    """

    model: str = Field(description="name or file, see distsim.models.catalog")
    gpu: str = Field(description="name or file, see distsim.hardware.gpu")
    tp: int = Field(1, ge=1, description="tensor parallel ranks of attention and dense layers")
    pp: int = Field(1, ge=1, description="pipeline stages")
    dp: int = Field(1, ge=1, description="attention data parallel ranks that step together")
    ep: int = Field(1, ge=1, description="expert parallel ranks")
    moe_tp: int = Field(0, ge=0, description="tensor parallel ranks of one expert; 0: tp * dp / ep")
    weights: str = Field("bf16", description="format of linear layers: bf16, fp8, fp8_block, nvfp4, mxfp4, int4")
    experts: str = Field("", description="format of experts; as weights where empty")
    kv_dtype: Literal["bf16", "fp8"] = "bf16"
    backend: str = Field("vllm", description="vllm, sglang or trtllm")
    cuda_graphs: bool = True
    overlap: bool = Field(True, description="the host prepares the next iteration while the GPU computes (async scheduling)")
    ep_imbalance: float = Field(1.0, ge=1.0, description="rows of the fullest expert-parallel rank over the mean")
    max_tokens: int = Field(0, ge=0, description="most new tokens of an iteration; 0: the backend's")
    block: int = Field(16, ge=1, description="tokens of a KV block")
    utilisation: float = Field(0.0, ge=0.0, le=1.0, description="share of GPU memory; 0: the backend's")

    @classmethod
    def of(cls, **options: Any) -> Deployment:
        """From options of any kind. Raises ConfigError, in words."""
        return validated(cls, "deployment", options)

    @model_validator(mode="after")
    def _consistent(self) -> Deployment:
        """Refuse what cannot be spread like that, and names that nobody knows."""
        model, _, _ = self.spec, self.device, self.software
        for name in (self.weights, self.experts or self.weights):
            format_named(name, where="deployment")
        where = f"{model.name}, tp={self.tp} pp={self.pp} dp={self.dp} ep={self.ep}"
        if model.heads % self.tp:
            fix = _divisors(model.heads)
            raise ConfigError(f"tp {self.tp} does not divide {model.heads} attention heads", where=where, fix=fix)
        if model.mla is None and self.tp % model.kv_heads and model.kv_heads % self.tp:
            raise ConfigError(f"tp {self.tp} and {model.kv_heads} key-value heads: neither divides the other", where=where)
        if self.pp > model.layers:
            raise ConfigError(f"pp {self.pp} for {model.layers} layers", where=where, expected=f"at most {model.layers}")
        if model.ffn_hidden % self.tp:
            raise ConfigError(f"tp {self.tp} does not divide the MLP's {model.ffn_hidden}", where=where)
        self._check_experts(model, where)
        return self

    def _check_experts(self, model: Model, where: str) -> None:
        moe = model.moe
        if moe is None:
            if self.ep > 1 or self.moe_tp > 1:
                raise ConfigError(f"{model.name} has no experts for ep={self.ep}, moe_tp={self.moe_tp}", where=where)
            return
        width = self.tp * self.dp
        if width % self.ep or self.expert_tp * self.ep != width:
            raise ConfigError(
                f"experts spread over ep {self.ep} x moe_tp {self.expert_tp} ranks, attention over tp {self.tp} x dp {self.dp}",
                where=where, expected="equal products",
            )  # fmt: skip
        if moe.experts % self.ep:
            raise ConfigError(f"ep {self.ep} does not divide {moe.experts} experts", where=where)
        if moe.ffn_hidden % self.expert_tp:
            raise ConfigError(f"moe_tp {self.expert_tp} does not divide an expert's {moe.ffn_hidden}", where=where)

    @property
    def spec(self) -> Model:
        """The model. Raises UnknownNameError, ConfigError."""
        return model_named(self.model)

    @property
    def device(self) -> Gpu:
        """The GPU. Raises UnknownNameError, ConfigError."""
        return gpu_named(self.gpu)

    @property
    def software(self) -> Backend:
        """The serving system, as it runs here: with overlap the GPU does not wait for the host. Raises UnknownNameError."""
        found = backend_named(self.backend)
        return replace(found, host=0.0, host_sequence=0.0) if self.overlap else found

    @property
    def linear(self) -> Format:
        """Format of the weights of linear layers that are not experts."""
        return format_named(self.weights)

    @property
    def expert_format(self) -> Format:
        """Format of the experts' weights."""
        return format_named(self.experts or self.weights)

    @property
    def expert_tp(self) -> int:
        """Tensor parallel ranks of one expert."""
        return self.moe_tp or max(1, self.tp * self.dp // self.ep)

    @property
    def ranks(self) -> int:
        """GPUs of the replica."""
        return self.tp * self.dp * self.pp

    @property
    def budget(self) -> int:
        """Most new tokens of an iteration."""
        return self.max_tokens or self.software.tokens

    @property
    def sequences(self) -> int:
        """Most sequences of an iteration. vLLM takes its 1024 where the GPU has 70 GiB or more and is no A100, else 256
        (``EngineArgs.get_batch_defaults``, vllm/engine/arg_utils.py)."""
        large = self.device.memory >= 70 * 2**30 and not self.device.name.startswith("a100")
        return self.software.sequences if large or self.backend != "vllm" else min(256, self.software.sequences)

    @property
    def block_tokens(self) -> int:
        """Tokens of a KV block."""
        return self.block

    def layers_of(self, stage: int) -> range:
        """Layers of a pipeline stage: even, the first stages one more (vLLM's get_pp_indices gives it to late ones)."""
        layers = self.spec.layers
        each, more = divmod(layers, self.pp)
        start = stage * each + min(stage, more)
        return range(start, start + each + (stage < more))


def _divisors(heads: int) -> str:
    return f"Choose one of {', '.join(str(n) for n in range(1, heads + 1) if heads % n == 0 and n <= 64)}."
