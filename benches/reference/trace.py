"""Causal tracing as the published code does it, in plain PyTorch: one batch of 1 + draws whole rows for each token, layer and kind of state.

`python -m reference trace MODEL FOLDER [PROMPTS [WINDOW]]` (from benches/) takes the prompts and the noise of a result of the stage `trace`, as
`palinode show STAGE --save FOLDER` writes them, computes every probability again, and says how far the two are from each other and how long
it took. On one core: `taskset -c 0 python -m reference trace …`.
"""

import json
import time
from collections import defaultdict
from pathlib import Path

import torch
from safetensors.torch import load_file

from .model import Subject, first

# Modules of a block that add to the hidden state, and the token embedding.
ATTENTION = {"gpt2": "attn", "gptj": "attn", "llama": "self_attn"}
EMBEDDING = {"gpt2": "transformer.wte", "gptj": "transformer.wte", "llama": "model.embed_tokens"}
TOLERANCE = 1e-4


class Tracer:
    def __init__(self, folder):
        self.subject = Subject(folder)
        self.model = self.subject.model
        kind = self.model.config.model_type
        self.layers = self.model.config.num_hidden_layers
        self.names = {
            "hidden": self.subject.block,
            "mlp": self.subject.mlp,
            "attention": f"{self.subject.block}.{ATTENTION[kind]}",
        }
        self.embedding = EMBEDDING[kind]

    def run(self, ids, tokens, noise, restored, kept=None):
        """`p` of every token after the last one of row 0, and its mean over the noisy rows. `restored` and `kept` are pairs of a module and a
        token: the clean row's output is put there, or that of an earlier noisy run."""
        rows = ids.repeat(1 + len(noise), 1)
        clean, earlier = defaultdict(list), defaultdict(list)
        for name, token in restored:
            clean[name].append(token)
        for name, token, values in kept or []:
            earlier[name].append((token, values))

        def embed(_module, _inputs, output):
            output = output.clone()
            output[1:, tokens[0] : tokens[1]] += noise
            return output

        def restore(name):
            def hook(_module, _inputs, output):
                hidden = first(output)
                for token in clean[name]:
                    hidden[1:, token] = hidden[0, token]
                for token, values in earlier[name]:
                    hidden[1:, token] = values
                return output

            return hook

        hooks = [self.model.get_submodule(self.embedding).register_forward_hook(embed)]
        hooks += [self.model.get_submodule(name).register_forward_hook(restore(name)) for name in {*clean, *earlier}]
        try:
            with torch.no_grad():
                p = torch.softmax(self.model(rows).logits[:, -1], dim=1)
        finally:
            for hook in hooks:
                hook.remove()
        return p[0], p[1:].mean(0)

    def outputs(self, ids, tokens, noise, name, token):
        """A part's outputs at a token of the noisy runs, layer by layer."""
        found, hooks = [], []
        for layer in range(self.layers):
            module = self.model.get_submodule(self.names[name].format(layer))
            hooks.append(module.register_forward_hook(lambda _m, _i, o: found.append(first(o)[1:, token].clone())))
        self.run(ids, tokens, noise, [])
        for hook in hooks:
            hook.remove()
        return found

    def trace(self, prompt, noise, window):
        ids = torch.tensor([prompt["ids"]])
        tokens = prompt["subject_tokens"]
        [answer] = prompt["answer_ids"]
        noise = noise[:, : tokens[1] - tokens[0]]
        clean, noisy = self.run(ids, tokens, noise, [])
        found = {"p": clean[answer].item(), "p_noisy": noisy[answer].item(), "p_restored": {}}
        for kind in prompt["p_restored"]:
            table = []
            for token in range(ids.shape[1]):
                row = []
                for layer in range(self.layers):
                    row.append(self.restored(kind, ids, tokens, noise, token, layer, window)[answer].item())
                table.append(row)
            found["p_restored"][kind] = table
        return found

    def restored(self, kind, ids, tokens, noise, token, layer, window):
        at = lambda name, layer: self.names[name].format(layer)  # noqa: E731
        if kind in ("mlp", "attention"):
            layers = range(max(0, layer - window // 2), min(self.layers, layer - (-window // 2)))
            return self.run(ids, tokens, noise, [(at(kind, one), token) for one in layers])[1]
        kept = []
        if kind != "hidden":
            part = kind.removesuffix("_severed")
            values = self.outputs(ids, tokens, noise, part, token)
            kept = [(at(part, one), token, value) for one, value in enumerate(values)]
        return self.run(ids, tokens, noise, [(at("hidden", layer), token)], kept)[1]


def run(model, folder, most=None, window=10):
    """Compares; whether all is within the tolerance."""
    torch.set_num_threads(1)
    folder = Path(folder)
    noise = load_file(folder / "noise.safetensors")["noise"]
    lines = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    prompts = [line for line in lines if line["known"]][: int(most) if most else None]
    window = int(window)
    tracer = Tracer(model)
    tracer.trace(prompts[0], noise, window)
    worst, compared, started, used = 0.0, 0, time.perf_counter(), time.process_time()
    for prompt in prompts:
        found = tracer.trace(prompt, noise, window)
        pairs = [(found["p"], prompt["p"]), (found["p_noisy"], prompt["p_noisy"])]
        for kind, table in found["p_restored"].items():
            for ours, theirs in zip(table, prompt["p_restored"][kind], strict=True):
                pairs += zip(ours, theirs, strict=True)
        compared += len(pairs)
        worst = max([worst] + [abs(a - b) for a, b in pairs])
    seconds, used = time.perf_counter() - started, time.process_time() - used
    print(f"{len(prompts)} prompts, {compared} probabilities: largest difference {worst:.2e} (tolerance {TOLERANCE:g})")
    print(f"{seconds:.2f} s, {seconds / len(prompts):.3f} s a prompt; of the CPU {used:.2f} s, {used / len(prompts):.3f} s a prompt")
    return worst <= TOLERANCE
