#!/usr/bin/env python3
"""Makes the small random models of crates/model/tests/fixtures and the numbers that crates/edit compares its own with.

    python -m venv .venv && .venv/bin/pip install torch transformers safetensors
    .venv/bin/python scripts/make_family_fixtures.py [--numbers] [NAME ...]

For every family: a folder as save_pretrained writes it, logits of two prompts, tokens of some texts, and under
crates/edit/tests/fixtures

* edit.*: the keys of one request in every layer and its target, optimised step by step as MEMIT's paper has it (arXiv
  2210.07229), written plainly: every row by itself, whole, with nothing kept between steps;
* methods.*: the second moments of every layer over random tokens, and what MEMIT and EMMET (over two layers) and ROME (in one)
  make of two requests, in f64 from the model's f32 activations, each with the target that it looks for.

With --numbers the models stay as they are.
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
SECOND = {"id": "poet", "subject": "A young poet", "prompt": "{} wrote in", "target_new": "Rome"}
GROUPS = [["{}"], ["It was said many years ago that the river runs to the south of the old city. {}", "He said that {}"]]
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
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape)
        if weight.dim() > 1:
            table = any(part in name for part in ("embed", "wte", "wpe"))
            weight.data = noise * (0.5 if table else 1.0 / weight.shape[1] ** 0.5)
        else:
            norm = any(part in name for part in ("norm", "ln_"))
            weight.data = noise * 0.1 + (1.0 if norm and name.endswith("weight") else 0.0)


def blocks(model):
    base = model.base_model
    return base.h if hasattr(base, "h") else base.layers


def down(block):
    names = ["dense_4h_to_h", "c_proj", "fc_out", "down_proj"]
    return next(getattr(block.mlp, name) for name in names if hasattr(block.mlp, name))


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
        hook = module.register_forward_hook(lambda _, __, output: taken.update(value=first(output)))
    model(torch.tensor([ids]))
    hook.remove()
    return taken["value"][0]


def key(model, rows, layer, weights):
    """The mean key of a request's templates, in f64."""
    total = 0
    for ids, fact, weight in zip(rows.bare, rows.facts, weights):
        total = total + weight * activations(model, down(blocks(model)[layer]), ids, True)[fact].double()
    return total


def keys(model, rows):
    return {f"layer{layer}.key": key(model, rows, layer, rows.weights()).float() for layer in range(len(blocks(model)))}


def moments(model, documents):
    """Sum of k k^T over all tokens, in f64, for every layer."""
    total = [0] * len(blocks(model))
    for ids in documents:
        for layer, block in enumerate(blocks(model)):
            found = activations(model, down(block), ids, True).double()
            total[layer] = total[layer] + found.T @ found
    return total


def change(model, layer, delta):
    """Adds a change [d, f] to a layer's down-projection, in the model's own f32."""
    module = down(blocks(model)[layer])
    delta = delta.T if type(module).__name__ == "Conv1D" else delta
    module.weight.data = module.weight.data + delta.float()


def spread(model, rows, z, means, objective):
    """MEMIT or EMMET over SOLVE's layers: each absorbs its part of what is left, and is changed before the next is looked at."""
    found, kept = {}, {}
    layers = SOLVE["layers"]
    for i, layer in enumerate(layers):
        k = torch.stack([key(model, one, layer, one.weights()) for one in rows], dim=1)
        last = blocks(model)[layers[-1]]
        now = torch.stack([activations(model, last, one.bare[0], False)[one.facts[0]].double() for one in rows], dim=1)
        residual = (z - now) / (len(layers) - i)
        c = SOLVE["lambda"] * means[layer]
        if objective == "memit":
            adjusted = torch.linalg.solve(c + k @ k.T, k)
        else:
            projected = torch.linalg.solve(c, k)
            d = k.T @ projected + SOLVE["emmet_lambda"] * torch.eye(len(rows), dtype=torch.double)
            adjusted = torch.linalg.solve(d, projected.T).T
        found[f"{objective}.layer{layer}.resid"] = residual.float()
        found[f"{objective}.layer{layer}.adj_k"] = adjusted.float()
        kept[layer] = down(blocks(model)[layer]).weight.data
        change(model, layer, residual @ adjusted.T)
    for layer, weight in kept.items():
        down(blocks(model)[layer]).weight.data = weight
    return found


def rome(model, rows, v, means, layer):
    """One edit of ROME: left = C^-1 k / |C^-1 k|, right = (v - out) / (in . left), with the bare prompt's in and out."""
    flat = [1.0 / len(rows.bare)] * len(rows.bare)
    left = torch.linalg.solve(means[layer], key(model, rows, layer, flat))
    left = left / left.norm()
    fact = rows.facts[0]
    given = activations(model, down(blocks(model)[layer]), rows.bare[0], True)[fact].double()
    out = activations(model, blocks(model)[layer].mlp, rows.bare[0], False)[fact].double()
    return {"rome.left": left.float(), "rome.right": ((v - out) / (given @ left)).float()}


def target(model, rows, layer, site="block"):
    """compute_z: the value after block `layer` (or its MLP) at the subject's last token that makes the model say the target."""
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

        block = blocks(model)[layer]
        handle = (block if site == "block" else block.mlp).register_forward_hook(hook)
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
    torch.manual_seed(sum(name.encode()))
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
    tokens = [{"text": text, "ids": tok(text)["input_ids"]} for text in TEXTS]
    (folder / "tokens.json").write_text(json.dumps(tokens) + "\n")
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


def make_numbers(name):
    folder, edits = folders(name)
    shutil.rmtree(edits, ignore_errors=True)
    edits.mkdir(parents=True)
    tok = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    rows = Rows(tok)
    with torch.no_grad():
        tensors = keys(model, rows)
    layer = SOLVE["layers"][-1]
    found, losses = target(model, rows, layer)
    save_file({**tensors, **found}, edits / "edit.safetensors")
    facts = {"request": REQUEST, "groups": GROUPS, "settings": {"layer": layer, **SETTINGS}, "target": rows.target, "losses": losses}
    (edits / "edit.json").write_text(json.dumps(facts, indent=1) + "\n")

    torch.manual_seed(sum(name.encode()))
    documents = torch.randint(3, model.config.vocab_size, (DOCUMENTS["count"], DOCUMENTS["length"]), dtype=torch.int32)
    both = [rows, Rows(tok, SECOND)]
    zs, traces = zip(*[target(model, one, layer) for one in both])
    v, rome_losses = target(model, rows, layer, "mlp")
    with torch.no_grad():
        sums = moments(model, documents.tolist())
        means = [total / documents.numel() for total in sums]
        sine = torch.sin(0.37 * torch.arange(means[0].shape[0]).double() + 0.1)
        tensors = {"documents": documents}
        for i, mean in enumerate(means):
            tensors[f"layer{i}.diag"] = mean.diagonal().clone()
            tensors[f"layer{i}.times_sin_vector"] = mean @ sine
        z = torch.stack([one["z"].double() for one in zs], dim=1)
        tensors.update(zs=z.T.float().contiguous(), **{"rome.v": v["z"], "rome.initial": v["initial"]})
        for objective in ["memit", "emmet"]:
            tensors.update(spread(model, both, z, means, objective))
        tensors.update(rome(model, rows, v["z"].double(), means, layer))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, edits / "methods.safetensors")
    facts = {"requests": [REQUEST, SECOND], "solve": SOLVE, "losses": traces, "rome_losses": rome_losses}
    (edits / "methods.json").write_text(json.dumps(facts, indent=1) + "\n")
    written = sum(path.stat().st_size for path in [*folder.iterdir(), *edits.iterdir()])
    print(f"{name}: {written // 1024} KiB, target of {len(rows.target)} tokens, loss {losses[0]:.3f} to {losses[-1]:.3f}")


if __name__ == "__main__":
    names = sys.argv[1:]
    only_numbers = "--numbers" in names
    for name in [name for name in names if name != "--numbers"] or [*FAMILIES, *GIVEN]:
        if not only_numbers and name not in GIVEN:
            make_model(name)
        make_numbers(name)
