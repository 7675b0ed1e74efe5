"""The published way of computing, in PyTorch (benches/reference), beside it on the same GPU."""

import importlib.util
import json
import os
import subprocess
import sys

import inputs
from program import ROOT

REQUESTS, DOCUMENTS = 2, 20


def there(device):
    """Whether PyTorch with that device, and transformers, are here."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
        return False
    if device == "cpu":
        return True
    ask = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", ask], capture_output=True, check=False).returncode == 0


def measure(case, device, *words):
    """One case of `reference.measure`; what it could not do is None."""
    where = "cpu" if device == "cpu" else "cuda:0" if device in ("cuda", "auto") else device
    command = [sys.executable, "-m", "reference.measure", case, f"device={where}", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT / "benches"), "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        print(f"the reference could not do {case}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def beside(args, name, dtype, folder):
    """Seconds of a target, tokens/s of the second moments of all layers, and seconds of a layer's factor in f64 (cuSOLVER's on a GPU)."""
    shape = inputs.SHAPES[name]
    inputs.places(folder / "requests.json", REQUESTS)
    inputs.documents(folder / "corpus.txt", 900 * DOCUMENTS)
    (folder / "templates.json").write_text(json.dumps(inputs.GROUPS))
    of = [f"inputs={folder}", f"model={name}", f"dtype={dtype}"]
    last = shape["layers"][-1]
    targets = measure("targets", args.device, *of, f"layer={last}", f"requests={REQUESTS}", f"steps={shape['steps']}")
    moments = measure("moments", args.device, *of, f"layers={','.join(map(str, shape['layers']))}", f"documents={DOCUMENTS}")
    factor = measure("cholesky", args.device, f"f={shape['f']}")
    return {
        "a target": targets and targets["wall"] / REQUESTS,
        "tokens/s": moments and moments["tokens"] / moments["wall"],
        "a factor": factor and factor["wall"],
    }
