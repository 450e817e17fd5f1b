"""Hugging Face config.json files, as their makers publish them: the same model as shipped, warnings, refusals in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsim.errors import ConfigError
from distsim.models.catalog import load, model
from distsim.models.huggingface import read_config

DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "attention_bias": False,
    "first_k_dense_replace": 3,
    "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1,
    "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False, "v_head_dim": 128, "vocab_size": 129280,
}  # fmt: skip
QWEN3_MOE = {
    "model_type": "qwen3_moe", "attention_bias": False, "decoder_sparse_step": 1, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 2048, "intermediate_size": 6144, "max_position_embeddings": 40960, "max_window_layers": 48,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768, "num_attention_heads": 32, "num_experts": 128, "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4, "sliding_window": None, "tie_word_embeddings": False, "use_sliding_window": False,
    "vocab_size": 151936,
}  # fmt: skip
GPT_OSS = {
    "model_type": "gpt_oss", "attention_bias": True, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
    "hidden_size": 2880, "intermediate_size": 2880, "initial_context_length": 4096, "max_position_embeddings": 131072,
    "layer_types": ["sliding_attention", "full_attention"] * 18, "num_attention_heads": 64, "num_experts_per_tok": 4,
    "num_hidden_layers": 36, "num_key_value_heads": 8, "num_local_experts": 128, "sliding_window": 128, "swiglu_limit": 7.0,
    "tie_word_embeddings": False, "vocab_size": 201088,
}  # fmt: skip
LLAMA = {
    "model_type": "llama", "attention_bias": False, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 8192, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05, "tie_word_embeddings": False, "vocab_size": 128256,
}  # fmt: skip
BLOOM = {
    "model_type": "bloom", "n_embed": 14336, "n_layer": 70, "num_attention_heads": 112, "seq_length": 2048,
    "vocab_size": 250880,
}  # fmt: skip
MPT = {
    "model_type": "mpt", "attn_config": {"alibi": False, "attn_impl": "flash", "qk_ln": False}, "d_model": 4096,
    "expansion_ratio": 4, "learned_pos_emb": True, "max_seq_len": 2048, "n_heads": 32, "n_layers": 32, "no_bias": True,
    "vocab_size": 50368,
}  # fmt: skip
LLAMA4 = {
    "model_type": "llama4",
    "text_config": {
        "model_type": "llama4_text", "attention_bias": False, "attention_chunk_size": None, "head_dim": 128,
        "hidden_size": 5120,
        "interleave_moe_layer_step": 2, "intermediate_size": 8192, "intermediate_size_mlp": 16384, "num_attention_heads": 40,
        "max_position_embeddings": 1048576, "num_experts_per_tok": 1, "num_hidden_layers": 48, "num_key_value_heads": 8,
        "num_local_experts": 128, "use_qk_norm": False, "vocab_size": 202048,
    },
    "vision_config": {"hidden_size": 1408},
}  # fmt: skip
SAME = {
    "llama3-8b": LLAMA,
    "llama2-70b": {**LLAMA, "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_hidden_layers": 80,
                   "vocab_size": 32000},
    "llama3.2-1b": {**LLAMA, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
                    "tie_word_embeddings": True, "mlp_bias": False},
    "llama4-maverick": LLAMA4,
    "mistral-7b": {"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
                   "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "sliding_window": 4096,
                   "tie_word_embeddings": False, "vocab_size": 32000},
    "mixtral-8x7b": {"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768,
                     "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
                     "num_local_experts": 8, "sliding_window": None, "tie_word_embeddings": False, "vocab_size": 32000},
    "deepseek-v3": DEEPSEEK,
    "deepseek-v2-lite": {**DEEPSEEK, "model_type": "deepseek_v2", "first_k_dense_replace": 1, "hidden_size": 2048,
                         "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64,
                         "n_shared_experts": 2,
                         "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27,
                         "num_key_value_heads": 16,
                         "q_lora_rank": None, "vocab_size": 102400, "num_nextn_predict_layers": None},
    "kimi-k2": {**DEEPSEEK, "model_type": "kimi_k2", "first_k_dense_replace": 1, "n_routed_experts": 384,
                "num_attention_heads": 64, "num_key_value_heads": 64, "vocab_size": 163840, "num_nextn_predict_layers": 0},
    "qwen3-30b-a3b": QWEN3_MOE,
    "qwen3-0.6b": {"model_type": "qwen3", "head_dim": 128, "hidden_size": 1024, "intermediate_size": 3072,
                   "num_hidden_layers": 28,
                   "max_position_embeddings": 40960, "max_window_layers": 28, "num_attention_heads": 16,
                   "num_key_value_heads": 8,
                   "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False, "vocab_size": 151936},
    "qwen2.5-7b": {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 131072,
                   "max_window_layers": 28, "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
                   "sliding_window": 131072, "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 152064},
    "gpt-oss-120b": GPT_OSS,
    "gpt2": {"model_type": "gpt2", "activation_function": "gelu_new", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
             "n_positions": 1024, "vocab_size": 50257},
    "bloom-176b": BLOOM,
    "mpt-7b": MPT,
    "nemotron4-15b": {"model_type": "nemotron", "hidden_act": "relu2", "hidden_size": 6144, "intermediate_size": 24576,
                      "max_position_embeddings": 4096, "num_attention_heads": 48, "num_hidden_layers": 32,
                      "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False, "vocab_size": 256000},
}  # fmt: skip
#: published sizes in billions of models that are not shipped
SIZES = {
    "falcon-7b": (6.92, {"model_type": "falcon", "alibi": False, "bias": False, "hidden_size": 4544, "multi_query": True,
                         "new_decoder_architecture": False, "num_attention_heads": 71, "num_hidden_layers": 32,
                         "num_kv_heads": 71, "parallel_attn": True, "vocab_size": 65024}),
    "falcon-40b": (41.3, {"model_type": "falcon", "alibi": False, "bias": False, "hidden_size": 8192, "vocab_size": 65024,
                          "new_decoder_architecture": True, "num_attention_heads": 128, "num_hidden_layers": 60,
                          "num_kv_heads": 8}),
    "gpt-neox-20b": (20.55, {"model_type": "gpt_neox", "hidden_act": "gelu_fast", "hidden_size": 6144,
                             "intermediate_size": 24576,
                             "max_position_embeddings": 2048, "num_attention_heads": 64, "num_hidden_layers": 44,
                             "tie_word_embeddings": False, "use_parallel_residual": True, "vocab_size": 50432}),
    "gpt-j-6b": (6.05, {"model_type": "gptj", "n_embd": 4096, "n_head": 16, "n_inner": None, "n_layer": 28, "n_positions": 2048,
                        "vocab_size": 50400, "tie_word_embeddings": False}),
    "opt-66b": (65.7, {"model_type": "opt", "do_layer_norm_before": True, "ffn_dim": 36864, "hidden_size": 9216,
                       "max_position_embeddings": 2048, "num_attention_heads": 72, "num_hidden_layers": 64, "vocab_size": 50272,
                       "word_embed_proj_dim": 9216}),
    "gemma-7b": (8.54, {"model_type": "gemma", "head_dim": 256, "hidden_size": 3072, "intermediate_size": 24576,
                        "max_position_embeddings": 8192, "num_attention_heads": 16, "num_hidden_layers": 28,
                        "num_key_value_heads": 16, "vocab_size": 256000}),
    "gemma-2-9b": (9.24, {"model_type": "gemma2", "head_dim": 256, "hidden_size": 3584, "intermediate_size": 14336,
                          "max_position_embeddings": 8192, "num_attention_heads": 16, "num_hidden_layers": 42,
                          "num_key_value_heads": 8, "sliding_window": 4096, "vocab_size": 256000}),
    "phi-2": (2.78, {"model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240, "max_position_embeddings": 2048,
                     "num_attention_heads": 32, "num_hidden_layers": 32, "qk_layernorm": False, "vocab_size": 51200,
                     "tie_word_embeddings": False}),
    "phi-3-mini": (3.82, {"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "max_position_embeddings": 4096,
                          "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
                          "sliding_window": 2047, "tie_word_embeddings": False, "vocab_size": 32064}),
    "olmo-2-13b": (13.7, {"model_type": "olmo2", "hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40,
                          "max_position_embeddings": 4096, "num_hidden_layers": 40, "num_key_value_heads": 40,
                          "tie_word_embeddings": False, "vocab_size": 100352}),
    "olmoe-1b-7b": (6.92, {"model_type": "olmoe", "hidden_size": 2048, "intermediate_size": 1024, "num_attention_heads": 16,
                           "max_position_embeddings": 4096, "num_experts": 64, "num_experts_per_tok": 8,
                           "num_hidden_layers": 16,
                           "num_key_value_heads": 16, "tie_word_embeddings": False, "vocab_size": 50304}),
    "qwen1.5-moe-a2.7b": (14.3, {"model_type": "qwen2_moe", "decoder_sparse_step": 1, "hidden_size": 2048, "num_experts": 60,
                                 "intermediate_size": 5632, "max_position_embeddings": 8192, "moe_intermediate_size": 1408,
                                 "num_attention_heads": 16, "num_experts_per_tok": 4, "num_hidden_layers": 24,
                                 "num_key_value_heads": 16, "shared_expert_intermediate_size": 5632, "vocab_size": 151936,
                                 "tie_word_embeddings": False, "sliding_window": 32768, "use_sliding_window": False}),
    "stablelm-2-12b": (12.1, {"model_type": "stablelm", "hidden_size": 5120, "intermediate_size": 13824, "vocab_size": 100352,
                              "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 40,
                              "num_key_value_heads": 8, "qk_layernorm": True, "use_parallel_residual": True,
                              "use_qkv_bias": False, "tie_word_embeddings": False}),
    "starcoder2-15b": (15.96, {"model_type": "starcoder2", "hidden_size": 6144, "intermediate_size": 24576, "vocab_size": 49152,
                               "max_position_embeddings": 16384, "num_attention_heads": 48, "num_hidden_layers": 40,
                               "num_key_value_heads": 4, "sliding_window": 4096, "tie_word_embeddings": False,
                               "use_bias": True}),
    "dbrx": (131.6, {"model_type": "dbrx", "attn_config": {"clip_qkv": 8, "kv_n_heads": 8}, "d_model": 6144,
                     "max_seq_len": 32768,
                     "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4}, "n_heads": 48,
                     "n_layers": 40, "tie_word_embeddings": False, "vocab_size": 100352}),
    "command-r": (34.98, {"model_type": "cohere", "hidden_size": 8192, "intermediate_size": 22528, "vocab_size": 256000,
                          "max_position_embeddings": 8192, "num_attention_heads": 64, "num_hidden_layers": 40,
                          "num_key_value_heads": 64, "use_qk_norm": False}),
}  # fmt: skip


def written(tmp_path, config):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    return file


@pytest.mark.parametrize("name", sorted(SAME))
def test_the_same_model_as_shipped(tmp_path, name):
    found, warnings = read_config(written(tmp_path, SAME[name]))
    aside = {"name", "source", "aliases"} | ({"seq"} if found.positions != "learned" else set())
    assert found.model_dump(exclude=aside) == model(name).model_dump(exclude=aside)
    llama4 = name == "llama4-maverick"
    assert warnings == (("only the language model of llama4 is read: no vision, no audio",) if llama4 else ())


@pytest.mark.parametrize("name", sorted(SIZES))
def test_published_sizes_of_others(tmp_path, name):
    billions, config = SIZES[name]
    found, warnings = read_config(written(tmp_path, config))
    assert found.parameters / 1e9 == pytest.approx(billions, rel=0.01)
    assert all("sequence length" in warning for warning in warnings)


def test_folders_and_files_are_read_by_the_catalog(tmp_path):
    folder = tmp_path / "my-llama"
    folder.mkdir()
    written(folder, {**LLAMA, "quantization_config": {"bits": 4}})
    found, warnings = load(str(folder))
    assert found.name == "my-llama"
    assert found.source == str(folder / "config.json")
    assert warnings == ("quantization_config is left out: precision is the plan's",)
    assert model(str(folder / "config.json")) == found


def test_windows_by_layer(tmp_path):
    gemma3 = {"model_type": "gemma3", "text_config": {
        "model_type": "gemma3_text", "head_dim": 128, "hidden_size": 5376, "intermediate_size": 21504,
        "num_attention_heads": 32,
        "num_hidden_layers": 62, "num_key_value_heads": 16, "sliding_window": 1024, "sliding_window_pattern": 6,
        "vocab_size": 262208, "max_position_embeddings": 131072}}  # fmt: skip
    found, _ = read_config(written(tmp_path, gemma3))
    assert [layer for layer in range(14) if not found.windowed(layer)] == [5, 11]
    assert found.parameters / 1e9 == pytest.approx(27.0, rel=0.01)
    listed = {**GPT_OSS, "num_hidden_layers": 4, "layer_types": ["full_attention", "sliding_attention"] * 2}
    found, _ = read_config(written(tmp_path, listed))
    assert (found.window, found.windowed_layers) == (128, (1, 3))
    late = {**QWEN3_MOE, "use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 40}
    found, _ = read_config(written(tmp_path, late))
    assert [found.windowed(layer) for layer in (0, 39, 40, 47)] == [False, False, True, True]


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_sparse_layers_wherever_they_are(tmp_path_factory, sparse):
    dense = [layer for layer, on in enumerate(sparse) if not on]
    file = written(tmp_path_factory.getbasetemp(), {**QWEN3_MOE, "num_hidden_layers": len(sparse), "mlp_only_layers": dense})
    found, warnings = read_config(file)
    if any(sparse):
        assert [found.sparse(layer) for layer in range(len(sparse))] == sparse
    else:
        assert found.moe is None
        assert warnings == ("128 experts, but no layer that uses them",)


def test_an_unknown_type_is_read_by_generic_keys_with_a_warning(tmp_path):
    found, warnings = read_config(written(tmp_path, {**LLAMA, "model_type": "brandnew"}))
    assert found.parameters == model("llama3-8b").parameters
    assert len(warnings) == 1
    assert "model_type 'brandnew' is not known" in warnings[0]
    plain = {**LLAMA, "model_type": "brandnew", "hidden_act": "gelu", "layer_norm_eps": 1e-5}
    found, warnings = read_config(written(tmp_path, plain))
    assert not found.gated
    assert found.norm == "layernorm"
    assert "two matrices" in warnings[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hidden_size": None, "hiden_size": 4096}, r"key 'hidden_size' is absent\n.*Nearest: hiden_size"),
        ({"num_hidden_layers": None}, "key 'num_hidden_layers' is absent"),
        ({"vocab_size": None}, "key 'vocab_size' is absent"),
        ({"intermediate_size": None}, "key 'intermediate_size' is absent"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers is '32'"),
        ({"num_hidden_layers": 31.5}, "num_hidden_layers is 31.5"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"num_hidden_layers": 1e400}, "num_hidden_layers is inf"),
        ({"intermediate_size": [1, 2]}, "intermediate_size differs by layer"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"num_key_value_heads": 5}, "5 kv_heads do not divide 32 heads"),
        ({"num_attention_heads": 33, "num_key_value_heads": 33}, "33 heads do not divide hidden size 4096"),
        ({"num_local_experts": 8}, "key 'num_experts_per_tok' is absent"),
        ({"num_local_experts": 8, "num_experts_per_tok": 9}, "topk 9 of 8 experts"),
        ({"kv_lora_rank": 512}, "key 'qk_nope_head_dim' is absent"),
        ({"is_encoder_decoder": True}, "has an encoder"),
        ({"hybrid_override_pattern": "M-M*"}, "hybrid_override_pattern tells of layers that are no attention"),
        ({"layer_types": ["linear_attention"] * 32}, "layer_types has 'linear_attention'"),
        ({"layer_types": ["full_attention"], "sliding_window": 8}, "layer_types names 1 layers of 32"),
    ],
)
def test_bad_configs_are_refused_in_words(tmp_path, change, told):
    file = written(tmp_path, {**LLAMA, **change})
    with pytest.raises(ConfigError, match=told) as failure:
        model(str(file))
    assert str(file) in str(failure.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '"llama"', "{}", "\udcff"])
def test_bad_files_are_refused_in_words(tmp_path, text):
    file = tmp_path / "config.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"cannot be read|no JSON object|is absent"):
        model(str(file))


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        model(str(tmp_path))
