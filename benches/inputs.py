"""Inputs that the reference and Palinode share: a published model, random models in real shapes, records, contexts, documents.

    python benches/inputs.py FOLDER [--without-smollm2]

SmolLM2-135M comes from a package of the Python registry, as scripts/small_models.py says; the other models are drawn with a
seed, and records, text and the random models' tokenizer are the demo's. Nothing is committed. Speed depends on shapes, on
prompt lengths, and on whether the search for a target ends early: both sides are made to take all steps.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPTJConfig, GPTJForCausalLM

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo-model"

NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}

# GPT-2 small; the depth, the arrangement and the vocabulary of GPT-J 6B on GPT-2 small's width; and a tenth of GPT-2 small for cases
# that need a thousand requests.
SHAPES = {
    "small": (GPT2LMHeadModel, GPT2Config, {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}),
    "deep": (
        GPTJForCausalLM,
        GPTJConfig,
        {"n_layer": 28, "n_embd": 768, "n_head": 12, "rotary_dim": 32, "n_positions": 2048, "vocab_size": 50400},
    ),
    "mini": (GPT2LMHeadModel, GPT2Config, {"n_layer": 6, "n_embd": 256, "n_head": 8, "n_positions": 512, "vocab_size": 8192}),
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


def save_model(folder, model, config, shape):
    if (folder / "model.safetensors").exists():
        return
    torch.manual_seed(1)
    model(config(**shape, **NO_DROPOUT)).save_pretrained(folder)
    shutil.copy(DEMO / "model" / "tokenizer.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def save_smollm2(folder):
    if (folder / "model.safetensors").exists():
        return
    command = [sys.executable, SCRIPTS / "small_models.py", "smollm2", "--safetensors", "--output", folder.parent]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    Path(done.stdout.splitlines()[-1]).rename(folder)


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


def make(folder, smollm2):
    folder.mkdir(parents=True, exist_ok=True)
    for name, shape in SHAPES.items():
        save_model(folder / name, *shape)
    if smollm2:
        save_smollm2(folder / "smollm2")
    (folder / "requests.json").write_text(json.dumps(records(1000)))
    (folder / "templates.json").write_text(json.dumps(TEMPLATES))
    (folder / "corpus.txt").write_text("\n".join(documents(96)) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without-smollm2", action="store_true", help="leave out the one model that has to be fetched")
    args = parser.parse_args()
    make(args.folder, not args.without_smollm2)
