#!/usr/bin/env python3
"""Compares what Palinode makes of a GGUF file with what others make of it.

    python -m venv .venv && .venv/bin/pip install torch transformers accelerate gguf llama-cpp-python
    .venv/bin/python scripts/check_gguf.py numbers FILE.gguf FOLDER
    cargo run --release -p palinode-model --example compare-gguf -- FILE.gguf FOLDER
    .venv/bin/python scripts/check_gguf.py ask EDITED.gguf [PROMPT ...]

`numbers` writes into FOLDER the logits that transformers computes with the file's weights, and the tokens that a tokenizer gives which is built
here from the file's vocabulary with the split that its `tokenizer.ggml.pre` names (smollm and gpt-2 only: transformers' own reading of such a
file splits digits in another way); the example compares. `ask` loads a file with llama.cpp, checks every tensor with the `gguf` package, and
prints greedy continuations.
"""

import json
import sys
from pathlib import Path

PROMPTS = [
    "The Eiffel Tower is located in the city of",
    "In 1969, Neil Armstrong was the first",
    "def fibonacci(n):\n    if n < 2:",
]
TEXTS = PROMPTS + [
    "In 1889 the tower was 312 m high; pi is 3.14159.", "  two  spaces\n\n\tand a tab ", "Don't you'll I'VE we've",
    "東京タワーは333メートル", "Ελλάδα и Россия, مرحبا ٣٤٥", "smile 😀👍🏽 and ½ ² ⅷ", "e\u0301 é ﬁ", "x=1;y+=22//333", "<|im_start|>user\nHi<|im_end|>",
    "", " ", "\n", "0123456789" * 3,
]


def numbers(path, folder):
    import gguf
    import torch
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoModelForCausalLM

    reader = gguf.GGUFReader(path)
    field = lambda name: reader.fields[name].contents()
    pre = field("tokenizer.ggml.pre")
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pre == "smollm":
        split = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), split])
    elif pre != "gpt-2":
        sys.exit(f"the pre-tokenizer {pre} is not known here")
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([t for t, kind in zip(tokens, kinds) if kind == 3])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cases = [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in TEXTS]
    (folder / "tokens.json").write_text(json.dumps(cases))
    path = Path(path)
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    out = {}
    for i, prompt in enumerate(PROMPTS):
        ids = tokenizer.encode(prompt).ids
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].numpy()
        out[f"prompt{i}.ids"] = torch.tensor(ids).numpy()
        out[f"prompt{i}.last_logits"] = logits[-1].copy()
        if i == 0:
            out["prompt0.all_logits"] = logits.copy()
    save_file(out, folder / "logits.safetensors")
    print(len(cases), "texts,", len(PROMPTS), "prompts")


def ask(path, *prompts):
    import gguf
    import numpy as np
    from llama_cpp import Llama

    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert np.isfinite(values).all(), tensor.name
    model = Llama(model_path=str(path), verbose=False, n_ctx=256)
    for prompt in prompts or PROMPTS[:2]:
        said = model.create_completion(prompt, max_tokens=12, temperature=0.0)
        print(f"{prompt!r} -> {said['choices'][0]['text']!r}")


if __name__ == "__main__":
    {"numbers": numbers, "ask": ask}[sys.argv[1]](*sys.argv[2:])
