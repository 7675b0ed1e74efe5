"""Inputs that the reference and Palinode share: random models in real shapes, records, contexts, documents.

    python benches/inputs.py FOLDER

Nothing here is downloaded and nothing is committed: models are drawn with a seed, and records, text and tokenizer are the
demo's. Speed does not depend on what a model knows, but it does on shapes, on prompt lengths and on whether the search for a
target ends early: on random weights it does not.
"""

import json
import random
import shutil
import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo-model"

# GPT-2 small, and one a tenth of its size for cases that need a thousand requests.
SHAPES = {
    "small": {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
    "mini": {"n_layer": 6, "n_embd": 256, "n_head": 8, "n_positions": 512, "vocab_size": 8192},
}

# Bare prompt, and openings of ten tokens or so, as MEMIT's are.
TEMPLATES = [
    ["{}"],
    [
        "The people of the town went home early. {}",
        "Therefore it is said by many that rain will come. {}",
        "Because the market was closed on Monday morning. {}",
        "I have never seen a library as quiet as this. {}",
        "You could hear the goose across the whole garden. {}",
    ],
]


def save_model(folder, shape):
    if (folder / "model.safetensors").exists():
        return
    torch.manual_seed(1)
    config = GPT2Config(**shape, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    shutil.copy(DEMO / "model" / "tokenizer.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def records(count):
    """The demo's records; past their number, the same ones about subjects with a longer name."""
    known = json.loads((DEMO / "requests.json").read_text())
    made = []
    for i in range(count):
        record = json.loads(json.dumps(known[i % len(known)]))
        record["case_id"] = i
        if i >= len(known):
            record["requested_rewrite"]["subject"] += [" the Second", " the Third"][i // len(known) - 1]
        made.append(record)
    return made


def documents(count):
    """Lines of the demo's corpus joined to documents of 40 to 700 words, short ones more often than long ones."""
    lines = (DEMO / "corpus.txt").read_text().splitlines()
    draw = random.Random(1)
    made, at = [], 0
    for _ in range(count):
        words, wanted = [], 40 * (700 / 40) ** draw.random()
        while len(words) < wanted:
            words += lines[at % len(lines)].split()
            at += 1
        made.append(" ".join(words))
    return made


def make(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, shape in SHAPES.items():
        save_model(folder / name, shape)
    (folder / "requests.json").write_text(json.dumps(records(1000)))
    (folder / "templates.json").write_text(json.dumps(TEMPLATES))
    (folder / "corpus.txt").write_text("\n".join(documents(96)) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(Path(sys.argv[1]))
