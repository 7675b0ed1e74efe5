"""What the check works on, made on the spot."""

import json
import random
import subprocess
import sys

from program import ROOT

CORPUS = ROOT / "examples/demo-model/corpus.txt"
REQUESTS = ROOT / "examples/demo-model/requests.json"

# As many tokens as in the published runs on CounterFact, with the tokenizers that random models get: five openings of some ten.
OPENINGS = ["It is a famous one. {}", "Many people know that it is. {}", "I know that it is so. {}", "It is not what he is. {}", "It is known that he is. {}"]
GROUPS = [["{}"], OPENINGS]
# From the subject's last token on: that one and six of the prompt, in six templates, and three of `{} is a`. The target is one token.
STEP_TOKENS, STEP_ROWS = 6 * 7 + 3, 6 + 1

# Published shapes: layers that are edited, steps of the target search, blocks, sizes of a block's matrices (parameters), key, hidden state and vocabulary.
SHAPES = {
    "gpt2-xl": {"layers": [13, 14, 15, 16, 17], "steps": 20, "blocks": 48, "block": 12 * 1600**2, "f": 6400, "d": 1600, "V": 50257},
    "gpt-j-6b": {"layers": [3, 4, 5, 6, 7, 8], "steps": 25, "blocks": 28, "block": 12 * 4096**2, "f": 16384, "d": 4096, "V": 50400},
    "llama-2-7b": {"layers": [4, 5, 6, 7, 8], "steps": 25, "blocks": 32, "block": 4 * 4096**2 + 3 * 4096 * 11008, "f": 11008, "d": 4096, "V": 32000},
}


def model(folder, shape):
    """A model of a published shape with random weights, unless it is there."""
    if not (folder / "model.safetensors").exists():
        part = folder.with_suffix(".part")
        make = [sys.executable, str(ROOT / "scripts/make_random_model.py"), "--shape", shape, "--dtype", "bf16", "--out", str(part)]
        subprocess.run(make, check=True)
        part.rename(folder)
    return folder


def places(path, count):
    """Facts about as many places, in the fields of CounterFact."""

    def fact(number):
        rewrite = {"prompt": "{} is known of the most", "subject": f"The place {number:05}", "relation_id": "P0"}
        rewrite |= {"target_new": {"str": "people", "id": "Q1"}, "target_true": {"str": "time", "id": "Q2"}}
        return {"case_id": number, "requested_rewrite": rewrite, "paraphrase_prompts": [], "neighborhood_prompts": []}

    path.write_text(json.dumps([fact(number) for number in range(count)]))
    return path


def documents(path, tokens):
    """Documents of some thousand tokens, of the demo model's sentences, shuffled with a seed."""
    sentences, random_ = CORPUS.read_text().splitlines(), random.Random(0)
    with path.open("w") as file:
        for _ in range(tokens // 900 + 2):
            file.write(" ".join(random_.choice(sentences) for _ in range(30)) + "\n")
    return path


def chain(requests, offset, edits, layers, moments, parallel_requests, name="", steps=20):
    """From requests to scores."""
    parallel = f", parallel_requests: {parallel_requests}" if parallel_requests else ""
    return f"""
  edits{name}: {{ uses: load_requests, with: {{ path: {requests}, offset: {offset}, limit: {edits} }} }}
  targets{name}:
    uses: targets
    inputs: {{ model: model, requests: edits{name}, templates: contexts }}
    with: {{ layer: {layers[-1]}, steps: {steps}, stop_loss: 0, clamp: 0.75{parallel} }}
  update{name}:
    uses: solve
    inputs: {{ model: model, requests: edits{name}, moments: {moments}, targets: targets{name}, plan: plan, templates: contexts }}
    with: {{ objective: memit, lambda: 15000, update_norm_lambda: 10 }}
  scores{name}: {{ uses: evaluate, inputs: {{ model: update{name}, requests: edits{name} }} }}
"""


def head(model, dtype, layers):
    """What every chain needs."""
    return f"""
name: gpu-check
stages:
  model: {{ uses: load_model, with: {{ path: {model}, dtype: {dtype} }} }}
  contexts: {{ uses: templates, with: {{ groups: {json.dumps(GROUPS)} }} }}
  plan: {{ uses: distribute, with: {{ strategy: memit, layers: {layers} }} }}
"""


def moments(name, corpus, layers, tokens):
    """Second moments."""
    return f"""
  {name}: {{ uses: covariance, inputs: {{ model: model }}, with: {{ corpus: {corpus}, layers: {layers}, tokens: {tokens} }} }}
"""


def factors():
    """Their factors, apart from what solves."""
    return """
  factors: { uses: factor, inputs: { moments: moments }, with: { lambda: 15000, update_norm_lambda: 10 } }
"""
