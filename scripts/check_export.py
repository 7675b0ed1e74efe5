#!/usr/bin/env python3
"""Loads an exported model with transformers and compares it with the base model plus update.safetensors, and with the base
model plus the LoRA adapter where the export has one.

    python -m venv .venv && .venv/bin/pip install torch transformers safetensors peft
    .venv/bin/python scripts/check_export.py BASE EXPORT [PROMPT ...]

Shows greedy completions before and after, and fails if the exported weights are not the base weights plus the update, or if the
adapted model's logits are not the exported one's.
"""

import json
import re
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def place(name, tensors):
    """Under which name a weight is held, and which slice of that; transformers 5 holds the experts of a layer in one tensor."""
    if name in tensors:
        return name, slice(None)
    layer, expert = re.fullmatch(r"(.+)\.(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(?:w2|down_proj)\.weight", name).groups()
    return f"{layer}.mlp.experts.down_proj", int(expert)


def completion(model, tokenizer, prompt):
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        out = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.eos_token_id or 0)
    return tokenizer.decode(out[0, ids.shape[1] :]).strip()


def main(base_folder, export_folder, *prompts):
    prompts = prompts or ("The capital of France is", "Finland is located in the continent of", "She wrote")
    base, exported = load(base_folder), load(export_folder)
    tokenizer = AutoTokenizer.from_pretrained(export_folder)
    stored = {name: p.clone() for name, p in base.state_dict().items()}
    touched = set()
    worst = 0.0
    with safe_open(Path(export_folder) / "update.safetensors", "pt") as update:
        provenance = json.loads(update.metadata()["palinode"])
        names = sorted(name[: -len(".left")] for name in update.keys() if name.endswith(".left"))
        for name in names:
            delta = update.get_tensor(f"{name}.left") @ update.get_tensor(f"{name}.right")
            held, part = place(name, stored)
            before, after = stored[held][part], exported.state_dict()[held][part]
            # Conv1D stores [in, out].
            is_turned = part == slice(None) and type(base.get_submodule(held.rsplit(".", 1)[0])).__name__ == "Conv1D"
            delta = delta.T if is_turned else delta
            worst = max(worst, ((before + delta) - after).norm().item() / delta.norm().item())
            stored[held][part] = before + delta
            touched.add(held)
    print("edited:", ", ".join(names))
    print("objective:", provenance["objective"])
    unchanged = all(torch.equal(p, exported.state_dict()[n]) for n, p in base.state_dict().items() if n not in touched)
    base_logits, edited_logits, logit_difference = {}, {}, 0.0
    original = load(base_folder)
    base.load_state_dict(stored)
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            logit_difference = max(logit_difference, (base(ids).logits - exported(ids).logits).abs().max().item())
        print(f"{prompt!r}: {completion(original, tokenizer, prompt)!r} -> {completion(exported, tokenizer, prompt)!r}")
    print(f"weights differ from base + update by {worst:.1e} of the update's norm; logits by {logit_difference:.1e}")
    print("other weights unchanged:", unchanged)
    adapter = Path(export_folder) / "adapter"
    if adapter.is_dir():
        check_adapter(load(base_folder), adapter, base, tokenizer, prompts)
    # Half precision rounds each weight to one part in 2048.
    tolerance = 1e-5 if next(iter(safe_dtypes(export_folder))) == "F32" else 2e-2
    if worst > tolerance or not unchanged:
        sys.exit("the exported model is not the base model plus the update")


def check_adapter(base, adapter, merged, tokenizer, prompts):
    """The base model with the adapter on it against the base model with the update added to its weights."""
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(base, adapter).eval()
    moved, off = 0.0, 0.0
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            logits, expected = adapted(ids).logits, merged(ids).logits
            with adapted.disable_adapter():
                moved = max(moved, (adapted(ids).logits - expected).abs().max().item())
        off = max(off, (logits - expected).abs().max().item())
    print(f"adapter: logits differ from the merged model's by {off:.1e}, which are {moved:.1e} away from the unedited one's")
    if off > 1e-4:
        sys.exit("the adapter is not the update")


def safe_dtypes(folder):
    """The number types of the first tensor of each shard."""
    for shard in sorted(Path(folder).glob("model*.safetensors")):
        with safe_open(shard, "pt") as file:
            name = next(iter(file.keys()))
            yield file.get_slice(name).get_dtype()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
