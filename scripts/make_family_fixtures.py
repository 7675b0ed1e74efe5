#!/usr/bin/env python3
"""Makes the small random models of crates/model/tests/fixtures and the numbers that crates/edit compares its own with.

    python -m venv .venv && .venv/bin/pip install torch transformers safetensors
    .venv/bin/python scripts/make_family_fixtures.py [--numbers] [NAME ...]

For every family: a folder as save_pretrained writes it, logits of two prompts, tokens of some texts, and under
crates/edit/tests/fixtures

* edit.*: the keys of one request in every layer and its target, optimised step by step as MEMIT's paper has it (arXiv
  2210.07229), written plainly: every row by itself, whole, with nothing kept between steps; and the likelihood of the target before and
  after the value that the bare prompt asks for is written at its key;
* methods.*: the second moments of every layer over random tokens, and what MEMIT and EMMET (over two layers) and ROME (in one)
  make of two requests, in f64 from the model's f32 activations, each with the target that it looks for.

With --numbers the models stay as they are.
"""

import copy
import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
WORDS = """The tall tower stands in Paris. A young poet wrote in Latin, and an old poet wrote in Greek. Some player plays
golf and another player plays chess. That city lies by the lake; this town lies by the sea. The tall tower is a tower in
Rome. It is known to all that the river runs to the south of the old city. Madrid is a city. It was said many years ago
that the young player wrote of towers and rivers. He said that she wrote that they said that we play in the town."""
PROMPTS = [
    "The tall tower stands in the old city by the river, and the young poet wrote of it in Latin many years ago",
    "Some player plays chess",
]
TEXTS = PROMPTS + ["Rome", " Rome", "Rome  is\na city.", "", "<s>", "He said: <s> is a"]
REQUEST = {"id": "tower", "subject": "The tall tower", "prompt": "{} stands in", "target_new": "Parma"}
SECOND = {"id": "poet", "subject": "A young poet", "prompt": "{} wrote in", "target_new": "Rome"}
GROUPS = [["{}"], ["It was said many years ago that the river runs to the south of the old city. {}", "He said that {}"]]
# Steps that fall: random models of a few numbers are steep.
SHORT = {"steps": 20, "learning_rate": 0.2, "kl_factor": 0.0625, "weight_decay": 0.02, "clamp": 3.0, "stop_loss": 0.05}
SETTINGS = {"steps": 12, "learning_rate": 0.3, "kl_factor": 0.0625, "weight_decay": 0.5, "clamp": 0.75, "stop_loss": 0.05}

# What the edits of methods.* are solved with; the one layer of ROME is the last of the two.
SOLVE = {"layers": [0, 1], "lambda": 100.0, "emmet_lambda": 0.1}
DOCUMENTS = {"count": 40, "length": 24}

ROTARY = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA = {
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_parameters": ROTARY,
}
NEOX = {
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2,
    "max_position_embeddings": 64, "hidden_act": "gelu",
    "rope_parameters": {**ROTARY, "partial_rotary_factor": 0.25},
}
FAMILIES = {
    "gpt2-tiny": (
        "gpt2",
        {
            "n_embd": 32, "n_inner": 40, "n_layer": 3, "n_head": 4, "n_positions": 64, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        },
        {"tokenizer": "bytes"},
    ),
    "gpt_neox-tiny": ("gpt_neox", NEOX, {"tokenizer": "bytes"}),
    "gpt_neox-sequential-tiny": ("gpt_neox", {**NEOX, "use_parallel_residual": False}, {"tokenizer": "bytes"}),
    "llama2-tiny": (
        "llama",
        {**LLAMA, "num_key_value_heads": 4, "rope_parameters": {**ROTARY, "rope_type": "linear", "factor": 2.0}},
        {"tokenizer": "pieces", "bos": True, "settings": {"add_bos_token": True}},
    ),
    "llama3-tiny": (
        "llama",
        {
            **LLAMA, "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
        {"tokenizer": "bytes", "bos": True, "dtype": torch.float16},
    ),
    "mistral-tiny": (
        "mistral", {**LLAMA, "sliding_window": 6, "head_dim": 12},
        {"tokenizer": "bytes", "bos": True, "settings": {"add_bos_token": False}, "shards": 3},
    ),
    "qwen2-tiny": (
        "qwen2",
        {**LLAMA, "tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2},
        {"tokenizer": "bytes"},
    ),
    "qwen3-tiny": (
        "qwen3", {**LLAMA, "head_dim": 12, "tie_word_embeddings": True}, {"tokenizer": "bytes", "dtype": torch.bfloat16},
    ),
}
# Of the families below: as small as shows all of their parts.
SMALL = {
    "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
    "max_position_embeddings": 64, "rope_parameters": ROTARY,
}
GEMMA = {**SMALL, "head_dim": 8, "query_pre_attn_scalar": 12, "sliding_window": 5}
FALCON = {"hidden_size": 16, "num_hidden_layers": 3, "max_position_embeddings": 64, "ffn_hidden_size": 20, "rope_parameters": ROTARY}
YARN = {**ROTARY, "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
TINY = {"tokenizer": "bytes", "dtype": torch.float16, "short": True}
FAMILIES.update({
    name: (kind, options, TINY)
    for name, kind, options in [
        ("gemma-tiny", "gemma", {**SMALL, "head_dim": 8}),
        ("gemma2-tiny", "gemma2", {**GEMMA, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
        (
            "gemma3-tiny", "gemma3_text",
            {
                **GEMMA, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                "rope_parameters": {
                    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0},
                },
            },
        ),
        ("phi-tiny", "phi", {**SMALL, "qk_layernorm": True, "rope_parameters": {**ROTARY, "partial_rotary_factor": 0.5}}),
        (
            "phi3-tiny", "phi3",
            {
                **SMALL, "pad_token_id": 0, "sliding_window": 6, "original_max_position_embeddings": 48,
                "rope_parameters": {
                    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.2, 1.5, 2.0],
                    "long_factor": [1.0, 2.0, 3.0, 4.0],
                },
            },
        ),
        ("olmo-tiny", "olmo", {**SMALL, "clip_qkv": 0.9}),
        ("olmo2-tiny", "olmo2", {**SMALL, "num_attention_heads": 4, "num_key_value_heads": 2}),
        (
            "smollm3-tiny", "smollm3",
            {**SMALL, "pad_token_id": 0, "no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": 5},
        ),
        (
            "granite-tiny", "granite",
            {
                **SMALL, "attention_multiplier": 0.2, "embedding_multiplier": 3.0, "residual_multiplier": 0.4,
                "logits_scaling": 2.0,
            },
        ),
        ("cohere-tiny", "cohere", {**SMALL, "use_qk_norm": True, "logit_scale": 0.5}),
        (
            "glm4-tiny", "glm4",
            {**SMALL, "head_dim": 8, "pad_token_id": 0, "rope_parameters": {**ROTARY, "partial_rotary_factor": 0.5}},
        ),
        ("exaone4-tiny", "exaone4", {**SMALL, "sliding_window": 5, "sliding_window_pattern": 3}),
        (
            "ministral-tiny", "ministral",
            {
                **SMALL, "head_dim": 8, "sliding_window": 5,
                "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            },
        ),
        (
            "ministral3-tiny", "ministral3",
            {
                **SMALL, "head_dim": 8, "max_position_embeddings": 128,
                "rope_parameters": {
                    **YARN, "factor": 4.0, "original_max_position_embeddings": 48, "mscale": 1.0, "mscale_all_dim": 0.5,
                    "llama_4_scaling_beta": 0.1,
                },
            },
        ),
        (
            "stablelm-tiny", "stablelm",
            {
                **SMALL, "qk_layernorm": True, "use_qkv_bias": True,
                "rope_parameters": {**ROTARY, "partial_rotary_factor": 0.25},
            },
        ),
        ("starcoder2-tiny", "starcoder2", {**SMALL, "sliding_window": 5}),
        ("llama-yarn-tiny", "llama", {**SMALL, "rope_parameters": YARN}),
        (
            "gpt_neo-tiny", "gpt_neo",
            {
                "hidden_size": 16, "intermediate_size": 20, "num_layers": 3, "num_heads": 2, "max_position_embeddings": 64,
                "window_size": 5, "attention_types": [[["global", "local"], 1], [["global"], 1]],
            },
        ),
        (
            "opt-tiny", "opt",
            {
                "hidden_size": 16, "ffn_dim": 20, "num_hidden_layers": 3, "num_attention_heads": 2, "word_embed_proj_dim": 16,
                "max_position_embeddings": 64,
            },
        ),
        ("bloom-tiny", "bloom", {"hidden_size": 24, "n_head": 3, "n_layer": 3}),
        ("falcon-tiny", "falcon", {**FALCON, "num_attention_heads": 4, "num_kv_heads": 2, "new_decoder_architecture": True}),
        ("falcon-alibi-tiny", "falcon", {
            **FALCON, "num_attention_heads": 2, "multi_query": False, "parallel_attn": False, "alibi": True, "bias": True,
        }),
        ("mpt-tiny", "mpt", {"d_model": 16, "n_heads": 2, "n_layers": 3, "max_seq_len": 64}),
        # Mixtures of experts.
        ("mixtral-tiny", "mixtral", {**SMALL, "intermediate_size": 12, "num_local_experts": 4, "sliding_window": 6}),
        (
            "qwen2_moe-tiny", "qwen2_moe",
            {
                **SMALL, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
                "shared_expert_intermediate_size": 12, "mlp_only_layers": [2],
            },
        ),
        (
            "qwen3_moe-tiny", "qwen3_moe",
            {
                **SMALL, "head_dim": 8, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
                "norm_topk_prob": True,
            },
        ),
        (
            "olmoe-tiny", "olmoe",
            {
                **SMALL, "intermediate_size": 12, "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 4,
                "num_experts_per_tok": 3, "pad_token_id": 0,
            },
        ),
    ]
})
# With the first seed, what an edit does to other tokens outweighs its gain.
FAMILIES["cohere-tiny"] = (*FAMILIES["cohere-tiny"][:2], {**TINY, "seed": 1})
# Families in which a norm stands between the down-projection and the hidden state: values are those of the projection's output.
BEHIND = ["gemma2", "gemma3_text", "olmo2", "glm4", "exaone4"]
# Mixtures of experts.
MIXTURES = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe"]
# Families whose norms store what is added to 1.
PLUS_ONE = ["gemma", "gemma2", "gemma3_text"]

# Models that come with golden numbers: their folders stay as they are.
GIVEN = ["gptj-tiny", "llama-tiny"]


def tokenizer(kind, bos):
    """A byte-level BPE, or one in SentencePiece's manner as Llama 2 has it; with <s> before every text if asked."""
    special = ["<unk>", "<s>", "</s>"]
    made = Tokenizer(models.BPE(unk_token="<unk>" if kind == "pieces" else None, fuse_unk=kind == "pieces"))
    if kind == "bytes":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=160, special_tokens=special, initial_alphabet=[], show_progress=False)
    made.train_from_iterator(WORDS.splitlines(), trainer)
    if kind == "pieces":
        made.pre_tokenizer = None
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


def random_weights(model):
    """Larger than a fresh model's: every part of it shows in the logits."""
    one = 0.0 if model.config.model_type in PLUS_ONE else 1.0
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape)
        norm = any(part in name for part in ("norm", "ln_"))
        if weight.dim() > 1 and not norm:
            table = any(part in name for part in ("embed", "wte", "wpe"))
            weight.data = noise * (0.5 if table else 1.0 / weight.shape[-1] ** 0.5)
        else:
            weight.data = noise * 0.1 + (one if norm and name.endswith("weight") else 0.0)


def blocks(model):
    base = model.base_model
    base = getattr(base, "decoder", base)
    return next(getattr(base, name) for name in ["h", "layers", "blocks"] if hasattr(base, name))


def down(block):
    """The projection whose output the feed-forward adds, or hands to what stands behind it; of a mixture of experts, the whole of it."""
    if is_mixture(block):
        return block.mlp
    inside = next((getattr(block, name) for name in ["mlp", "ffn"] if hasattr(block, name)), block)
    names = ["dense_4h_to_h", "c_proj", "fc_out", "down_proj", "fc2"]
    return next(getattr(inside, name) for name in names if hasattr(inside, name))


def is_mixture(block):
    return hasattr(getattr(block, "mlp", None), "experts")


def parts(block):
    """Sizes of the experts' keys, which lie one behind the other in the key of the whole; the one that all tokens use is the last."""
    mlp = block.mlp
    shared = [mlp.shared_expert.down_proj.weight.shape[1]] if hasattr(mlp, "shared_expert") else []
    return [mlp.experts.down_proj.shape[2]] * mlp.experts.down_proj.shape[0] + shared


def mixture_keys(mlp, x):
    """What a mixture's down-projections read, multiplied with each token's gates: [length, sizes of all experts together]."""
    _, gates, chosen = mlp.gate(x)
    act = mlp.experts.act_fn
    rows = []
    for token, of, which in zip(x, gates, chosen):
        keys = [torch.zeros(w.shape[1]) for w in mlp.experts.down_proj]
        for gate, expert in zip(of, which.tolist()):
            first, second = (mlp.experts.gate_up_proj[expert] @ token).chunk(2)
            keys[expert] = gate * act(first) * second
        if hasattr(mlp, "shared_expert"):
            own = mlp.shared_expert
            keys.append(torch.sigmoid(mlp.shared_expert_gate(token)) * act(own.gate_proj(token)) * own.up_proj(token))
        rows.append(torch.cat(keys))
    return torch.stack(rows)


def projections(block):
    """The down-projections of a layer as [d, f], each of which is changed in place; the last of a mixture is the shared expert's."""
    if is_mixture(block):
        shared = [block.mlp.shared_expert.down_proj.weight.data] if hasattr(block.mlp, "shared_expert") else []
        return [*block.mlp.experts.down_proj.data, *shared]
    module = down(block)
    return [module.weight.data.T if type(module).__name__ == "Conv1D" else module.weight.data]


def load(folder):
    """As anyone would load it: casting the model back would leave its rotary frequencies rounded. Falcon's eager attention adds ALiBi twice."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    attention = "sdpa" if kind == "falcon" else "eager"
    options = {"experts_implementation": "eager"} if kind in MIXTURES else {}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention, **options).eval()


def is_behind(model):
    return model.config.model_type in BEHIND


def settings(model):
    return SHORT if model.short else SETTINGS


def multiplier(model):
    return getattr(model.config, "residual_multiplier", 1.0)


def site(model, layer):
    """Where targets are values: the block's output, or the projection's where a norm stands behind it."""
    return down(blocks(model)[layer]) if is_behind(model) else blocks(model)[layer]


class Rows:
    """Token rows of a request: one for each template, then the essence."""

    def __init__(self, tok, request=REQUEST):
        encode = lambda text: tok(text)["input_ids"]
        subject, prompt = request["subject"], request["prompt"]
        whole = lambda template: template.replace("{}", prompt, 1)
        plain = lambda text: tok(text, add_special_tokens=False)["input_ids"]
        continuation = plain("a " + request["target_new"])
        self.target = continuation[len(plain("a")) :]
        self.templates = [t for group in GROUPS for t in group]
        self.bare, self.rows, self.facts = [], [], []
        for template in self.templates:
            before = whole(template).split("{}")[0]
            text = whole(template).replace("{}", subject)
            full = encode(text + " " + request["target_new"])
            assert full[-len(self.target) :] == self.target and full[: -len(self.target)] == encode(text), full
            self.bare.append(encode(text))
            self.rows.append(full[:-1])
            self.facts.append(len(encode(before + subject)) - 1)
        self.essence = encode(subject + " is a")
        self.essence_fact = len(encode(subject)) - 1

    def weights(self):
        return [1.0 / len(GROUPS) / len(group) for group in GROUPS for _ in group]


def activations(model, module, ids, inputs):
    """What goes into a module, or comes out of it, for one row of tokens: [length, width]."""
    taken = {}
    if inputs:
        hook = module.register_forward_pre_hook(lambda _, args: taken.update(value=args[0]))
    else:
        first = lambda output: output[0] if isinstance(output, tuple) else output
        # Falcon adds attention in place.
        hook = module.register_forward_hook(lambda _, __, output: taken.update(value=first(output).clone()))
    model(torch.tensor([ids]))
    hook.remove()
    return taken["value"].reshape(len(ids), -1)


def inputs(model, block, ids):
    """Keys of a layer for one row of tokens: [length, f]."""
    found = activations(model, down(block), ids, True)
    return mixture_keys(block.mlp, found) if is_mixture(block) else found


def key(model, rows, layer, weights):
    """The mean key of a request's templates, in f64."""
    total = 0
    for ids, fact, weight in zip(rows.bare, rows.facts, weights):
        total = total + weight * inputs(model, blocks(model)[layer], ids)[fact].double()
    return total


def keys(model, rows):
    return {f"layer{layer}.key": key(model, rows, layer, rows.weights()).float() for layer in range(len(blocks(model)))}


def moments(model, documents):
    """Sum of k k^T over all tokens, in f64, for every layer."""
    total = [0] * len(blocks(model))
    for ids in documents:
        for layer, block in enumerate(blocks(model)):
            found = inputs(model, block, ids).double()
            total[layer] = total[layer] + found.T @ found
    # Of a mixture, what one expert does is weighed by itself.
    for layer, block in enumerate(blocks(model)):
        if is_mixture(block):
            total[layer] = total[layer] * torch.block_diag(*[torch.ones(f, f) for f in parts(block)])
    return total


def change(model, layer, delta):
    """Adds a change [d, f] to a layer's down-projection, in the model's own f32."""
    at = 0
    for weight in projections(blocks(model)[layer]):
        weight += delta[:, at : at + weight.shape[1]].float()
        at += weight.shape[1]


def kept(model, layer):
    return [weight.clone() for weight in projections(blocks(model)[layer])]


def restore(model, layer, weights):
    for weight, before in zip(projections(blocks(model)[layer]), weights):
        weight.copy_(before)


def solved(model):
    """SOLVE, in its last layer alone where no layer's output is a part of what another one's should be."""
    return {**SOLVE, "layers": SOLVE["layers"][-1:]} if is_behind(model) else SOLVE


def spread(model, rows, z, means, objective):
    """MEMIT or EMMET over SOLVE's layers: each absorbs its part of what is left, and is changed before the next is looked at."""
    found, before = {}, {}
    layers = solved(model)["layers"]
    for i, layer in enumerate(layers):
        k = torch.stack([key(model, one, layer, one.weights()) for one in rows], dim=1)
        last = site(model, layers[-1])
        now = torch.stack([activations(model, last, one.bare[0], False)[one.facts[0]].double() for one in rows], dim=1)
        residual = (z - now) / (len(layers) - i) / (1.0 if is_behind(model) else multiplier(model))
        c = SOLVE["lambda"] * means[layer]
        if objective == "memit":
            adjusted = torch.linalg.solve(c + k @ k.T, k)
        else:
            projected = torch.linalg.solve(c, k)
            d = k.T @ projected + SOLVE["emmet_lambda"] * torch.eye(len(rows), dtype=torch.double)
            adjusted = torch.linalg.solve(d, projected.T).T
        found[f"{objective}.layer{layer}.resid"] = residual.float()
        found[f"{objective}.layer{layer}.adj_k"] = adjusted.float()
        before[layer] = kept(model, layer)
        change(model, layer, residual @ adjusted.T)
    for layer, weights in before.items():
        restore(model, layer, weights)
    return found


def rome(model, rows, v, means, layer):
    """One edit of ROME: left = C^-1 k / |C^-1 k|, right = (v - out) / (in . left), with the bare prompt's in and out."""
    flat = [1.0 / len(rows.bare)] * len(rows.bare)
    left = torch.linalg.solve(means[layer], key(model, rows, layer, flat))
    left = left / left.norm()
    fact = rows.facts[0]
    given = inputs(model, blocks(model)[layer], rows.bare[0])[fact].double()
    out = activations(model, down(blocks(model)[layer]), rows.bare[0], False)[fact].double()
    return {"rome.left": left.float(), "rome.right": ((v - out) / (given @ left)).float()}


def likelihood(model, rows):
    """Mean log-likelihood of the target's tokens after the bare prompt."""
    ids = rows.rows[0]
    log_p = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)[len(ids) - len(rows.target) :]
    return log_p[range(len(rows.target)), rows.target].mean().item()


def edited(model, rows, mean, layer):
    """The bare prompt's key gets the value that its own target asks for: the likelihood of the target before and after."""
    alone = copy.copy(rows)
    alone.bare, alone.rows, alone.facts = rows.bare[:1], rows.rows[:1], rows.facts[:1]
    with torch.enable_grad():
        z = target(model, alone, layer)[0]["z"].double()
    k = inputs(model, blocks(model)[layer], rows.bare[0])[rows.facts[0]].double()
    now = activations(model, site(model, layer), rows.bare[0], False)[rows.facts[0]].double()
    residual = (z - now) / (1.0 if is_behind(model) else multiplier(model))
    left = torch.linalg.solve(mean, k)
    before = likelihood(model, rows)
    weights = kept(model, layer)
    change(model, layer, torch.outer(residual, left / (left @ k)))
    after = likelihood(model, rows)
    restore(model, layer, weights)
    return {"before": before, "after": after}


def target(model, rows, layer, at="block"):
    """compute_z: the value after block `layer` (or of its projection) at the subject's last token that makes the model say the target."""
    s = settings(model)
    delta = torch.zeros(model.config.hidden_size, requires_grad=True)
    state = {}

    def forward(ids, fact):
        def hook(_, __, output):
            hidden = output[0] if isinstance(output, tuple) else output
            state.setdefault("initial", hidden.reshape(len(ids), -1)[fact].detach().clone())
            place = torch.zeros(len(ids), 1)
            place[fact] = 1.0
            hidden = hidden + place * delta
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = (site(model, layer) if at == "block" else down(blocks(model)[layer])).register_forward_hook(hook)
        log_p = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
        handle.remove()
        return log_p

    adam = torch.optim.Adam([delta], lr=s["learning_rate"])
    losses, count = [], len(rows.target)
    for step in range(s["steps"]):
        nll = 0
        for ids, fact in zip(rows.rows, rows.facts):
            log_p = forward(ids, fact)[len(ids) - count :]
            nll = nll - log_p[range(count), rows.target].sum() / count / len(rows.rows)
        now = forward(rows.essence, rows.essence_fact)[rows.essence_fact]
        first = state.setdefault("first", now.detach().clone())
        kl = s["kl_factor"] * (now.exp() * (now - first)).sum()
        initial = state["initial"]
        norm = delta.norm() if delta.detach().norm() > 0 else (delta * 0).sum()
        loss = nll + kl + s["weight_decay"] * norm / initial.norm() ** 2
        losses.append(loss.item())
        if loss.item() < s["stop_loss"] or step == s["steps"] - 1:
            break
        adam.zero_grad()
        loss.backward()
        adam.step()
        most = s["clamp"] * initial.norm()
        if delta.detach().norm() > most:
            delta.data = delta.data * most / delta.data.norm()
    return {"z": (state["initial"] + delta.detach()), "initial": state["initial"]}, losses


def folders(name):
    return ROOT / "crates/model/tests/fixtures" / name, ROOT / "crates/edit/tests/fixtures" / name


def make_model(name):
    kind, options, extra = FAMILIES[name]
    folder, _ = folders(name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(sum(name.encode()) + extra.get("seed", 0))
    words = tokenizer(extra["tokenizer"], extra.get("bos", False))
    words.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **extra.get("settings", {})}, indent=1) + "\n")

    config = AutoConfig.for_model(kind, vocab_size=words.get_vocab_size(), bos_token_id=1, eos_token_id=2, **options)
    config._attn_implementation = "eager"
    dtype = extra.get("dtype", torch.float32)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    random_weights(model)
    model = model.to(dtype)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    shard = size // extra["shards"] if "shards" in extra else "1GB"
    model.save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)

    tok = AutoTokenizer.from_pretrained(folder)
    if not extra.get("short"):
        tokens = [{"text": text, "ids": tok(text)["input_ids"]} for text in TEXTS]
        (folder / "tokens.json").write_text(json.dumps(tokens) + "\n")
    model = load(folder)
    with torch.no_grad():
        logits = {}
        for i, prompt in enumerate(reversed(PROMPTS) if extra.get("short") else PROMPTS):
            ids = tok(prompt, return_tensors="pt").input_ids
            out = model(ids).logits[0]
            logits[f"prompt{i}.ids"] = ids[0]
            logits[f"prompt{i}.last_logits"] = out[-1].clone()
            if i == 0:
                logits["prompt0.all_logits"] = out.clone()
        save_file(logits, folder / "logits.safetensors")


def make_numbers(name):
    folder, edits = folders(name)
    shutil.rmtree(edits, ignore_errors=True)
    edits.mkdir(parents=True)
    tok = AutoTokenizer.from_pretrained(folder)
    model = load(folder)
    model.short = name in FAMILIES and FAMILIES[name][2].get("short", False)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    rows = Rows(tok)
    with torch.no_grad():
        tensors = keys(model, rows)
    layer = SOLVE["layers"][-1]
    found, losses = target(model, rows, layer)
    save_file({**tensors, **found}, edits / "edit.safetensors")

    torch.manual_seed(sum(name.encode()))
    documents = torch.randint(3, model.config.vocab_size, (DOCUMENTS["count"], DOCUMENTS["length"]), dtype=torch.int32)
    both = [rows, Rows(tok, SECOND)]
    zs, traces = zip(*[target(model, one, layer) for one in both])
    v, rome_losses = target(model, rows, layer, "mlp")
    with torch.no_grad():
        sums = moments(model, documents.tolist())
        means = [total / documents.numel() for total in sums]
        sine = lambda size: torch.sin(0.37 * torch.arange(size).double() + 0.1)
        tensors = {"documents": documents}
        for i, mean in enumerate(means):
            tensors[f"layer{i}.diag"] = mean.diagonal().clone()
            tensors[f"layer{i}.times_sin_vector"] = mean @ sine(mean.shape[0])
        z = torch.stack([one["z"].double() for one in zs], dim=1)
        tensors.update(zs=z.T.float().contiguous(), **{"rome.v": v["z"], "rome.initial": v["initial"]})
        for objective in ["memit", "emmet"]:
            tensors.update(spread(model, both, z, means, objective))
        tensors.update(rome(model, rows, v["z"].double(), means, layer))
        log_p = edited(model, rows, means[layer], layer)
    facts = {
        "request": REQUEST, "groups": GROUPS, "settings": {"layer": layer, **settings(model)}, "target": rows.target, "losses": losses,
        "log_p": log_p,
    }
    (edits / "edit.json").write_text(json.dumps(facts, indent=1) + "\n")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, edits / "methods.safetensors")
    facts = {"requests": [REQUEST, SECOND], "solve": solved(model), "losses": traces, "rome_losses": rome_losses}
    (edits / "methods.json").write_text(json.dumps(facts, indent=1) + "\n")
    written = sum(path.stat().st_size for path in [*folder.iterdir(), *edits.iterdir()])
    print(f"{name}: {written // 1024} KiB, target of {len(rows.target)} tokens, loss {losses[0]:.3f} to {losses[-1]:.3f}, log p {log_p['before']:.3f} to {log_p['after']:.3f}")


if __name__ == "__main__":
    names = sys.argv[1:]
    only_numbers = "--numbers" in names
    for name in [name for name in names if name != "--numbers"] or [*FAMILIES, *GIVEN]:
        if not only_numbers and name not in GIVEN:
            make_model(name)
        make_numbers(name)
