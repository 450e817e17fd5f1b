"""Rows of published training measurements as (Model, Plan, Gpu, stack): what the columns say, and what has to be assumed.

A row is a mapping of column names to text (``csv.DictReader``); columns as in docs/training.md. What a row leaves open is
filled in by a rule that is the same for all rows of its kind, and every use of such a rule is told in ``assumptions``. Rules
never look at the measured value. What cannot be expressed raises ConfigError with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import ValidationError

from distsim.errors import ConfigError
from distsim.hardware.gpu import Gpu, gpu, gpus
from distsim.models.spec import Mla, Model, Moe
from distsim.workload.training.plan import Plan, plan

Row = Mapping[str, str]


class Case(NamedTuple):
    """A row that is expressed. assumptions: what the row leaves unsaid, and how it was filled in."""

    model: Model
    plan: Plan
    gpu: Gpu
    stack: str
    assumptions: tuple[str, ...]


#: head sizes that are not hidden / heads, from the models' Hugging Face config.json
_HEAD_DIM = {"qwen3": 128, "gptoss": 64}
#: (micro batch, layers per virtual stage) of SC21's table 1: Megatron-LM, examples/sc21/run_table_1.sh, by layers x hidden
_SC21 = {
    (24, 2304): (16, 0), (30, 3072): (16, 0), (36, 4096): (16, 0), (40, 6144): (8, 0), (48, 8192): (4, 0), (60, 10240): (2, 5),
    (80, 12288): (2, 5), (96, 16384): (1, 3), (105, 20480): (1, 1), (128, 25600): (1, 0),
}  # fmt: skip
#: first words of ``source`` of the rows of family megatron-dense, and the software that they ran
_DENSE_STACKS = (
    ("Narayanan", "megatron_lm_2021"), ("Megatron-LM README", "megatron_lm_2021"), ("Korthikanti", "megatron_lm_2022"),
    ("Megatron-Core", "megatron_core"), ("Llama 3", "llama3"), ("MLPerf", "mlperf"), ("MegaScale", "megatron_lm_2022"),
)  # fmt: skip
_FAMILY_STACKS = {
    "zero3": "zero3_2021", "megatron-llama": "megatron_llama",
    "automodel": "nemo_automodel", "llm-foundry": "llm_foundry", "simumax-b200": "megatron_core_simumax",
    "bigscience": "deepspeed_megatron", "vtrain-multi": "megatron_deepspeed_plain", "vtrain-single": "megatron_deepspeed_plain",
}  # fmt: skip
#: releases of NVIDIA's NeMo container, newest first, and the software that they hold
_BRIDGE_STACKS = (("26.05", "megatron_bridge_2606"), ("26.01", "megatron_bridge"), ("00.00", "megatron_bridge_2025"))
#: recomputation where a row is silent, by stack, and why
_RECOMPUTE = {
    "megascale": ("selective", "assumed"),
    "megatron_lm_2022": ("selective", "assumed"),
    "nemo_automodel": ("full", "as in NeMo AutoModel's benchmark configurations (activation_checkpointing: true)"),
}
#: from this line on (section "Rebalancing layers") BigScience's chronicle uses the BF16 optimizer, which accumulates in fp32
_BF16_LINE = 895
#: family -> what its software's published script sets, where rows leave it out, and that script
_SCRIPTS = {
    "megatron-llama": (
        {"tp": "2", "pp": "1", "micro_batch": "4", "global_batch": "2048", "recompute": "selective", "sequence_parallel": "yes",
         "precision": "bf16"},
        "Megatron-LLaMA's examples/LLaMA/LLaMA_13_slurm.sh",
    ),
}  # fmt: skip
#: most virtual stages assumed (NeMo and Megatron-Bridge recipes of dense models stay at or below it)
_MOST_VIRTUAL = 8


def family_of(row: Row) -> str:
    """The row's family; ``vtrain-single`` where the table has no such column."""
    return row.get("family") or "vtrain-single"


def case_of(row: Row) -> Case:
    """The whole row. Raises ConfigError with the reason where it cannot be expressed."""
    notes: list[str] = []
    row = _scripted(row, notes)
    model, made = _model(row, notes), _plan(row, notes)
    made = _uneven(row, model, made, notes)
    made.check(model)
    return Case(model, made, gpu_of(row), stack_of(row), tuple(notes))


def _scripted(row: Row, notes: list[str]) -> Row:
    """The row with what its software's published script says in place of what it leaves out."""
    found = _SCRIPTS.get(family_of(row))
    missing = {key: value for key, value in found[0].items() if not row.get(key)} if found else {}
    if found and missing:
        notes.append(f"{', '.join(f'{key} {value}' for key, value in missing.items())}: as in {found[1]}")
    return {**row, **missing}


def model_of(row: Row) -> Model:
    """The model's shape. Raises ConfigError where the row does not give it."""
    return _model(row, [])


def plan_of(row: Row) -> Plan:
    """The parallelism plan. Raises ConfigError where too little is said, or what is said contradicts itself."""
    return case_of(row).plan


def gpu_of(row: Row) -> Gpu:
    """The GPU; a variant that is described by its figures (``H100-96G HBM2e 2.4TB/s 500W``) gets those. Raises ConfigError."""
    text = re.sub(r"\(.*?\)", "", row["gpu"]).strip()
    words = re.split(r"[\s_-]+", text)
    family, memory = words[0].lower(), _found(r"\b(\d+) ?GB?\b", text)
    known = gpus()
    aliases = {alias: one for one in known.values() for alias in (*one.aliases, one.name)}
    exact = aliases.get("_".join(words).lower()) or aliases.get(f"{family}_{memory}g") or aliases.get(f"{family}_{memory}gb")
    base = exact or aliases.get(family) or gpu(family, where=f"row {row.get('id', '?')}")
    if exact:
        return exact
    said: dict[str, object] = {}
    if memory:
        said["memory"] = int(memory) << 30
    if speed := re.search(r"([\d.]+) ?TB/s", text):
        said["memory_bandwidth"] = float(speed.group(1)) * 1e12
    if power := re.search(r"\b(\d+) ?W\b", text):
        said["power"] = float(power.group(1))
    return base.model_copy(update={**said, "name": text.lower().replace(" ", "_").replace("/", "")}) if said else base


def memory_kind_of(row: Row) -> str:
    """What the row's ``memory_gib`` is: allocated (torch's max_memory_allocated), reserved (max_memory_reserved) or device
    (nvidia-smi)."""
    return {"simumax-b200": "allocated", "torchtitan": "reserved"}.get(family_of(row), "device")


def stack_of(row: Row) -> str:
    """Name of the software stack that the row ran."""
    family, source = family_of(row), row.get("source", "")
    if family == "torchtitan":
        if "compile" not in row.get("aux", "") + row.get("notes", ""):
            return "torchtitan_eager"
        return "torchtitan_compile_2025" if int(float(row.get("year") or 2024)) >= 2025 else "torchtitan_compile"
    if family == "megascale":
        return "megatron_lm_2022" if "(Megatron-LM)" in source else "megascale"
    if family == "megatron-bridge":
        release = _found(r"\b(\d\d\.\d\d)(?:\.\d+)? NeMo", source) or "26.02"
        return next(name for since, name in _BRIDGE_STACKS if release >= since)
    if family in _FAMILY_STACKS:
        return _FAMILY_STACKS[family]
    for start, name in _DENSE_STACKS:
        if source.startswith(start):
            return name
    if "DeepSpeed" in source:
        return "deepspeed_megatron"
    return "megatron_lm_2021" if int(row.get("year") or 2024) <= 2021 else "megatron_core"


def _model(row: Row, notes: list[str]) -> Model:
    where = f"row {row.get('id', '?')}"
    name, text = row["model"].strip(), row.get("notes", "")
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if not row.get("layers") or not row.get("hidden"):
        raise ConfigError(f"the shape of {name} is not given", where=where, expected="layers, hidden, heads, ffn_hidden, vocab")
    layers, hidden, ffn = _int(row, "layers", where), _int(row, "hidden", where), _int(row, "ffn_hidden", where)
    vocab = _int(row, "vocab", where)
    if row.get("heads"):
        heads = _int(row, "heads", where)
    else:
        heads = _usual_heads(hidden)
        notes.append(f"heads unstated: {heads} assumed")
    kv_heads = int(float(row.get("kv_heads") or heads))
    head_dim = next((size for key, size in _HEAD_DIM.items() if plain.startswith(key)), 0)
    if not head_dim and hidden % heads:
        raise ConfigError(f"{heads} heads do not divide hidden size {hidden}", where=where)
    experts = int(float(row.get("experts") or 0))
    mla = _mla(text)
    # NOTE: the GPT of 2020-22 and MPT have two matrices of 4h, biases and a tied head; what came after Llama has none of these
    gpt = not experts and ffn == 4 * hidden and kv_heads == heads and "llama" not in plain
    moe = None
    if experts:
        dense = _dense(text)
        expert_ffn, ffn = ffn, dense[0] or ffn
        if dense[1] > layers:
            raise ConfigError(f"{dense[1]} dense layers of {layers}", where=where)
        shared = _found(r"shared (\d+)", text)
        moe = Moe.model_validate({"experts": experts, "topk": _int(row, "topk", where), "ffn_hidden": expert_ffn,
                                  "shared_ffn_hidden": int(shared or 0), "dense_layers": dense[1]})  # fmt: skip
    seq = _int(row, "seq_len", where)
    oss = plain.startswith("gptoss")
    shape = dict(
        name=name, source=row.get("source", ""), layers=layers, hidden=hidden, heads=heads, kv_heads=kv_heads,
        head_dim=head_dim or (mla.v if mla else hidden // heads), ffn_hidden=ffn, vocab=vocab, seq=seq, gated=not gpt,
        # NOTE: Megatron-Core's weak-scaling table counts the head apart (7.1B: 30 layers of 4096 and twice 131072 x 4096)
        tied=gpt and stack_of(row) != "megatron_core",
        norm="layernorm" if gpt else "rmsnorm", positions="learned" if gpt else "rope", bias=gpt or oss,
        qk_norm=plain.startswith("qwen3"), window=128 if oss else 0, window_every=2 if oss else 1, mla=mla, moe=moe,
        mtp=_mtp(row, plain, notes),
    )  # fmt: skip
    try:
        return Model.model_validate(shape)
    except ValidationError as error:
        raise ConfigError(f"not a model: {error.errors()[0]['msg']}", where=where) from None


def _mla(text: str) -> Mla | None:
    ranks = {key: _found(rf"\b{key}(\d+)", text) for key in ("q_lora", "kv_lora", "nope", "rope", "v")}
    if "MLA" not in text or not all(ranks[key] for key in ("kv_lora", "nope", "rope", "v")):
        return None
    return Mla(**{key: int(value or 0) for key, value in ranks.items()})


def _dense(text: str) -> tuple[int, int]:
    """(ffn_hidden of dense layers, how many come first); 0, 0 where all layers are sparse. ``dense_layers=1`` overrides."""
    said = re.search(r"dense ffn (\d+) x(\d+) layer", text)
    count = _found(r"dense_layers=(\d+)", text)
    return (int(said.group(1)), int(count or said.group(2))) if said else (0, int(count or 0))


def _mtp(row: Row, plain: str, notes: list[str]) -> int:
    """Megatron-Bridge's DeepSeek-V3 recipe trains one multi-token-prediction layer unless the row says that it does not."""
    if family_of(row) != "megatron-bridge" or not plain.startswith("deepseekv3") or "womtp" in plain:
        return 0
    if "wmtp" not in plain:
        notes.append("one multi-token-prediction layer, as in Megatron-Bridge's recipe")
    return 1


def _usual_heads(hidden: int) -> int:
    """Heads where a row of BigScience leaves them out: 64 (its rows that repeat a run with heads stated have 64 most often)."""
    return 64 if hidden % 64 == 0 else hidden // 128


def _plan(row: Row, notes: list[str]) -> Plan:
    where = f"row {row.get('id', '?')}"
    degree = {name: int(float(row[name])) if row.get(name) else 0 for name in ("dp", "tp", "pp", "cp", "ep", "vpp")}
    world = int(float(row.get("n_gpus") or 0))
    stack = stack_of(row)
    if not degree["pp"] and stack == "megatron_core" and row.get("layers") == "96":
        degree["pp"] = 6
        notes.append("pp unstated: 6, that of the same model in the weak-scaling table")
    for name in ("tp", "pp"):
        if not degree[name] and not row.get("micro_batch"):
            raise ConfigError(f"{name} and the batch are not given", where=where, expected="a full parallelism plan")
    tp, pp, cp, ep = (max(1, degree[name]) for name in ("tp", "pp", "cp", "ep"))
    dp = degree["dp"] or world // (tp * pp * cp)
    if world and dp * tp * pp * cp != world:
        raise ConfigError(f"tp {tp} x pp {pp} x cp {cp} x dp {dp} is not {world} GPUs", where=where)
    if not row.get("global_batch"):
        raise ConfigError("the global batch is not given", where=where)
    micro, vpp = _micro_batch_and_vpp(row, degree["vpp"], pp, notes)
    batch = _int(row, "global_batch", where)
    micro = _divisor(batch, micro, dp, notes)
    zero, group = _zero(row, dp, cp, notes)
    if row.get("recompute"):
        recompute = row["recompute"]
    else:
        recompute, why = _RECOMPUTE.get(stack, ("none", "assumed"))
        notes.append(f"recompute unstated: {recompute}, {why}")
    precision = _precision(row, notes)
    sequence = row["sequence_parallel"] == "yes" if row.get("sequence_parallel") else tp > 1
    if not row.get("sequence_parallel") and tp > 1:
        notes.append("sequence parallelism unstated: on, as tp > 1")
    line = _found(r"chronicles-prequel\.md line (\d+)", row.get("provenance", ""))
    fp32_gradients = family_of(row) == "bigscience" and int(line or 0) >= _BF16_LINE
    if fp32_gradients:
        precision = "bf16"
        notes.append("BF16 optimizer with fp32 gradients, as the chronicle says of this part")
    # NOTE: Megatron-LLaMA compares its optimizer with Megatron-LM's of 2023, which overlaps nothing
    overlap = False if (row.get("notes") or "") == "DistributedOptimizer" else None
    said = " ".join((row.get("aux") or "", row.get("notes") or "", row.get("model") or ""))
    return plan(
        tp=tp, pp=pp, dp=dp, cp=cp, ep=ep, vpp=vpp, micro_batch=micro, global_batch=batch, seq=_int(row, "seq_len", where),
        precision=precision, recompute=recompute, sequence_parallel=sequence and tp > 1, zero=zero, shard_group=group,
        # NOTE: weights gathered for a pipeline's first micro-batch stay for all (AutoModel: reshard_after_forward: false)
        reshard=zero == 3 and (pp == 1 or stack != "nemo_automodel"), capacity=1.0 if "tokendrop" in row["model"] else 0.0,
        overlap_grad_reduce=overlap, overlap_param_gather=overlap,
        tp_overlap=True if re.search(r"async[ _-]?TP", said, re.IGNORECASE) else None,
        grad_dtype="fp32" if fp32_gradients else "bf16" if "mp_mode=PURE" in row.get("aux", "") else None,
    )  # fmt: skip


def _micro_batch_and_vpp(row: Row, vpp: int, pp: int, notes: list[str]) -> tuple[int, int]:
    """Micro-batch and virtual stages, with the software's published scripts or usual settings where the row is silent."""
    micro = int(float(row["micro_batch"])) if row.get("micro_batch") else 0
    layers = int(row["layers"]) if row.get("layers") else 0
    source = row.get("source", "")
    if "Table 1" in source and source.startswith("Narayanan"):
        script = _SC21.get((layers, int(row["hidden"])))
        if script and not (micro and vpp):
            notes.append("micro-batch and vpp of Megatron-LM's examples/sc21/run_table_1.sh")
            micro, vpp = micro or script[0], vpp or (layers // pp // script[1] if script[1] and pp > 1 else 1)
    elif source.startswith("Megatron-LM README") and not micro:
        script = _SC21.get((layers, int(row["hidden"])), (1, 0))
        notes.append(f"micro-batch unstated: {script[0]}, that of the same shape in SC21's scripts")
        micro = script[0]
    if not micro:
        micro = 4 if stack_of(row) == "megatron_core" and pp == 1 else 1
        notes.append(f"micro-batch unstated: {micro} assumed" + (", as nothing needs more of them" if micro > 1 else ""))
    if not vpp:
        if pp > 1 and not source.startswith("Narayanan"):
            each = -(-layers // pp)
            vpp = max(size for size in range(1, _MOST_VIRTUAL + 1) if each % size == 0 and pp * size <= layers)
        vpp = vpp or 1
        if pp > 1:
            notes.append(f"vpp unstated: {vpp} assumed")
    return micro, vpp


def _divisor(batch: int, micro: int, dp: int, notes: list[str]) -> int:
    """The micro-batch, made smaller where the global batch is no multiple of it (an uneven last micro-batch)."""
    if batch % dp:
        raise ConfigError(f"global batch {batch} is no multiple of dp {dp}", where="row")
    fits = max(size for size in range(1, min(micro, batch // dp) + 1) if (batch // dp) % size == 0)
    if fits != micro:
        notes.append(f"micro-batch {micro} does not divide {batch // dp} sequences per replica: {fits} used")
    return fits


def _zero(row: Row, dp: int, cp: int, notes: list[str]) -> tuple[int, int]:
    """(ZeRO stage, ranks of a shard group; 0 for all)."""
    text, replicas = row.get("zero_stage", "").strip(), dp * cp
    if text.isdigit():
        if text == "0" and family_of(row) == "torchtitan" and replicas > 1:
            # NOTE: torchtitan's FSDP mesh is dp_shard x cp: with dp 1 weights are still sharded over cp
            notes.append("weights sharded over cp: torchtitan's FSDP mesh is dp x cp")
            return 3, 0
        return int(text), 0
    if "not resharded" in text:
        return 2, 0
    if text.upper().startswith("FSDP"):
        size = int(_found(r"FSDP2? (\d+)", text) or 0)
        # NOTE: FSDP shards over dp x cp, and tables say dp
        return 3, size if 0 < size < dp and dp % size == 0 else 0
    if text:
        raise ConfigError(f"zero_stage {text!r} is not understood", where=f"row {row.get('id', '?')}")
    notes.append("ZeRO stage unstated: 1 assumed")
    return 1, 0


def _precision(row: Row, notes: list[str]) -> str:
    text = row.get("precision", "").lower()
    if not text:
        notes.append("precision unstated: bf16 assumed")
        return "bf16"
    if text == "fp8-cs (fp8-mx)":
        notes.append("one row for two FP8 recipes: current scaling assumed")
        return "fp8"
    for key, name in (("nvfp4", "nvfp4"), ("mxfp8", "mxfp8"), ("fp8-mx", "mxfp8"), ("fp8", "fp8"), ("fp16", "fp16"),
                      ("bf16", "bf16"), ("tf32", "tf32"), ("fp32", "fp32")):  # fmt: skip
        if key in text:
            return name
    raise ConfigError(f"precision {text!r} is not understood", where=f"row {row.get('id', '?')}")


def _uneven(row: Row, model: Model, made: Plan, notes: list[str]) -> Plan:
    """DeepSeek-V3 and Kimi-K2 on Megatron-Bridge: all chunks alike, the last takes what remains (their ``pp_layout``)."""
    if family_of(row) != "megatron-bridge" or model.mla is None or made.pp == 1 or model.layers % made.chunks == 0:
        return made
    each = -(-model.layers // made.chunks)
    last = model.layers - each * (made.chunks - 1)
    if last < 1:
        return made
    notes.append(f"{each} layers per virtual stage, {last} in the last, as in Megatron-Bridge's pp_layout")
    return made.model_copy(update={"layers_per_stage": (each,) * (made.chunks - 1) + (last,)})


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match.group(1) if match else None


def _int(row: Row, name: str, where: str) -> int:
    try:
        return int(float(row[name]))
    except (KeyError, ValueError):
        raise ConfigError(f"{name} is {row.get(name)!r}", where=where, expected="a number") from None
