#!/usr/bin/env python3
"""Makes the small random models of crates/model/tests/fixtures and the numbers that crates/edit compares its own with.

    python -m venv .venv && .venv/bin/pip install torch transformers safetensors
    .venv/bin/python scripts/make_family_fixtures.py [NAME ...]

For every family: a folder as save_pretrained writes it, logits of two prompts, tokens of some texts, and under
crates/edit/tests/fixtures the keys of one request in every layer and its target, optimised step by step as MEMIT's paper
has it (arXiv 2210.07229), written plainly: every row by itself, whole, with nothing kept between steps.
"""

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
GROUPS = [["{}"], ["It was said many years ago that the river runs to the south of the old city. {}", "He said that {}"]]
SETTINGS = {"steps": 12, "learning_rate": 0.3, "kl_factor": 0.0625, "weight_decay": 0.5, "clamp": 0.75, "stop_loss": 0.05}

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
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape)
        if weight.dim() > 1:
            weight.data = noise * (0.5 if "embed" in name else 1.0 / weight.shape[1] ** 0.5)
        else:
            weight.data = noise * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0)


def blocks(model):
    base = model.base_model
    return base.layers


def down(block):
    return block.mlp.dense_4h_to_h if hasattr(block.mlp, "dense_4h_to_h") else block.mlp.down_proj


class Rows:
    """Token rows of the request: one for each template, then the essence."""

    def __init__(self, tok):
        encode = lambda text: tok(text)["input_ids"]
        subject, prompt = REQUEST["subject"], REQUEST["prompt"]
        whole = lambda template: template.replace("{}", prompt, 1)
        plain = lambda text: tok(text, add_special_tokens=False)["input_ids"]
        continuation = plain("a " + REQUEST["target_new"])
        self.target = continuation[len(plain("a")) :]
        self.templates = [t for group in GROUPS for t in group]
        self.bare, self.rows, self.facts = [], [], []
        for template in self.templates:
            before = whole(template).split("{}")[0]
            text = whole(template).replace("{}", subject)
            full = encode(text + " " + REQUEST["target_new"])
            assert full[-len(self.target) :] == self.target and full[: -len(self.target)] == encode(text), full
            self.bare.append(encode(text))
            self.rows.append(full[:-1])
            self.facts.append(len(encode(before + subject)) - 1)
        self.essence = encode(subject + " is a")
        self.essence_fact = len(encode(subject)) - 1

    def weights(self):
        return [1.0 / len(GROUPS) / len(group) for group in GROUPS for _ in group]


def keys(model, rows):
    found = {}
    for layer, block in enumerate(blocks(model)):
        total = 0
        for ids, fact, weight in zip(rows.bare, rows.facts, rows.weights()):
            taken = {}
            hook = down(block).register_forward_pre_hook(lambda _, args: taken.update(key=args[0]))
            model(torch.tensor([ids]))
            hook.remove()
            total = total + weight * taken["key"][0, fact].double()
        found[f"layer{layer}.key"] = total.float()
    return found


def target(model, rows, layer):
    """compute_z: the value after block `layer` at the subject's last token that makes the model say the target."""
    s = SETTINGS
    delta = torch.zeros(model.config.hidden_size, requires_grad=True)
    state = {}

    def forward(ids, fact):
        def hook(_, __, output):
            hidden = output[0] if isinstance(output, tuple) else output
            state.setdefault("initial", hidden[0, fact].detach().clone())
            place = torch.zeros(hidden.shape[1], 1)
            place[fact] = 1.0
            hidden = hidden + place * delta
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = blocks(model)[layer].register_forward_hook(hook)
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


def make(name):
    kind, options, extra = FAMILIES[name]
    folder = ROOT / "crates/model/tests/fixtures" / name
    edits = ROOT / "crates/edit/tests/fixtures" / name
    for path in (folder, edits):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    torch.manual_seed(sum(name.encode()))
    words = tokenizer(extra["tokenizer"], extra.get("bos", False))
    words.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **extra.get("settings", {})}, indent=1) + "\n")
    tok = AutoTokenizer.from_pretrained(folder)

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
    # As anyone would load it: casting the model back would leave its rotary frequencies rounded.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    with torch.no_grad():
        logits = {}
        for i, prompt in enumerate(PROMPTS):
            ids = tok(prompt, return_tensors="pt").input_ids
            out = model(ids).logits[0]
            logits[f"prompt{i}.ids"] = ids[0]
            logits[f"prompt{i}.last_logits"] = out[-1].clone()
            if i == 0:
                logits["prompt0.all_logits"] = out.clone()
        save_file(logits, folder / "logits.safetensors")
        rows = Rows(tok)
        tensors = keys(model, rows)
    tokens = [{"text": text, "ids": tok(text)["input_ids"]} for text in TEXTS]
    (folder / "tokens.json").write_text(json.dumps(tokens) + "\n")

    layer = 1
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    found, losses = target(model, rows, layer)
    save_file({**tensors, **found}, edits / "edit.safetensors")
    facts = {"request": REQUEST, "groups": GROUPS, "settings": {"layer": layer, **SETTINGS}, "target": rows.target, "losses": losses}
    (edits / "edit.json").write_text(json.dumps(facts, indent=1) + "\n")
    written = sum(path.stat().st_size for path in [*folder.iterdir(), *edits.iterdir()])
    print(f"{name}: {written // 1024} KiB, target of {len(rows.target)} tokens, loss {losses[0]:.3f} to {losses[-1]:.3f}")


if __name__ == "__main__":
    for name in sys.argv[1:] or FAMILIES:
        make(name)
