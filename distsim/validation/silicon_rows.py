"""Rows of measured serving points, and what is simulated for each: a deployment, a scheduler, clients.

Two makers of rows, told apart by the model. Dense models (and the Qwen mixture) were served as aiconfigurator generates them
(``rule_plugin/*.rule``, ``backends/trtllm.py`` and ``eval/benchmarks`` of ai-dynamo/aiconfigurator): ``max_batch_size`` + ISL +
1500 tokens an iteration, SGLang with mixed chunks from 0.5.6 on (before, the flag's name was not SGLang's) and no bound below
its chunks of 8192 (``--max-prefill-tokens`` is one only above the model's context length, says its help); 10 requests per
client of exactly ISL and OSL tokens. The others are InferenceX's (``benchmarks/``, SemiAnalysis): lengths even between 0.8 and
1 of ISL and OSL, 10 requests per client, default budgets.

Generated servers were measured in two ways, which the lengths tell apart. Powers of two: genai-perf, with more prompts than
requests (``genai_perf_runner.py``: 12 per client). Thousands: the generated ``bench_run.sh``, which is aiperf without
``--num-dataset-entries``: 100 different prompts (its default), shuffled anew when they have all been sent, after a warm-up of
two requests per client from the same ones. vLLM, whose prefix cache is on unless it is told otherwise, then finds most of
them; TensorRT-LLM's generated files say ``enable_block_reuse: false``. SGLang is taken to have been started with
``--disable-radix-cache``: its points take the time of computing all prompts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distsim.errors import ConfigError
from distsim.models.catalog import model as model_named
from distsim.models.spec import Model
from distsim.serving.deployment import Deployment

Row = Mapping[str, str]

#: columns of every row, and of aggregated ones
COLUMNS = (
    "id", "backend", "backend_version", "model_path", "system", "mode", "isl", "osl", "gemm_quant_mode", "moe_quant_mode",
    "batch_size", "tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size", "silicon_ttft_ms", "silicon_tpot_ms",
)  # fmt: skip
_FORMATS = {"": "bf16", "fp8": "fp8", "fp8_block": "fp8_block", "nvfp4": "nvfp4", "int4_wo": "int4"}
#: formats of experts that leave the other linear layers in bf16: NVIDIA's NVFP4 and Moonshot's INT4 checkpoints of mixtures
#: (their ``quantization_config`` ignores attention), and OpenAI's MXFP4 (model card of gpt-oss)
_EXPERTS_ONLY = ("nvfp4", "int4")
#: versions of SGLang from which generated servers mix chunks of prompts with generation
_MIXED = (0, 5, 6)
#: versions of vLLM from which the host works ahead by default (release notes of 0.14)
_ASYNC = (0, 14)
#: tokens beside the prompt that a generated server leaves room for in an iteration
_ROOM = 1500
#: versions of TensorRT-LLM from which generated files give the KV cache 0.9 of the free memory; 0.8 before
#: (``extra_engine_args.*.yaml.j2``)
_GENEROUS, _SHARE = (1, 2), 0.8
#: shortest length over the nominal in InferenceX's runs
RANGE = 0.8
#: different prompts that aiperf draws from (``InputDefaults.NUM_DATASET_ENTRIES``); what the ISL of its runs is a multiple of
_PROMPTS, _THOUSANDS = 100, 1000


@dataclass(frozen=True, slots=True)
class Stage:
    """One pool of a disaggregated row: so many workers, with so many requests each."""

    deployment: Deployment
    workers: int
    batch: int


@dataclass(frozen=True, slots=True)
class Case:
    """What one row says, ready to be simulated.

    clients: of one attention data parallel rank. shortest: least length over the nominal. prompts: so many different ones are
    sent again and again, where the server can find them cached; 0: all are different, or computed anyway.
    """

    deployment: Deployment
    scheduler: str
    clients: int
    isl: int
    osl: int
    shortest: float
    prefill: Stage | None = None
    decode: Stage | None = None
    prompts: int = 0


def dense(row: Row) -> bool:
    """Whether the row's model has no experts. Raises UnknownNameError."""
    return _model(row).moe is None


def case_of(row: Row) -> Case:
    """Raises ConfigError (UnknownNameError among them) where the row cannot be expressed."""
    if row["mode"] == "disagg":
        return _apart(row)
    model = _model(row)
    isl, osl, clients = _whole(row, "isl"), _whole(row, "osl"), _whole(row, "batch_size")
    generated = _generated(model)
    deployment = _deployment(row, model, "")
    _check_identifier(row, deployment)
    again = generated and row["backend"] == "vllm" and isl % _THOUSANDS == 0
    return Case(
        deployment, _scheduler(row, generated, isl, clients, again), clients, isl, osl, 1.0 if generated else RANGE,
        prompts=_PROMPTS if again else 0,
    )  # fmt: skip


def _apart(row: Row) -> Case:
    """A disaggregated row."""
    missing = [name for name in ("prefill_num_workers", "decode_num_workers", "decode_batch_size") if not row.get(name)]
    if missing:
        raise ConfigError("disaggregated without its numbers of workers and their batches")
    model = _model(row)
    prefill, decode = (
        Stage(_deployment(row, model, f"{role}_"), _whole(row, f"{role}_num_workers"), _whole(row, f"{role}_batch_size"))
        for role in ("prefill", "decode")
    )
    clients = decode.workers * decode.batch * decode.deployment.dp
    return Case(decode.deployment, "", clients, _whole(row, "isl"), _whole(row, "osl"), 1.0, prefill, decode)


def _model(row: Row) -> Model:
    return model_named(row["model_path"])


def _generated(model: Model) -> bool:
    """Whether rows of the model are aiconfigurator's."""
    return model.moe is None or "qwen" in model.name


def _deployment(row: Row, model: Model, role: str) -> Deployment:
    linear = _format(row, "gemm_quant_mode")
    experts = _format(row, "moe_quant_mode") if model.moe is not None else linear
    backend = row["backend"]
    if model.name.startswith("gpt-oss") and experts == "nvfp4":
        experts = "mxfp4"
    if model.moe is not None and (linear in _EXPERTS_ONLY or experts == "mxfp4"):
        linear = "bf16"
    # NOTE: generated servers of TensorRT-LLM keep the cache in fp8 where the weights are; vLLM's and SGLang's default is bf16
    cache = "fp8" if backend == "trtllm" and _FORMATS.get(row["gemm_quant_mode"]) != "bf16" else "bf16"
    ranks = {name: _whole(row, f"{role}{column}", 1) for name, column in (
        ("tp", "tp_size"), ("pp", "pp_size"), ("dp", "attention_dp_size"), ("moe_tp", "moe_tp_size"), ("ep", "moe_ep_size"),
    )}  # fmt: skip
    if model.moe is None:
        ranks["moe_tp"] = ranks["ep"] = 1
    early = backend == "trtllm" and _generated(model) and _version(row) < _GENEROUS
    return Deployment.of(
        model=model.name, gpu=row["system"], weights=linear, experts=experts, kv_dtype=cache, backend=backend,
        overlap=not (backend == "vllm" and _version(row) < _ASYNC), utilisation=_SHARE if early else 0.0, **ranks,
    )  # fmt: skip


def _scheduler(row: Row, generated: bool, isl: int, clients: int, again: bool) -> str:
    """The batching policy as the row's server was started."""
    backend = row["backend"]
    if backend == "trtllm":
        budget = clients + isl + _ROOM if generated else max(8192, isl + clients)
        return f"trtllm:max_batch_size={clients},max_num_tokens={budget}"
    if backend == "vllm":
        ahead = str(_version(row) >= _ASYNC).lower()
        budget = clients + isl + _ROOM if generated else 8192
        caching = str(again).lower()
        seats = max(clients, 256)
        return f"vllm_v1:ahead={ahead},max_num_seqs={seats},max_num_batched_tokens={budget},prefix_caching={caching}"
    if generated:
        mixed = "true" if _version(row) >= _MIXED else "false"
        return f"sglang_async:max_num_seqs={clients},mixed={mixed},prefix_caching=false"
    return f"sglang_async:max_num_seqs={max(clients, 256)},prefix_caching=false"


def _check_identifier(row: Row, deployment: Deployment) -> None:
    """A row whose name says another parallelism than its columns was recorded wrongly; nobody can tell which is right."""
    said = re.search(r"_tp(\d+)(?:_\d+)?_ep(\d+)", row["id"])
    if said and (int(said[1]) != deployment.tp * deployment.dp or int(said[2]) != deployment.ep):
        raise ConfigError("its identifier names another parallelism than its columns")


def _format(row: Row, column: str) -> str:
    found = _FORMATS.get(row[column])
    if found is None:
        raise ConfigError(f"{column} {row[column]!r} is not known")
    return found


def _version(row: Row) -> tuple[int, ...]:
    """Numbers of the version; a nightly or empty one is newer than all."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", row["backend_version"])
    return tuple(int(part) for part in found.groups()) if found else (1 << 30,)


def _whole(row: Row, column: str, absent: int = 0) -> int:
    """A whole number; 0 and nothing mean ``absent``."""
    text: Any = row.get(column) or ""
    try:
        value = float(text) if text else 0.0
    except ValueError:
        raise ConfigError(f"{column} is {text!r}", expected="a number") from None
    found = int(value) or absent
    if found < 1 or value != int(value):
        raise ConfigError(f"{column} is {text or 'empty'}", expected="a whole number from 1 on")
    return found
