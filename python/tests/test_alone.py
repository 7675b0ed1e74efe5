"""With the standard library alone: what works, and what is said of the rest."""

import subprocess
import sys
import unittest

import bench

PROGRAM = """
import sys
for name in ("numpy", "pandas", "pyarrow", "torch", "peft", "safetensors"):
    sys.modules[name] = None
import palinode
run = palinode.open_run(sys.argv[1], sys.argv[2])
targets = run.artifact("targets")
assert targets.facts["requests"] == 6
assert len(list(run.artifact("scores", objective="memit", strategy="memit").lines("records.jsonl"))) == 6
assert palinode.Update(sys.argv[3]).requests[0] == "0"
for call in (run.scores, targets.tensors, lambda: palinode.apply(None, sys.argv[3]), lambda: palinode.load_adapter(None, sys.argv[3])):
    try:
        call()
    except ImportError as error:
        print(error)
"""


class Alone(unittest.TestCase):
    def test_only_the_standard_library(self):
        run, _ = bench.demo()
        args = [run.id, str(bench.STORE), str(bench.OUT / "memit-memit")]
        done = subprocess.run([sys.executable, "-c", PROGRAM, *args], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        said = [line.split(", which")[0] for line in done.stdout.splitlines()]
        self.assertEqual(
            said, ["tables need pandas", "arrays need numpy", "edits of a model need torch", "adapters need peft"]
        )
        self.assertIn('pip install "palinode[tables]"', done.stdout)


if __name__ == "__main__":
    unittest.main()
