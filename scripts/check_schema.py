#!/usr/bin/env python3
"""Checks the schemas of pipelines and of parts with the tools that editors and checks of a repository use.

    python3 scripts/check_schema.py [--program target/release/palinode]

Every file in pipelines/, and the one that `palinode init` writes, must be accepted by check-jsonschema and by yaml-language-server; a list
of wrong pipelines must be refused by both, and by `palinode validate`. Both tools are installed into a temporary folder: pip and npm are
needed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "pipelines/demo.yaml"

# What is wrong in each, as a change to the demo's pipeline: what stands there, and what takes its place.
WRONG = [
    ("lambda: 100", "lambda: -1"),
    ("lambda: 100", "lambda: much"),
    ("emmet_lambda: 0.1", "emmet_lambda: -0.1"),
    ("steps: 40", "steps: 0"),
    ("steps: 40", "steps: 2.5"),
    ("clamp: 2", "clamp: -2"),
    ("learning_rate: 0.05", "learning_rate: 0"),
    ("limit: 32", "limit: many"),
    ("limit: 32", "limits: 32"),
    ("samples: 3000", "samples: 0"),
    ("corpus: ../examples/demo-model/corpus.txt, ", ""),
    ("uses: covariance\n    inputs: { model: model }", "uses: covariance"),
    ("uses: covariance\n    inputs: { model: model }", "uses: covariance\n    inputs: { modell: model }"),
    ("uses: solve", "uses: sovle"),
    ("    uses: evaluate\n", ""),
    ("uses: evaluate", "uses: evaluate\n    retries: -1"),
    ("uses: evaluate", "uses: evaluate\n    timeout: soon"),
    ("uses: evaluate", "uses: evaluate\n    whit: {}"),
    ("name: demo\n", ""),
    ("name: demo\n", "name: demo\nnumerics: loose\n"),
    ("matrix:", "matrx:"),
    ("batch: 0", "batch: -1"),
    ("batch: 0", "batch: 0, formats: [modell]"),
]
# The same in a part: what is missing is no mistake there.
WRONG_PART = [
    "stages: { targets: { with: { steps: 0 }, uses: targets } }",
    "stages: { targets: { uses: targets, with: { stepz: 3 } } }",
    "stages: { targets: { uses: targetz } }",
    "stages: { targets: { uses: targets, inputs: { modell: model } } }",
    "stage: {}",
]
PARTS = ["{}", "vars: { a: 1 }", "stages: { x: ~ }", "stages: { x: { inputs: { a: ~ } } }", "stages: { x: { uses: targets } }"]


class Server:
    """yaml-language-server, spoken to as an editor does."""

    def __init__(self, program: Path):
        self.process = subprocess.Popen([program, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.number = 0
        self.ask("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
        self.send({"method": "initialized", "params": {}})

    def send(self, message: dict):
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def read(self) -> dict:
        length = 0
        while line := self.process.stdout.readline().strip():
            name, value = line.split(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if not length:
            sys.exit("yaml-language-server ended")
        message = json.loads(self.process.stdout.read(length))
        # It asks for settings; the defaults will do.
        if "id" in message and "method" in message:
            items = message.get("params", {}).get("items", [])
            self.send({"id": message["id"], "result": [None for _ in items] or None})
        return message

    def ask(self, method: str, params: dict):
        self.number += 1
        self.send({"id": self.number, "method": method, "params": params})
        while self.read().get("id") != self.number:
            pass

    def problems(self, files: dict[Path, Path]) -> dict[Path, list[str]]:
        """What it says of files, each under a schema that a first line chooses as in an editor."""
        told = {}
        uris = {path.as_uri() + ".shown.yaml": path for path in files}
        for uri, path in uris.items():
            text = f"# yaml-language-server: $schema={files[path].as_uri()}\n{path.read_text()}"
            document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
            self.send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        while len(told) < len(files):
            message = self.read()
            if message.get("method") == "textDocument/publishDiagnostics":
                found = message["params"]
                told[uris[found["uri"]]] = [problem["message"] for problem in found["diagnostics"]]
        return told


def refused(tool: Path, schema: Path, files: list[Path]) -> dict[str, str]:
    """The files that check-jsonschema refuses, and why."""
    ran = subprocess.run([tool, "--schemafile", schema, "--output-format", "json", *files], capture_output=True, text=True)
    told = json.loads(ran.stdout)
    return {error["filename"]: error["message"] for error in told.get("errors", []) + told.get("parse_errors", [])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/palinode")
    program = parser.parse_args().program.resolve()
    with tempfile.TemporaryDirectory() as folder:
        check(program, Path(folder))


def check(program: Path, folder: Path):
    venv.create(folder / "venv", with_pip=True)
    subprocess.run([folder / "venv/bin/pip", "-q", "install", "check-jsonschema"], check=True)
    subprocess.run(["npm", "install", "--silent", "--prefix", folder / "npm", "yaml-language-server"], check=True)
    server = Server(folder / "npm/node_modules/.bin/yaml-language-server")
    whole, part = folder / "pipeline.schema.json", folder / "part.schema.json"
    subprocess.run([program, "schema", "--output", whole], check=True)
    subprocess.run([program, "schema", "--part", "--output", part], check=True)
    tool = folder / "venv/bin/check-jsonschema"

    work = folder / "work"
    work.mkdir()
    subprocess.run([program, "init", "--model", ROOT / "examples/demo-model/model", work / "init"], check=True, capture_output=True)
    # File, schema, whether it is wrong, and how it is named here.
    cases: list[tuple[Path, Path, bool, str]] = []
    for path in sorted((ROOT / "pipelines").rglob("*.yaml")) + [work / "init/pipeline.yaml"]:
        is_part = not any(line.startswith("name:") for line in path.read_text().splitlines())
        cases.append((path, part if is_part else whole, False, str(path)))
    assert all(old in DEMO.read_text() for old, _ in WRONG), "the demo has changed: look through WRONG"
    texts = [(DEMO.read_text().replace(old, new), whole, True, f"{old!r} -> {new!r}") for old, new in WRONG]
    texts += [(text, part, True, text) for text in WRONG_PART] + [(text, part, False, text) for text in PARTS]
    for number, (text, schema, is_wrong, what) in enumerate(texts):
        path = work / f"case{number}.yaml"
        path.write_text(text.replace("../examples", str(ROOT / "examples")))
        cases.append((path, schema, is_wrong, what))

    by_tool = {}
    for schema in (whole, part):
        by_tool |= refused(tool, schema, [path for path, of, _, _ in cases if of == schema])
    by_server = server.problems({path: schema for path, schema, _, _ in cases})
    failures = []
    for path, schema, is_wrong, what in cases:
        options = ["--part"] if schema == part else []
        validated = subprocess.run([program, "validate", *options, path], capture_output=True, text=True)
        found = {
            "check-jsonschema": by_tool.get(str(path)),
            "yaml-language-server": "\n".join(by_server[path]),
            "validate": validated.stderr if validated.returncode == 3 else "",
        }
        for who, said in found.items():
            if bool(said) != is_wrong:
                failures.append(f"{what}: {who} {'refuses' if said else 'accepts'} it: {said or ''}")
    count = len(cases)
    for failure in failures:
        print(failure, file=sys.stderr)
    print(f"{count} files, {len(failures)} differences")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
