"""How far a device is from the CPU, stage by stage, on small models."""

import json
import shutil

import numpy as np

from inputs import CORPUS, REQUESTS, chain, factors, head, moments
from program import ROOT, Palinode, tensors

FIXTURES = ROOT / "crates/model/tests/fixtures"

# Where the residual is added twice and once, with learned positions and rotary ones.
MODELS = {
    "demo model (GPT-2)": ROOT / "examples/demo-model/model",
    "GPT-J": FIXTURES / "gptj-tiny",
    "Llama": FIXTURES / "llama-tiny",
}

# How far apart the same stage may be on two devices. In f32: as f32 and f64 are in the authors' own code. GPUs from compute
# capability 8.0 on take products of f32 in TF32, which has as many bits as f16. Weights in bf16 leave 8 bits of every factor.
TOLERANCES = {
    "f32": {"log-likelihoods": 1e-3, "second moments": 1e-5, "targets": 1e-3, "updates": 2e-2},
    "TF32": {"log-likelihoods": 2e-2, "second moments": 3e-3, "targets": 3e-2, "updates": 5e-2},
    "bf16": {"log-likelihoods": 2e-1, "second moments": 2e-2, "targets": 2e-1, "updates": 5e-1},
}


def tolerances(dtype, capability, device):
    """Those that hold for a type on a device."""
    return TOLERANCES["TF32" if dtype == "f32" and device != "cpu" and capability >= 8 else dtype]


def apart(a, b):
    """Frobenius norm of a difference, over the norm."""
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-300))


def pipeline(model, dtype):
    """All stages, on two layers."""
    parts = [head(model, dtype, [0, 1]), moments("moments", CORPUS, [0, 1], "20f"), factors()]
    return "".join([*parts, chain(REQUESTS, 0, 8, [0, 1], "factors", 16)])


def agreement(program, device, model, dtype, folder):
    """The largest difference of a log-likelihood; of the others the difference over the norm."""
    path = folder / "small.yaml"
    path.write_text(pipeline(model, dtype))
    sides = []
    for at in ("cpu", device):
        name = f"{at.replace(':', '')}-{model.name}-{dtype}"
        side = Palinode(program, folder / f"store-{name}", at)
        shutil.rmtree(side.store, ignore_errors=True)
        side.run(path)
        sides.append({stage: side.files(stage, folder / "files" / name / stage) for stage in ("moments", "targets", "update", "scores")})
    one, other = sides
    found = {}
    pairs = [(tensors(a), tensors(other["moments"] / a.name)) for a in one["moments"].glob("*.safetensors")]
    found["second moments"] = max(apart(a[key], b[key]) for a, b in pairs for key in a)
    a, b = (tensors(side["targets"] / "targets.safetensors") for side in sides)
    found["targets"] = apart(a["initial"] + a["delta"], b["initial"] + b["delta"])
    a, b = (tensors(side["update"] / "factors.safetensors") for side in sides)
    lefts = [key for key in a if key.endswith(".left")]
    change = lambda all, key: all[key] @ all[key[: -len("left")] + "right"]
    found["updates"] = max(apart(change(a, key), change(b, key)) for key in lefts)
    lines = [[json.loads(line) for line in (side["scores"] / "records.jsonl").read_text().splitlines()] for side in sides]
    # After the edit the updates differ too: the forward pass by itself is compared before it.
    nlls = [[c["new"]["nll"] for line in all for c in line["before"]["rewrite"] + line["before"]["neighborhood"]] for all in lines]
    found["log-likelihoods"] = float(np.max(np.abs(np.subtract(*nlls))))
    return found
