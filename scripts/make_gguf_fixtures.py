#!/usr/bin/env python3
"""Makes the GGUF files of crates/model/tests/fixtures/gguf, with the `gguf` package of llama.cpp.

    python -m venv .venv && .venv/bin/pip install torch transformers safetensors gguf
    .venv/bin/python scripts/make_gguf_fixtures.py [NAME ...]

* NAME.gguf: the model of the folder NAME beside it, its tensors renamed and reordered as llama.cpp's converter does it. Logits and tokens
  must be those that transformers gave for the folder.
* types.gguf: a llama whose projections are stored in every type that is read, from random blocks; types.safetensors has what the package
  makes of them, under Hugging Face's names, and types-logits.safetensors what transformers computes with that.
* smollm.gguf, qwen.gguf, llama3.gguf, sentencepiece.gguf: vocabularies learned from a few lines; vocabularies.json has the tokens that the
  `tokenizers` package gives for texts with digits, spaces, emoji and other scripts.
"""

import json
import shutil
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.numpy import save_file
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

FIXTURES = Path(__file__).resolve().parent.parent / "crates/model/tests/fixtures"
OUT = FIXTURES / "gguf"

LLAMA = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
NAMES = {
    "llama": ("model.layers.", LLAMA),
    "qwen2": ("model.layers.", LLAMA),
    "qwen3": ("model.layers.", LLAMA),
    "gpt2": (
        "transformer.h.",
        {
            "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
            "ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
            "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
        },
    ),
    "gpt_neox": (
        "gpt_neox.layers.",
        {
            "gpt_neox.embed_in": "token_embd", "gpt_neox.final_layer_norm": "output_norm", "embed_out": "output",
            "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "attention.query_key_value": "attn_qkv",
            "attention.dense": "attn_output", "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down",
        },
    ),
}
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'bot: ' }}{% endif %}"
)
# Norms behind attention and feed-forward too, or alone.
BEHIND = {
    **LLAMA, "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
FUSED = {**LLAMA, "self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}
BLOOM = {
    "transformer.word_embeddings": "token_embd", "transformer.word_embeddings_layernorm": "token_embd_norm",
    "transformer.ln_f": "output_norm", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attention.query_key_value": "attn_qkv", "self_attention.dense": "attn_output", "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down", "ln_attn": "attn_norm_2", "ln_mlp": "attn_norm",
}
NAMES.update({
    **{kind: ("model.layers.", LLAMA) for kind in ["gemma", "olmo", "smollm3", "granite", "cohere", "ministral3"]},
    **{kind: ("model.layers.", BEHIND) for kind in ["gemma2", "gemma3_text", "olmo2", "exaone4"]},
    "phi": (
        "model.layers.",
        {**LLAMA, "model.final_layernorm": "output_norm", "self_attn.dense": "attn_output", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down"},
    ),
    "phi3": ("model.layers.", FUSED),
    "glm4": (
        "model.layers.",
        {**FUSED, "post_self_attn_layernorm": "post_attention_norm", "post_mlp_layernorm": "post_ffw_norm"},
    ),
    "starcoder2": ("model.layers.", {**LLAMA, "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}),
    "bloom": ("transformer.h.", BLOOM),
    "falcon": ("transformer.h.", BLOOM),
    "mpt": (
        "transformer.blocks.",
        {
            "transformer.wte": "token_embd", "transformer.norm_f": "output_norm", "norm_1": "attn_norm", "norm_2": "ffn_norm",
            "attn.Wqkv": "attn_qkv", "attn.out_proj": "attn_output", "ffn.up_proj": "ffn_up", "ffn.down_proj": "ffn_down",
        },
    ),
})
ARCHITECTURES = {
    "gpt_neox": "gptneox", "gemma3_text": "gemma3", "phi": "phi2", "cohere": "command-r", "ministral3": "mistral3",
}
# Numbers of the file by their names in config.json, beside those that all have.
OTHERS = {
    "sliding_window": "attention.sliding_window", "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping", "clip_qkv": "attention.clamp_kqv",
    "attention_multiplier": "attention.scale", "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale", "logits_scaling": "logit_scale", "logit_scale": "logit_scale",
}
# Queries and keys lie in pairs.
PAIRED = ["llama", "olmo", "smollm3", "granite", "ministral3"]
TEXTS = [
    "In 1889 the tower was 312 m high; pi is 3.14159.", "  two  spaces\n\n\tand a tab ", "Don't you'll I'VE", "東京タワーは333メートル",
    "Ελλάδα и Россия, مرحبا", "smile 😀👍🏽 and ½ ² ٣٤", "e\u0301 é ﬁ", "x=1;y+=22//333", "<s>The tower</s>", "", " ", "The tower",
]


def permuted(weight, heads):
    """Rows of each head from halves to pairs."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def restored(weight, heads):
    return weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def renamed(name, kind):
    blocks, names = NAMES[kind]
    stem, end = name.rsplit(".", 1)
    if stem.startswith(blocks):
        layer, rest = stem[len(blocks) :].split(".", 1)
        return f"blk.{layer}.{names[rest]}.{end}"
    return f"{names[stem]}.{end}"


def add_vocabulary(writer, tokenizer, settings, pre=None, begins=False, template=None):
    model = tokenizer["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    pieces = (tokenizer["normalizer"] or {}).get("type") == "Sequence" and not tokenizer["pre_tokenizer"]
    writer.add_tokenizer_model("llama" if pieces else "gpt2")
    if not pieces:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    kind = lambda t: 2 if pieces and t == "<unk>" else 3 if t in special else 6 if pieces and t.startswith("<0x") else 1
    writer.add_token_types([kind(t) for t in tokens])
    merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
    if pieces:
        # Of several ways to a piece the first counts.
        score = {}
        for i, (left, right) in enumerate(merges):
            score.setdefault(left + right, -float(i))
        writer.add_token_scores([score.get(token, -1e6) for token in tokens])
        prefix = any(step["type"] == "Prepend" for step in tokenizer["normalizer"]["normalizers"])
        writer.add_add_space_prefix(prefix)
    else:
        writer.add_token_merges([" ".join(pair) for pair in merges])
    for part, name in [("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>")]:
        if name in model["vocab"]:
            getattr(writer, f"add_{part}_token_id")(model["vocab"][name])
    writer.add_add_bos_token(begins)
    if template:
        writer.add_chat_template(template)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def convert(name):
    folder = FIXTURES / name
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    kind = config["model_type"]
    get = lambda *names: next((config[n] for n in names if config.get(n) is not None), None)
    writer = gguf.GGUFWriter(OUT / f"{name}.gguf", ARCHITECTURES.get(kind, kind))
    arch = ARCHITECTURES.get(kind, kind)
    heads = get("num_attention_heads", "n_head", "n_heads")
    hidden = get("hidden_size", "n_embd", "d_model")
    writer.add_embedding_length(hidden)
    writer.add_block_count(get("num_hidden_layers", "n_layer", "n_layers"))
    writer.add_head_count(heads)
    writer.add_feed_forward_length(get("intermediate_size", "n_inner", "ffn_hidden_size") or 4 * hidden)
    writer.add_context_length(get("max_position_embeddings", "n_positions", "max_seq_len") or 2048)
    kv = get("num_key_value_heads", "num_kv_heads") or heads
    epsilon = get("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon")
    if kind not in ("gpt2", "gpt_neox", "bloom", "mpt"):
        writer.add_head_count_kv(kv)
    if epsilon or kind == "olmo":
        writer.add_layer_norm_eps(epsilon or 1e-5)
    else:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    for theirs, ours in OTHERS.items():
        value = config.get(theirs)
        if value is not None and not (kind == "starcoder2" and theirs == "sliding_window"):
            (writer.add_uint32 if isinstance(value, int) else writer.add_float32)(f"{arch}.{ours}", value)
    rope = config.get("rope_parameters") or {}
    local = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    dim = get("head_dim") or hidden // heads
    group = heads // kv
    if kind == "gpt_neox":
        writer.add_parallel_residual(get("use_parallel_residual") is not False)
        writer.add_rope_dimension_count(int(dim * rope["partial_rotary_factor"]))
    elif kind == "mpt":
        writer.add_float32("mpt.attention.max_alibi_bias", float(config["attn_config"]["alibi_bias_max"]))
    elif kind not in ("gpt2", "bloom"):
        writer.add_rope_freq_base(rope["rope_theta"])
        writer.add_rope_dimension_count(int(dim * rope.get("partial_rotary_factor", 1.0)))
        if local:
            writer.add_float32(f"{arch}.rope.freq_base_swa", local["rope_theta"])
        if dim * heads != hidden or kind == "qwen3":
            writer.add_key_length(dim)
            writer.add_value_length(dim)
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if "mscale_all_dim" in rope:
            writer.add_float32(f"{arch}.rope.scaling.yarn_log_multiplier", rope["mscale_all_dim"])
        if "llama_4_scaling_beta" in rope:
            writer.add_float32(f"{arch}.attention.temperature_scale", rope["llama_4_scaling_beta"])
    if rope.get("rope_type") == "longrope":
        original = config["original_max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(original)
        factor = config["max_position_embeddings"] / original
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(factor) / np.log(original))))
        for which in ["long", "short"]:
            writer.add_tensor(f"rope_factors_{which}.weight", np.array(rope[f"{which}_factor"], np.float32))
    begins = "<s>" in json.dumps(tokenizer["post_processor"])
    add_vocabulary(writer, tokenizer, {}, "gpt-2", begins, CHAT)
    if rope.get("rope_type") == "llama3":
        factors = []
        for i in range(0, dim, 2):
            wavelength = 2 * np.pi * rope["rope_theta"] ** (i / dim)
            original, low, high = (
                rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"],
            )
            if wavelength < original / high:
                factors.append(1.0)
            elif wavelength > original / low:
                factors.append(rope["factor"])
            else:
                smooth = (original / wavelength - low) / (high - low)
                factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
        writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
    for tensor, values in load_file(folder / "model.safetensors").items():
        half = values.dtype == torch.float16
        values = values.float().numpy()
        if kind.startswith("gemma") and tensor.endswith("norm.weight"):
            values = values + 1
        if config["tie_word_embeddings"] and tensor == "lm_head.weight":
            continue
        if kind in PAIRED and ".q_proj." in tensor:
            values = permuted(values, heads)
        if kind in PAIRED and ".k_proj." in tensor:
            values = permuted(values, kv)
        if kind == "gpt2" and values.ndim == 2 and ".h." in tensor:
            values = values.T
        if "query_key_value" in tensor:
            split = values.reshape(kv, group + 2, dim, -1)
            parts = [split[:, :group], split[:, group], split[:, group + 1]]
            values = np.concatenate([part.reshape(-1, split.shape[-1]) for part in parts]).reshape(values.shape)
        # Matrices as the folder has them, vectors in f32: that is how the converter does it.
        values = values.astype(np.float16 if half and values.ndim > 1 else np.float32)
        writer.add_tensor(renamed(tensor, kind), np.ascontiguousarray(values))
    finish(writer)
    if config.get("use_sliding_window") and kind == "qwen2":
        # A file of this architecture knows no windows: numbers without them.
        full = ["full_attention"] * config["num_hidden_layers"]
        whole = AutoConfig.from_pretrained(folder, use_sliding_window=False, sliding_window=None, layer_types=full)
        model = AutoModelForCausalLM.from_pretrained(folder, config=whole, dtype=torch.float32).eval()
        logits = {}
        for key, ids in load_file(folder / "logits.safetensors").items():
            if key.endswith(".ids"):
                with torch.no_grad():
                    found = model(ids[None].long()).logits[0].numpy()
                prompt = key.split(".")[0]
                logits |= {key: ids.numpy(), f"{prompt}.last_logits": found[-1].copy()}
                if prompt == "prompt0":
                    logits["prompt0.all_logits"] = found.copy()
        (OUT / name).mkdir()
        save_file(logits, OUT / name / "logits.safetensors")


TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]


def blocks(random, kind, rows, columns):
    """Random bytes as blocks, with scales that keep the values small."""
    kind = gguf.GGMLQuantizationType[kind]
    if kind.name in ("F32", "F16"):
        return (random.standard_normal((rows, columns)) * 0.1).astype(np.float32 if kind.name == "F32" else np.float16)
    values, size = gguf.GGML_QUANT_SIZES[kind]
    if kind.name in ("BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        return gguf.quantize((random.standard_normal((rows, columns)) * 0.1).astype(np.float32), kind)
    data = random.integers(0, 256, (rows, columns // values, size), dtype=np.uint8)
    # Where the scales of the scales stand.
    halves = {"Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}[kind.name]
    for at in halves:
        scale = (random.random((rows, columns // values)) * 1e-3).astype(np.float16)
        data[:, :, at : at + 2] = scale[..., None].view(np.uint8).reshape(rows, columns // values, 2)
    return data.reshape(rows, -1)


def make_types():
    random = np.random.default_rng(1)
    hidden, heads, dim, feed, vocab, layers = 256, 2, 4, 32, 40, 3
    writer = gguf.GGUFWriter(OUT / "types.gguf", "llama")
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_feed_forward_length(feed)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(dim)
    letters = "abcdefghijklm"
    tokens = ["<unk>", "<s>", "</s>", "▁", *letters, *(f"▁{c}" for c in letters)]
    tokens += [f"t{i}" for i in range(vocab - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * vocab)
    writer.add_token_types([2, 3, 3] + [1] * (vocab - 3))
    for part, number in [("unk", 0), ("bos", 1), ("eos", 2)]:
        getattr(writer, f"add_{part}_token_id")(number)
    expected = {}

    def add(name, theirs, rows, columns, kind, heads=None):
        data = blocks(random, kind, rows, columns)
        number = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, data, raw_dtype=None if data.dtype in (np.float32, np.float16) else number)
        values = gguf.dequantize(data, number) if kind not in ("F32", "F16") else data.astype(np.float32)
        values = values.reshape(rows, columns)
        expected[theirs] = np.ascontiguousarray(restored(values, heads) if heads else values)

    add("token_embd.weight", "model.embed_tokens.weight", vocab, hidden, "Q8_0")
    kinds = iter(TYPES + ["Q6_K", "Q4_K"])
    for layer in range(layers):
        ours = f"model.layers.{layer}."
        for name, theirs, rows, split in [
            ("attn_q", "self_attn.q_proj", heads * dim, heads), ("attn_k", "self_attn.k_proj", heads * dim, heads),
            ("attn_v", "self_attn.v_proj", heads * dim, None), ("ffn_up", "mlp.up_proj", feed, None),
            ("ffn_gate", "mlp.gate_proj", feed, None),
        ]:
            add(f"blk.{layer}.{name}.weight", f"{ours}{theirs}.weight", rows, hidden, next(kinds), split)
        add(f"blk.{layer}.ffn_down.weight", f"{ours}mlp.down_proj.weight", hidden, feed, ["Q4_0", "Q8_0", "F16"][layer])
        add(f"blk.{layer}.attn_output.weight", f"{ours}self_attn.o_proj.weight", hidden, heads * dim, "F32")
        for name, theirs in [("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")]:
            norm = (1 + 0.1 * random.standard_normal(hidden)).astype(np.float32)
            writer.add_tensor(f"blk.{layer}.{name}.weight", norm)
            expected[f"{ours}{theirs}.weight"] = norm
    norm = (1 + 0.1 * random.standard_normal(hidden)).astype(np.float32)
    writer.add_tensor("output_norm.weight", norm)
    expected["model.norm.weight"] = norm
    finish(writer)
    save_file(expected, OUT / "types.safetensors")
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=feed, num_hidden_layers=layers, num_attention_heads=heads, head_dim=dim,
        vocab_size=vocab, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    state = {name: torch.from_numpy(values) for name, values in expected.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    ids = [1, 5, 9, 30, 17, 22, 8]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].numpy()
    folder = OUT / "types"
    folder.mkdir(exist_ok=True)
    save_file(
        {"prompt0.ids": np.array(ids), "prompt0.all_logits": logits, "prompt0.last_logits": logits[-1].copy()},
        folder / "logits.safetensors",
    )


def trained(split, pre, normalizer=None, words_first=False, begins=False):
    """A byte-level vocabulary learned from the texts, with the split that published tokenizers of this kind have."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=words_first))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([t for t in TEXTS if "<s>" not in t] * 3, trainer)
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer, pre, begins


def make_vocabularies():
    words = lambda regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    shared = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    pattern = lambda digits: pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(shared.replace("DIGITS", digits)), "isolated"), words(False)]
    )
    made = {
        "smollm": trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), words(True)]), "smollm"),
        "qwen": trained(pattern(""), "qwen2", normalizers.NFC()),
        "llama3": trained(pattern("{1,3}"), "llama-bpe", words_first=True, begins=True),
        "plain": trained(words(True), "gpt-2"),
    }
    pieces = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    pieces.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=420, show_progress=False,
        special_tokens=["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)],
    )
    pieces.train_from_iterator(TEXTS[:4] * 3, trainer)
    # Bytes are pieces that no text names.
    state = json.loads(pieces.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    pieces = Tokenizer.from_str(json.dumps(state))
    pieces.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made["sentencepiece"] = (pieces, None, True)
    tokens = {}
    for name, (tokenizer, pre, begins) in made.items():
        writer = gguf.GGUFWriter(OUT / f"{name}.gguf", "llama")
        add_vocabulary(writer, json.loads(tokenizer.to_str()), {}, pre, begins, "{{ messages[0]['content'] }}")
        finish(writer)
        tokens[name] = [{"text": text, "ids": tokenizer.encode(text).ids} for text in TEXTS]
    (OUT / "vocabularies.json").write_text(json.dumps(tokens, indent=1, ensure_ascii=False) + "\n")


CONVERTED = [
    "gpt2-tiny", "gpt_neox-tiny", "gpt_neox-sequential-tiny", "llama2-tiny", "llama3-tiny", "qwen2-tiny", "qwen3-tiny", "gemma2-tiny",
    "phi3-tiny", "olmo-tiny", "granite-tiny", "cohere-tiny", "glm4-tiny", "ministral3-tiny", "bloom-tiny", "falcon-tiny", "mpt-tiny",
]


def main(names):
    if names:
        for name in names:
            convert(name)
        return
    if OUT.exists():
        shutil.rmtree(OUT)
    OUT.mkdir()
    for name in CONVERTED:
        convert(name)
    make_types()
    make_vocabularies()
    for path in sorted(OUT.rglob("*")):
        print(path.relative_to(OUT), path.stat().st_size)


main(sys.argv[1:])
