"""A causal language model, and its modules' inputs and outputs at chosen tokens."""

import contextlib
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

# Where the families keep what editing touches: block, feed-forward, down-projection; is the projection stored as [in, out]?
NAMES = {
    "gpt2": ("transformer.h.{}", "mlp", "mlp.c_proj", "transformer.ln_f", True),
    "gptj": ("transformer.h.{}", "mlp", "mlp.fc_out", "transformer.ln_f", False),
    "llama": ("model.layers.{}", "mlp", "mlp.down_proj", "model.norm", False),
}


class Subject:
    """A model with its tokenizer and the names of its parts."""

    def __init__(self, folder, device="cpu", dtype=torch.float32):
        folder = Path(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().to(device)
        self.device = device
        self.model.requires_grad_(False)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.convert_ids_to_tokens(0)
        self.tokenizer.padding_side = "right"
        self.config = self.model.config
        self.block, mlp, down, final_norm, self.in_out = NAMES[self.config.model_type]
        self.mlp, self.down = f"{self.block}.{mlp}", f"{self.block}.{down}"
        self.final_norm = self.model.get_submodule(final_norm)
        self.head = self.model.get_output_embeddings()

    def module(self, name, layer):
        return self.model.get_submodule(name.format(layer))

    def tokens(self, texts):
        return self.tokenizer(texts, return_tensors="pt", padding=True).to(self.device)

    def target_tokens(self, target):
        """Tokens of the target by itself, with a leading space; a token that every text begins with is dropped."""
        ids = self.tokenizer(target if target.startswith(" ") else f" {target}", return_tensors="pt").input_ids[0]
        if len(ids) and ids[0] in (self.tokenizer.bos_token_id, self.tokenizer.unk_token_id):
            ids = ids[1:]
        return ids.to(self.device)

    def fact_index(self, pattern, subject):
        """Index of the subject's last token in the pattern with its `{}` filled."""
        before = pattern[: pattern.index("{}")]
        return len(self.tokenizer(before + subject).input_ids) - 1

    def add(self, layer, update):
        """Adds an update `[d, f]` to a down-projection."""
        weight = self.module(self.down, layer).weight
        with torch.no_grad():
            weight += (update.T if self.in_out else update).to(weight.dtype)


def first(output):
    return output[0] if isinstance(output, tuple) else output


class Stop(Exception):
    """Ends a forward pass early."""


@contextlib.contextmanager
def traced(module, stop=False):
    """Keeps a module's last input and output; with `stop`, ends the forward pass there."""
    seen = {}

    def hook(_, inputs, output):
        seen["input"], seen["output"] = first(inputs), first(output)
        if stop:
            raise Stop

    handle = module.register_forward_hook(hook)
    try:
        yield seen
    except Stop:
        pass
    finally:
        handle.remove()


def at_words(subject, module, patterns, names, batch=512):
    """A module's input and output at each subject's last token, `[n, …]` both; whole forward passes."""
    inputs, outputs = [], []
    texts = [pattern.replace("{}", name, 1) for pattern, name in zip(patterns, names)]
    places = [subject.fact_index(pattern, name) for pattern, name in zip(patterns, names)]
    for start in range(0, len(texts), batch):
        with torch.no_grad(), traced(module) as seen:
            subject.model(**subject.tokens(texts[start : start + batch]))
        for row, place in enumerate(places[start : start + batch]):
            inputs.append(seen["input"][row, place])
            outputs.append(seen["output"][row, place])
    return torch.stack(inputs), torch.stack(outputs)
