"""The program under test, and what it leaves behind."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
TYPES = {"F32": np.float32, "F64": np.float64}


def tensors(path):
    """The tensors of a safetensors file."""
    data = Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    found = {}
    for name, info in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__" and info["dtype"] in TYPES:
            begin, end = info["data_offsets"]
            values = np.frombuffer(data[8 + size + begin : 8 + size + end], TYPES[info["dtype"]])
            found[name] = values.reshape(info["shape"]).astype(np.float64)
    return found


class Palinode:
    """The program with a store and a device."""

    def __init__(self, program, store, device):
        self.program, self.store, self.device = str(program), store, device

    def run(self, pipeline):
        """Runs a pipeline, one stage after the other; seconds by instance."""
        command = [self.program, "run", str(pipeline), "--store", str(self.store), "--device", self.device, "--jobs", "1", "--quiet"]
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

    def doctor(self, *more):
        """What it says of the machine."""
        done = subprocess.run([self.program, "doctor", "--json", *more], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        return json.loads(done.stdout)
