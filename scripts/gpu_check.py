"""Does the work of gpu-check.sh, which says what it is for."""

import argparse
import json
import platform
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from datetime import date
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "crates/model/tests/fixtures"
CORPUS = ROOT / "examples/demo-model/corpus.txt"
REQUESTS = ROOT / "examples/demo-model/requests.json"

# Small models that every stage is compared on: where the residual is added twice and once, with learned positions and rotary ones.
SMALL = {
    "demo model (GPT-2)": ROOT / "examples/demo-model/model",
    "GPT-J": FIXTURES / "gptj-tiny",
    "Llama": FIXTURES / "llama-tiny",
}

# How far apart the same stage may be on two devices. In float32: as float32 and float64 are in the authors' own code. Cards from
# compute capability 8.0 on take products of float32 in TF32, which has as many bits as float16.
FLOAT32 = {"log-likelihoods": 1e-3, "second moments": 1e-5, "targets": 1e-3, "updates": 2e-2}
TF32 = {"log-likelihoods": 5e-2, "second moments": 5e-3, "targets": 5e-2, "updates": 2e-1}

# Published shapes: layers that are edited, and blocks up to the last of them of all blocks.
SHAPES = {"gpt2-xl": [13, 14, 15, 16, 17], "gpt-j-6b": [3, 4, 5, 6, 7, 8], "llama-2-7b": [4, 5, 6, 7, 8]}


def tensors(path):
    """The tensors of a safetensors file."""
    data = Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    types = {"F32": np.float32, "F64": np.float64}
    found = {}
    for name, info in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__" and info["dtype"] in types:
            begin, end = info["data_offsets"]
            values = np.frombuffer(data[8 + size + begin : 8 + size + end], types[info["dtype"]])
            found[name] = values.reshape(info["shape"]).astype(np.float64)
    return found


class Palinode:
    """The program with a store and a device."""

    def __init__(self, program, store, device):
        self.program, self.store, self.device = str(program), store, device

    def run(self, pipeline):
        """Runs a pipeline; seconds by instance."""
        command = [self.program, "run", str(pipeline), "--store", str(self.store), "--device", self.device, "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        record = max(self.store.glob("runs/*/run.json"), key=lambda path: path.stat().st_mtime)
        return {stage["instance"]: stage["seconds"] for stage in json.loads(record.read_text())["stages"]}

    def files(self, instance, into):
        """The files of a result."""
        shutil.rmtree(into, ignore_errors=True)
        command = [self.program, "show", instance, "--store", str(self.store), "--save", str(into)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return into


def pipeline(model, layers, requests, dataset, edits, tokens, dtype="f32"):
    """Everything between a model and its scores."""
    openings = '["The weather had been fine. {}", "Because of that. {}", "Therefore it is so. {}", "I know. {}", "You see. {}"]'
    return f"""
name: gpu-check
stages:
  model: {{ uses: load_model, with: {{ path: {model}, dtype: {dtype} }} }}
  edits: {{ uses: load_requests, with: {{ path: {requests}, dataset: {dataset}, limit: {edits} }} }}
  contexts: {{ uses: templates, with: {{ groups: [["{{}}"], {openings}] }} }}
  moments: {{ uses: covariance, inputs: {{ model: model }}, with: {{ corpus: {CORPUS}, layers: {layers}, tokens: {tokens} }} }}
  targets: {{ uses: targets, inputs: {{ model: model, requests: edits, templates: contexts }}, with: {{ layer: {layers[-1]}, steps: 20, clamp: 0.75 }} }}
  plan: {{ uses: distribute, with: {{ strategy: memit, layers: {layers} }} }}
  update:
    uses: solve
    inputs: {{ model: model, requests: edits, moments: moments, targets: targets, plan: plan, templates: contexts }}
    with: {{ objective: memit, lambda: 15000, update_norm_lambda: 10 }}
  scores: {{ uses: evaluate, inputs: {{ model: update, requests: edits }} }}
"""


def apart(a, b):
    """Frobenius norm of a difference, over the norm."""
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(a), 1e-300))


def agreement(args, name, model, folder):
    """How far the stages on the processor and on the device are apart."""
    path = folder / "small.yaml"
    path.write_text(pipeline(model, [0, 1], REQUESTS, "counterfact", 8, "20f"))
    sides = []
    for device in ("cpu", args.device):
        side = Palinode(args.palinode, folder / f"store-{device.replace(':', '')}-{model.name}", device)
        shutil.rmtree(side.store, ignore_errors=True)
        side.run(path)
        sides.append({stage: side.files(stage, folder / "files" / device / stage) for stage in ("moments", "targets", "update", "scores")})
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


class Memory(threading.Thread):
    """The most memory that the card was seen to use, in MiB; 0 where nothing tells."""

    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.on = 0, True

    def run(self):
        ask = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while self.on and shutil.which("nvidia-smi"):
            told = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.split()
            self.most = max([self.most, *(int(value) for value in told if value.isdigit())])
            time.sleep(0.3)


def towns(path, count):
    """Facts about as many towns, each with a name of its own."""
    with path.open("w") as file:
        for number in range(count):
            fact = {"subject": f"The harbour of town number {number}", "prompt": "{} lies in the land of", "target_new": "Chile", "target_true": "Spain"}
            file.write(json.dumps(fact) + "\n")
    return path


def shape(args, name, layers, folder, dtype):
    """Times the stages of a published shape."""
    model = folder / name
    if not (model / "config.json").exists():
        make = [sys.executable, str(ROOT / "scripts/make_random_model.py"), "--shape", name, "--dtype", "bf16", "--out", str(model)]
        subprocess.run(make, check=True)
    side = Palinode(args.palinode, folder / "store", args.device)
    shutil.rmtree(side.store, ignore_errors=True)
    requests = towns(folder / "towns.jsonl", max(args.edits))
    config = json.loads((model / "config.json").read_text())
    blocks = config.get("n_layer") or config["num_hidden_layers"]
    rows = []
    memory = Memory()
    memory.start()
    for edits in args.edits:
        path = folder / "large.yaml"
        path.write_text(pipeline(model, layers, requests, "jsonl", edits, args.tokens, dtype))
        rows.append((edits, side.run(path)))
    memory.on = False
    parameters = (model / "model.safetensors").stat().st_size / 2
    # Of all weights, those in the blocks up to the last layer that is measured.
    flops = 2 * args.tokens * parameters * (layers[-1] + 1) / blocks
    first = rows[0][1]
    shutil.rmtree(side.store, ignore_errors=True)
    return {
        "tokens/s": args.tokens / first["moments"],
        "TFLOP/s": flops / first["moments"] / 1e12,
        "load": first["model"],
        "rows": rows,
        "memory": memory.most,
    }


def rows(out, name, found):
    """Adds a row for each number of edits."""
    for edits, took in found["rows"]:
        each = (took["targets"] + took["update"]) / edits
        out.append(
            f"| {name} | {found['load']:.0f} | {found['tokens/s']:.0f} | {found['TFLOP/s']:.1f} | {edits} | {took['targets']:.1f} | "
            f"{took['update']:.1f} | {took['scores']:.1f} | {each:.2f} | {found['memory']} |"
        )
        print(out[-1], flush=True)


def main():
    parser = argparse.ArgumentParser(prog="gpu-check.sh", description="Compares a card with the processor, and times published shapes on it.")
    parser.add_argument("--palinode", type=Path, default=ROOT / "target/release/palinode")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="comma-separated; none for the comparison alone")
    parser.add_argument("--dtypes", default="f32,bf16", help="types that weights are held in, one after the other")
    parser.add_argument("--edits", default="1,32,256", help="edits in a run, one run for each number")
    parser.add_argument("--tokens", type=int, default=20000, help="tokens of second moments")
    parser.add_argument("--folder", type=Path, default=Path("gpu-check"))
    parser.add_argument("--keep", action="store_true", help="leave the models where they are made")
    args = parser.parse_args()
    args.dtypes = args.dtypes.split(",")
    args.edits = [int(number) for number in args.edits.split(",")]
    args.palinode, folder = args.palinode.resolve(), args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    doctor = json.loads(subprocess.run([str(args.palinode), "doctor", "--json"], capture_output=True, text=True, check=True).stdout)
    out = [f"{date.today()}, {platform.processor() or platform.machine()}, device {args.device}", ""]
    out += [f"* {name}: {value}" for name, value in doctor.items() if name != "store"]
    capability = re.search(r"compute capability (\d+)", json.dumps(doctor))
    tolerances = TF32 if args.device != "cpu" and capability and int(capability.group(1)) >= 8 else FLOAT32
    out += ["", "| model | " + " | ".join(tolerances) + " |", "| --- |" + " ---: |" * len(tolerances)]
    out += ["| tolerance | " + " | ".join(f"{value:.0e}" for value in tolerances.values()) + " |"]
    failed = []
    for name, model in SMALL.items():
        found = agreement(args, name, model, folder)
        out.append(f"| {name} | " + " | ".join(f"{found[what]:.1e}" for what in tolerances) + " |")
        failed += [f"{what} of the {name}" for what, most in tolerances.items() if not found[what] <= most]
        print(out[-1], flush=True)
    shapes = [name for name in args.shapes.split(",") if name and name != "none"]
    if shapes:
        out += ["", "| shape | load, s | moments, tokens/s | TFLOP/s | edits | targets, s | solve, s | scores, s | s per edit | card memory, MiB |"]
        out += ["| --- |" + " ---: |" * 9]
    for name in shapes:
        for dtype in args.dtypes:
            rows(out, f"{name}, {dtype}", shape(args, name, SHAPES[name], folder, dtype))
        if not args.keep:
            shutil.rmtree(folder / name)
    (folder / "table.md").write_text("\n".join(out) + "\n")
    print(f"written: {folder / 'table.md'}")
    if failed:
        sys.exit("further apart than rounding explains: " + ", ".join(failed))


if __name__ == "__main__":
    main()
