"""Published shapes, timed stage by stage on a device."""

import shutil
import subprocess
import threading
import time

import inputs
from program import Palinode

WARM_EDITS = 8


class Memory(threading.Thread):
    """The most memory that the GPU was seen to use, in MiB; 0 where nothing tells."""

    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.on = 0, True

    def run(self):
        ask = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while self.on and shutil.which("nvidia-smi"):
            told = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.split()
            self.most = max([self.most, *(int(value) for value in told if value.isdigit())])
            time.sleep(0.3)


def pipeline(model, shape, dtype, folder, counts, tokens, parallel_requests):
    """One chain for every number of edits, each with facts of its own. What comes first reads the weights and compiles kernels."""
    layers = shape["layers"]
    facts = inputs.places(folder / "places.json", WARM_EDITS + sum(counts))
    corpus = inputs.documents(folder / "corpus.txt", tokens)
    parts = [inputs.head(model, dtype, layers)]
    parts += [inputs.moments("warm", corpus, layers[:1], 2000)]
    parts += [inputs.moments("moments", corpus, layers, tokens), inputs.factors()]
    offset = 0
    for name, edits in [("_warm", WARM_EDITS), *((f"_{edits}", edits) for edits in counts)]:
        parts.append(inputs.chain(facts, offset, edits, layers, "factors", parallel_requests, name, shape["steps"]))
        offset += edits
    return "".join(parts)


def target_operations(shape):
    """Of one request: forward and backward through what lies above the layer, in every step, and the head where it is read."""
    above = (shape["blocks"] - shape["layers"][-1] - 1) * shape["block"] * inputs.STEP_TOKENS
    return shape["steps"] * 2 * 2 * (above + shape["d"] * shape["V"] * inputs.STEP_ROWS)


def moment_operations(shape):
    """Of one token: forward to the last layer, and its share of the lower halves of KᵀK."""
    return 2 * (shape["layers"][-1] + 1) * shape["block"] + len(shape["layers"]) * shape["f"] ** 2


def timed(args, name, dtype, folder):
    """Seconds of every stage, by what they are of."""
    shape = inputs.SHAPES[name]
    model = inputs.model(folder / name, name)
    side = Palinode(args.palinode, folder / f"store-{name}-{dtype}", args.device)
    shutil.rmtree(side.store, ignore_errors=True)
    path = folder / f"{name}-{dtype}.yaml"
    path.write_text(pipeline(model, shape, dtype, folder, args.edits, args.tokens, args.parallel_requests))
    memory = Memory()
    memory.start()
    seconds = side.run(path)
    memory.on = False
    shutil.rmtree(side.store, ignore_errors=True)
    return {
        "first": seconds["model"] + seconds["warm"],
        "moments": seconds["moments"],
        "factors": seconds["factors"],
        "edits": {edits: [seconds[f"{stage}_{edits}"] for stage in ("targets", "update", "scores")] for edits in args.edits},
        "tokens/s": args.tokens / seconds["moments"],
        "moments, FLOP/s": args.tokens * moment_operations(shape) / seconds["moments"],
        "targets, FLOP/s": max(n * target_operations(shape) / seconds[f"targets_{n}"] for n in args.edits),
        "memory": memory.most,
    }
