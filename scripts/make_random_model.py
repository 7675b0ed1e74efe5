#!/usr/bin/env python3
"""Writes a model folder of a known shape with random weights: for measuring time and memory without a download.

    python scripts/make_random_model.py --shape gpt2-xl --out /tmp/gpt2-xl
    python scripts/make_random_model.py --shape llama-2-7b --dtype bf16 --hollow --out /tmp/llama-2-7b

Needs numpy alone. Tensors are written one after another: memory stays small whatever the shape. With --hollow the weights
are zeros that take no room on disk (a sparse file): enough for what is refused before it is read. The tokenizer is the one
of a test fixture, smaller than the model's vocabulary.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "crates/model/tests/fixtures"


def gpt2(layers, hidden, heads):
    config = {
        "model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": hidden, "n_layer": layers,
        "n_head": heads, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    }
    tensors = {"wte.weight": (50257, hidden), "wpe.weight": (1024, hidden)}
    for i in range(layers):
        for name, shape in {
            "ln_1": (hidden,), "ln_2": (hidden,), "attn.c_attn": (hidden, 3 * hidden), "attn.c_proj": (hidden, hidden),
            "mlp.c_fc": (hidden, 4 * hidden), "mlp.c_proj": (4 * hidden, hidden),
        }.items():
            tensors[f"h.{i}.{name}.weight"] = shape
            tensors[f"h.{i}.{name}.bias"] = shape[-1:]
    tensors |= {"ln_f.weight": (hidden,), "ln_f.bias": (hidden,)}
    return config, {f"transformer.{name}": shape for name, shape in tensors.items()}, "gptj-tiny"


def gptj():
    hidden, layers, vocab = 4096, 28, 50400
    config = {
        "model_type": "gptj", "vocab_size": vocab, "n_positions": 2048, "n_embd": hidden, "n_layer": layers, "n_head": 16,
        "rotary_dim": 64, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": False,
    }
    tensors = {"transformer.wte.weight": (vocab, hidden)}
    for i in range(layers):
        stem = f"transformer.h.{i}"
        tensors |= {f"{stem}.ln_1.weight": (hidden,), f"{stem}.ln_1.bias": (hidden,)}
        tensors |= {f"{stem}.attn.{x}_proj.weight": (hidden, hidden) for x in ("q", "k", "v", "out")}
        tensors |= {f"{stem}.mlp.fc_in.weight": (4 * hidden, hidden), f"{stem}.mlp.fc_in.bias": (4 * hidden,)}
        tensors |= {f"{stem}.mlp.fc_out.weight": (hidden, 4 * hidden), f"{stem}.mlp.fc_out.bias": (hidden,)}
    tensors |= {"transformer.ln_f.weight": (hidden,), "transformer.ln_f.bias": (hidden,)}
    tensors |= {"lm_head.weight": (vocab, hidden), "lm_head.bias": (vocab,)}
    return config, tensors, "gptj-tiny"


def llama(layers=32, hidden=4096, inner=11008, vocab=32000, heads=32, shared=32, kind="llama"):
    """`shared` heads of keys and values stand for all `heads`."""
    config = {
        "model_type": kind, "vocab_size": vocab, "max_position_embeddings": 4096, "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": shared, "intermediate_size": inner,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False,
    }
    rows = {"q": hidden, "k": hidden // heads * shared, "v": hidden // heads * shared, "o": hidden}
    tensors = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(layers):
        stem = f"model.layers.{i}"
        tensors |= {f"{stem}.{x}.weight": (hidden,) for x in ("input_layernorm", "post_attention_layernorm")}
        tensors |= {f"{stem}.self_attn.{x}_proj.weight": (n, hidden) for x, n in rows.items()}
        if kind == "qwen2":
            tensors |= {f"{stem}.self_attn.{x}_proj.bias": (rows[x],) for x in "qkv"}
        tensors |= {f"{stem}.mlp.{x}_proj.weight": (inner, hidden) for x in ("gate", "up")}
        tensors |= {f"{stem}.mlp.down_proj.weight": (hidden, inner)}
    tensors |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
    return config, tensors, "llama-tiny"


SHAPES = {
    "gpt2-small": lambda: gpt2(12, 768, 12),
    "gpt2-medium": lambda: gpt2(24, 1024, 16),
    "gpt2-xl": lambda: gpt2(48, 1600, 25),
    "gpt-j-6b": gptj,
    "llama-2-7b": llama,
    # The blocks of these two, two of them: for what a wide layer takes.
    "llama-3-8b-two-layers": lambda: llama(2, 4096, 14336, 8192, 32, 8),
    "qwen-2.5-7b-two-layers": lambda: llama(2, 3584, 18944, 8192, 28, 4, "qwen2"),
}
BYTES = {"f32": 4, "f16": 2, "bf16": 2}


def pieces(rng, name, count, dtype):
    """The values of a tensor as bytes, some million at a time: a norm's weights are one, the rest is normal noise."""
    norm = name.endswith("weight") and any(part in name for part in ("ln_", "norm"))
    for start in range(0, count, 1 << 22):
        n = min(1 << 22, count - start)
        values = np.ones(n, np.float32) if norm else rng.standard_normal(n, np.float32) * np.float32(0.02)
        if dtype == "bf16":
            values = (values.view(np.uint32) >> 16).astype(np.uint16)
        yield (values.astype(np.float16) if dtype == "f16" else values).tobytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--dtype", choices=BYTES, default="f32")
    parser.add_argument("--hollow", action="store_true", help="zeros that take no room on disk")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config, tensors, tokenizer = SHAPES[args.shape]()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FIXTURES / tokenizer / name, args.out / name)
    header, at = {}, 0
    for name, shape in tensors.items():
        size = int(np.prod(shape)) * BYTES[args.dtype]
        header[name] = {"dtype": args.dtype.upper(), "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    with open(args.out / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        if args.hollow:
            file.truncate(8 + len(text) + at)
        else:
            for name, shape in tensors.items():
                for piece in pieces(rng, name, int(np.prod(shape)), args.dtype):
                    file.write(piece)
    count = sum(int(np.prod(shape)) for shape in tensors.values())
    print(f"{args.out}: {count} parameters, {at / 2**30:.2f} GiB of {args.dtype}")


if __name__ == "__main__":
    main()
