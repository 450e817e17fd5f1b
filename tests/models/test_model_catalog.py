"""Models: published sizes, the published FLOP convention, spellings, and refusals."""

from __future__ import annotations

import csv
import re
import statistics
from collections import defaultdict

import pytest
from building import reference_folder
from hypothesis import given
from hypothesis import strategies as st

from distsim.errors import ConfigError, UnknownNameError
from distsim.hardware.gpu import gpu
from distsim.models.catalog import folded, load, model, models, read_models
from distsim.models.spec import Model

#: billions of parameters as their makers publish them (checkpoint sizes where the name is rounder than 1 %)
PUBLISHED = {
    "gpt2": 0.124, "gpt2-medium": 0.355, "gpt2-large": 0.774, "gpt2-xl": 1.558,
    "gpt3-1.7b": 1.7, "gpt3-3.6b": 3.6, "gpt3-7.5b": 7.5, "gpt3-18.4b": 18.4, "gpt3-22b": 22.0, "gpt3-39.1b": 39.1,
    "gpt3-76.1b": 76.1, "gpt3-145.6b": 145.6, "gpt3-175b": 175.0, "gpt3-310.1b": 310.1, "gpt3-529.6b": 529.6, "gpt3-1t": 1008.0,
    "megatron-gpt-7.1b": 7.1, "megatron-gpt-32b": 31.5, "megatron-gpt-70b": 70.0, "megatron-gpt-177b": 177.0,
    "llama-7b": 6.74, "llama-13b": 13.0, "llama-33b": 32.5, "llama-65b": 65.2,
    "llama2-7b": 6.74, "llama2-13b": 13.0, "llama2-70b": 69.0, "llama3-8b": 8.03, "llama3-70b": 70.6, "llama3-405b": 405.9,
    "llama3.2-1b": 1.24, "llama3.2-3b": 3.21, "llama4-scout": 107.8, "llama4-maverick": 400.0,
    "mistral-7b": 7.24, "mixtral-8x7b": 46.7, "mixtral-8x22b": 141.0,
    "deepseek-v2": 236.0, "deepseek-v2-lite": 15.7, "deepseek-v3": 671.0, "kimi-k2": 1027.0, "minimax-m2": 229.0,
    "qwen2.5-0.5b": 0.494, "qwen2.5-1.5b": 1.54, "qwen2.5-3b": 3.09, "qwen2.5-7b": 7.62, "qwen2.5-14b": 14.8,
    "qwen2.5-32b": 32.8, "qwen2.5-72b": 72.7,
    "qwen3-0.6b": 0.596, "qwen3-1.7b": 1.72, "qwen3-4b": 4.02, "qwen3-8b": 8.19, "qwen3-14b": 14.8, "qwen3-32b": 32.8,
    "qwen3-30b-a3b": 30.5, "qwen3-235b-a22b": 235.0, "gpt-oss-20b": 20.9, "gpt-oss-120b": 116.8,
    "mpt-125m": 0.125, "mpt-350m": 0.356, "mpt-760m": 0.76, "mpt-1b": 1.316, "mpt-3b": 2.651, "mpt-7b": 6.66, "mpt-13b": 12.854,
    "mpt-30b": 29.975, "mpt-70b": 64.862, "bloom-176b": 176.2, "nemotron4-15b": 15.6, "nemotron4-340b": 341.0,
}  # fmt: skip
#: billions of parameters that one token meets, and how far its maker's figure is rounded
ACTIVE = {
    "mixtral-8x7b": (12.9, 0.01), "mixtral-8x22b": (39.0, 0.01), "deepseek-v2": (21.0, 0.025), "deepseek-v2-lite": (2.66, 0.01),
    "deepseek-v3": (37.0, 0.02), "kimi-k2": (32.6, 0.01), "qwen3-30b-a3b": (3.3, 0.02), "qwen3-235b-a22b": (22.0, 0.01),
    "llama4-scout": (17.0, 0.02), "llama4-maverick": (17.0, 0.02),
}  # fmt: skip


def test_every_shipped_model_has_a_published_size_and_a_source():
    assert set(PUBLISHED) == set(models())
    assert all(one.source for one in models().values())


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items())
def test_published_sizes(name, billions):
    printed = 0.5 * 10.0 ** -len(str(billions).partition(".")[2])
    assert model(name).parameters / 1e9 == pytest.approx(billions, rel=0.01, abs=printed)


@pytest.mark.parametrize(("name", "figure"), ACTIVE.items())
def test_published_active_sizes(name, figure):
    billions, rounding = figure
    assert model(name).active_parameters / 1e9 == pytest.approx(billions, rel=rounding)


@pytest.mark.parametrize(("name", "billions"), [("gpt-oss-20b", 3.61), ("gpt-oss-120b", 5.13)])
def test_gpt_oss_counts_no_embedding_as_active(name, billions):
    one = model(name)
    assert (one.active_parameters - one.embedding_parameters()) / 1e9 == pytest.approx(billions, rel=0.01)


def test_multi_token_prediction_of_deepseek_v3():
    # the checkpoint holds 685 B: 671 B, 11.5 B of the module's own, and copies of embedding and head that the model shares
    one = model("deepseek-v3")
    assert one.mtp_parameters() / 1e9 == pytest.approx(11.5, rel=0.01)
    copies = 2 * one.vocab * one.hidden
    assert (one.parameters + one.mtp_parameters() + copies) / 1e9 == pytest.approx(684.5, rel=0.002)


def test_sc21_formula():
    """P = 12 l h^2 (1 + 13 / 12h + (V + s) / 12lh), SC21 equation 2, which leaves out the last norm."""
    for name in (name for name in models() if name.startswith("gpt3-")):
        one = model(name)
        h, n = one.hidden, one.layers
        expected = 12 * n * h * h * (1 + 13 / (12 * h) + (one.vocab + 2048) / (12 * n * h))
        assert one.parameters - 2 * h == pytest.approx(expected, rel=1e-12)


def test_sc21_flops():
    """96 B s l h^2 (1 + s / 6h + V / 16lh) counts four passes, backward as two and the forward again; ours counts three."""
    for name in (name for name in models() if name.startswith("gpt3-")):
        one = model(name)
        h, n, s = one.hidden, one.layers, 2048
        per_token = 96 * n * h * h * (1 + s / (6 * h) + one.vocab / (16 * n * h))
        again = one.flops_per_token(s) / 3
        head = 2 * one.vocab * h  # SC21 does not count the head's forward pass again
        assert one.flops_per_token(s) + again - head == pytest.approx(per_token, rel=1e-9)


def test_megatron_core_flops_of_2024():
    """12 l h^2 ((1 + kv / a + s / h) p + gates ffn / h + V / 2lh) per token, p the width of the queries over h."""
    for name in ("megatron-gpt-177b", "llama3-70b", "gpt3-175b"):
        one, s = model(name), 4096
        h, p = one.hidden, one.heads * one.head_dim / one.hidden
        attention = (1 + one.kv_heads / one.heads + s / h) * p
        mlp = (1.5 if one.gated else 1.0) * one.ffn_hidden / h
        expected = 12 * one.layers * h * h * (attention + mlp + one.vocab / (2 * one.layers * h))
        assert one.flops_per_token(s) == pytest.approx(expected, rel=1e-9)


def test_flops_that_llm_foundry_publishes():
    """6 N + 12 l h s, N with norms and learned positions: MFU times peak over tokens/s of 125 rows."""
    ratios = []
    for row in csv.DictReader((reference_folder("training") / "published_training_dev.csv").open()):
        mfu = re.search(r"MFU=([\d.]+)%", row["aux"])
        if row["family"] == "llm-foundry" and mfu and "fp8" not in row["precision"]:
            one = model(row["model"]).model_copy(update={"seq": int(row["seq_len"])})
            published = float(mfu.group(1)) / 100 * gpu(row["gpu"]).rate("bf16") / float(row["value"])
            ratios.append((6 * one.parameters + 12 * one.layers * one.hidden * one.seq) / published)
    assert len(ratios) > 100
    assert 0.997 < min(ratios) <= max(ratios) < 1.001


def _bridge_rows() -> dict[tuple[str, int], list[float]]:
    """(model, sequence) -> FLOPs per token: published TFLOP/s over published tokens/s."""
    found = defaultdict(list)
    file = reference_folder("training") / "published_training_dev.csv"
    for row in csv.DictReader(file.open()):
        if row["family"] == "megatron-bridge" and "model TFLOP" in row["aux"] and row["layers"]:
            name = row["model"].split(" (")[0] + (" w/o" if "w/o MTP" in row["model"] else "")
            found[name, int(row["seq_len"])].append(float(row["aux"].split()[0]) * 1e12 / float(row["value"]))
    return found


def test_flops_per_token_is_what_megatron_bridge_publishes():
    checked = 0
    for (name, seq), published in _bridge_rows().items():
        if name.startswith("GPT OSS"):
            continue
        one = model(name.removesuffix(" w/o"))
        if name.endswith(" w/o"):
            one = one.model_copy(update={"mtp": 0})
        ours = one.flops_per_token(seq, causal=True)
        assert ours == pytest.approx(statistics.median(published), rel=0.003), name
        assert max(abs(value / ours - 1) for value in published) < 0.025, name
        checked += len(published)
    assert checked >= 80


def test_flops_per_token_of_gpt_oss_by_release():
    """Since 26.02 as here. Before, its clamped SwiGLU was counted as two matrices and its windows as full attention."""
    one = model("GPT OSS 120B")
    rows = _bridge_rows()
    published = rows["GPT OSS 120B", 4096]
    new = [value for value in published if value > 30e9]
    assert new
    assert all(value == pytest.approx(one.flops_per_token(4096, causal=True), rel=0.003) for value in new)
    gate = 6 * one.layers * 4 * one.hidden * 2880
    for seq in (4096, 8192):
        old = one.model_copy(update={"window": 0}).flops_per_token(seq, causal=True) - gate
        assert all(value == pytest.approx(old, rel=0.005) for value in rows["GPT OSS 120B", seq] if value not in new)


SPELT = {
    "LLAMA3_70B": "llama3-70b", "llama3.1-405b": "llama3-405b", "Llama 3.1 8B": "llama3-8b",
    "meta-llama/Llama-3.1-70B": "llama3-70b",
    "DeepSeekV3": "deepseek-v3", "deepseek-ai/DeepSeek-V3": "deepseek-v3", "Qwen3_30B_a3B": "qwen3-30b-a3b",
    "Qwen3_235B_a22B": "qwen3-235b-a22b", "GPT OSS 120B": "gpt-oss-120b", "Kimi_K2": "kimi-k2", "MPT-7b": "mpt-7b",
    "llama3_8b": "llama3-8b", "GPT3-175B": "gpt3-175b", "mistralai/Mixtral-8x7B-v0.1": "mixtral-8x7b",
}  # fmt: skip


@pytest.mark.parametrize(("text", "name"), SPELT.items())
def test_spellings_find_their_model(text, name):
    assert load(text) == (models()[name], ())


def test_names_and_aliases_are_unambiguous():
    spellings = [folded(spelling) for one in models().values() for spelling in (one.name, *one.aliases)]
    assert len(spellings) == len(set(spellings))


def test_unknown_models_are_refused():
    with pytest.raises(UnknownNameError, match="unknown model 'llama3-71b'") as failure:
        model("llama3-71b")
    assert "llama3-70b" in failure.value.near
    with pytest.raises(ConfigError, match="recommends"):
        model("dlrm-criteo")


def test_a_model_of_ones_own(tmp_path):
    shipped = model("mixtral-8x7b")
    file = tmp_path / "mine.yaml"
    body = "\n".join(f"{key}: {value}" for key, value in shipped.model_dump(exclude_defaults=True).items()
                     if key not in ("moe", "aliases", "source"))  # fmt: skip
    file.write_text(body + "\nmoe: {experts: 8, topk: 2, ffn_hidden: 14336}\n")
    assert model(str(file)).parameters == shipped.parameters
    file.write_text("- {" + body.replace("\n", ", ") + "}\n" + "- {" + body.replace("\n", ", ") + "}\n")
    with pytest.raises(ConfigError, match="2 models"):
        model(str(file))


PLAIN = {"name": "m", "layers": 4, "hidden": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "ffn_hidden": 128, "vocab": 100}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"layers": 0}, "layers"),
        ({"hiden": 64}, "hiden"),
        ({"kv_heads": 3}, "do not divide 4 heads"),
        ({"moe": {"experts": 2, "topk": 3, "ffn_hidden": 8}}, "topk 3 of 2 experts"),
        ({"moe": {"experts": 2, "topk": 1, "ffn_hidden": 8, "layers": [9]}}, "names a layer outside"),
        ({"window": 8, "windowed_layers": [4]}, "windowed_layers names a layer outside"),
        ({"norm": "batchnorm"}, "norm"),
    ],
)
def test_bad_models_are_refused_in_words(tmp_path, change, told):
    file = tmp_path / "mine.yaml"
    file.write_text(str({**PLAIN, **change}))
    with pytest.raises(ConfigError, match=told) as failure:
        list(read_models(file))
    assert str(file) in str(failure.value)


@pytest.mark.parametrize("text", ["", "- 7", "{", "\x00"])
def test_bad_files_are_refused_in_words(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"cannot be read|no model description"):
        model(str(file))


def test_missing_files_are_refused(tmp_path):
    for name in ("none.yaml", "none.json"):
        with pytest.raises(ConfigError, match="cannot be read"):
            model(str(tmp_path / name))


@st.composite
def shapes(draw: st.DrawFn) -> Model:
    kv = draw(st.integers(1, 4))
    layers = draw(st.integers(1, 6))
    extra = {}
    if draw(st.booleans()):
        experts = draw(st.integers(1, 8))
        extra["moe"] = {"experts": experts, "topk": draw(st.integers(1, experts)), "ffn_hidden": draw(st.integers(1, 64)),
                        "dense_layers": draw(st.integers(0, layers)), "every": draw(st.integers(1, 3)),
                        "shared_ffn_hidden": draw(st.integers(0, 64))}  # fmt: skip
    if draw(st.booleans()):
        extra["mla"] = {"q_lora": draw(st.integers(0, 16)), "kv_lora": 8, "nope": 8, "rope": 4, "v": 8}
    return Model(
        name="m", layers=layers, hidden=draw(st.integers(1, 64)), heads=kv * draw(st.integers(1, 4)), kv_heads=kv,
        head_dim=draw(st.integers(1, 32)), ffn_hidden=draw(st.integers(1, 64)), vocab=draw(st.integers(1, 1000)),
        gated=draw(st.booleans()), tied=draw(st.booleans()), bias=draw(st.booleans()), qk_norm=draw(st.booleans()),
        norm=draw(st.sampled_from(["rmsnorm", "layernorm"])), positions=draw(st.sampled_from(["rope", "learned"])),
        window=draw(st.integers(0, 64)), window_every=draw(st.integers(1, 3)), mtp=draw(st.integers(0, 2)), **extra,
    )  # fmt: skip


@given(shapes(), st.integers(1, 512))
def test_laws_of_counting(one, seq):
    assert one.active_parameters <= one.parameters
    head = 0 if one.tied else one.vocab * one.hidden
    norm = one.hidden * (2 if one.norm == "layernorm" else 1)
    layers = sum(one.layer_parameters(layer) for layer in range(one.layers))
    assert one.parameters == layers + one.embedding_parameters() + head + norm
    if one.moe:
        full = one.model_copy(update={"moe": one.moe.model_copy(update={"topk": one.moe.experts})})
        assert full.active_parameters == one.parameters
        assert one.sparse_layers == sum(one.sparse(layer) for layer in range(one.layers))
    # what multiplies is what is active, less embedding, norms, biases and routers, and the head that a tied model shares
    plain = one.model_copy(update={"mtp": 0})
    shared = one.vocab * one.hidden if one.tied else 0
    assert plain.multiplied_weights() <= one.active_parameters - one.embedding_parameters() + shared
    assert plain.multiplied_weights() <= one.multiplied_weights()
    assert 6 * one.multiplied_weights() <= one.flops_per_token(seq, causal=True) <= one.flops_per_token(seq)
    assert one.flops_per_token(seq, causal=True) <= one.flops_per_token(seq + 1, causal=True)
    assert one.flops_per_token(seq) <= one.flops_per_token(seq + 1)


@given(st.integers(1, 100), st.integers(1, 200))
def test_windowed_span_is_the_mean_of_what_tokens_attend(window, seq):
    """Closed form: token i attends to min(i, window) tokens; the continuous mean differs by half a token at most."""
    one = Model(**PLAIN, window=window)
    bare = 6.0 * one.multiplied_weights()
    span = (one.flops_per_token(seq, causal=True) - bare) / (12.0 * 64 * 4)
    counted = sum(min(i, window) for i in range(1, seq + 1)) / seq
    assert span <= counted <= span + 0.5
