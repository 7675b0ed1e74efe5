"""Tables and arrays of a run, against what the program prints and what the formulas say."""

import json
import struct
import subprocess
import unittest

import bench
import numpy as np
import palinode
from palinode._tensors import TensorFile


class Tables(unittest.TestCase):
    def test_scores_are_what_the_program_prints(self):
        run, _ = bench.demo()
        scores = run.scores()
        self.assertEqual(list(scores.columns[:3]), ["stage", *bench.AXES])
        self.assertEqual(len(scores), 4)
        self.assertTrue(scores["ES"].between(0, 1).all())
        self.assertEqual(scores.attrs["columns"]["ES"]["better"], "max")
        args = [palinode.program(), "show", f"{run.id}:scores", "--store", bench.STORE, "--json"]
        told = json.loads(subprocess.run(args, check=True, capture_output=True).stdout)["results"]
        for _, row in scores.iterrows():
            name = f"scores[objective={row['objective']},strategy={row['strategy']}]"
            self.assertEqual(row["S"], told[name]["output"]["meta"]["metrics"]["S"])
        wide = run.scores(intervals=True)
        self.assertTrue((wide["ES_low"] <= wide["ES"]).all() and (wide["ES"] <= wide["ES_high"]).all())
        first = f"scores[objective={wide.at[0, 'objective']},strategy={wide.at[0, 'strategy']}]"
        self.assertEqual([wide.at[0, "NS_low"], wide.at[0, "NS_high"]], told[first]["output"]["meta"]["intervals"]["NS"])

    def test_a_metric_follows_from_the_records(self):
        run, _ = bench.demo()
        cell = {"objective": "memit", "strategy": "memit"}
        records = run.artifact("scores", **cell).records()
        rewrites = records[records["edited"] & (records["kind"] == "rewrite")]
        scores = run.scores().set_index(list(bench.AXES))
        self.assertEqual(len(rewrites), 6)
        self.assertAlmostEqual((rewrites["p"] > rewrites["p_true"]).mean(), scores.loc[("memit", "memit"), "ES"])
        self.assertAlmostEqual((rewrites["p"] - rewrites["p_true"]).mean(), scores.loc[("memit", "memit"), "EM"])
        lines = run.artifact("scores", **cell).records("records.jsonl")
        self.assertEqual(list(lines["id"]), [str(at) for at in range(6)])

    def test_stages_and_runs(self):
        run, _ = bench.demo()
        stages = run.stages()
        self.assertEqual(len(stages), 19)
        self.assertEqual(set(stages["state"]), {"ran"})
        listed = palinode.runs(bench.STORE, pipeline="demo", limit=0)
        self.assertIn(run.id, list(listed["run"]))
        self.assertEqual(palinode.open_run(run.id, bench.STORE).id, run.id)

    def test_a_report_is_written(self):
        run, _ = bench.demo()
        page = run.report(bench.FOLDER / "report.html", assets=bench.FOLDER / "assets")
        self.assertIn("<html", page.read_text(encoding="utf-8"))
        self.assertTrue(any((bench.FOLDER / "assets").rglob("*.csv")))

    def test_what_is_not_there_is_said_with_what_is(self):
        run, _ = bench.demo()
        for call, words in [
            (lambda: run.table("score"), "it has model, edits"),
            (lambda: run.artifact("scores"), "4 results"),
            (lambda: run.artifact("scores", objective="rome"), "no result"),
            (lambda: run.artifact("scores", layer=3), "its axes are objective, strategy"),
        ]:
            with self.assertRaisesRegex(palinode.UsageError, words):
                call()
        with self.assertRaisesRegex(palinode.InputError, "targets.safetensors"):
            run.artifact("targets").path("none")


class Arrays(unittest.TestCase):
    def test_targets_and_moments(self):
        run, _ = bench.demo()
        targets = run.artifact("targets").tensors()
        self.assertEqual(targets["delta"].shape, (6, 192))
        norm = np.linalg.norm(targets["delta"].astype(np.float64), axis=1).mean()
        self.assertAlmostEqual(norm, run.artifact("targets").facts["metrics"]["norm"], places=5)
        moments = run.artifact("moments")
        sums = moments.tensors()
        self.assertEqual(sorted(sums), ["layer0/sum", "layer1/sum", "layer2/sum"])
        self.assertEqual((sums["layer0/sum"].dtype, sums["layer0/sum"].shape), (np.float64, (768, 768)))
        traced = moments.facts["layers"][0]
        self.assertAlmostEqual(np.trace(sums["layer0/sum"]) / traced["tokens"], traced["trace"], places=6)

    def test_an_exported_update_is_the_one_in_the_store_rounded(self):
        run, _ = bench.demo()
        cell = {"objective": "emmet", "strategy": "memit"}
        kept = run.artifact("update", **cell).tensors()
        file = TensorFile(bench.OUT / "emmet-memit" / "update.safetensors")
        for layer in range(3):
            name = f"transformer.h.{layer}.mlp.c_proj.weight"
            exported = file.numpy(f"{name}.left").astype(np.float64) @ file.numpy(f"{name}.right").astype(np.float64)
            whole = kept[f"batch0.layer{layer}.left"] @ kept[f"batch0.layer{layer}.right"]
            self.assertLess(np.linalg.norm(exported - whole) / np.linalg.norm(whole), 1e-6)
        # The system of each weight, which the ledger has too: symmetric, as large as the batch.
        system = run.artifact("update", **cell).tensors("solved.safetensors")["0.0.system"]
        self.assertEqual(system.shape, (6, 6))
        self.assertLess(np.abs(system - system.T).max(), 1e-9 * np.abs(system).max())
        update = palinode.Update(bench.OUT / "emmet-memit")
        self.assertEqual((len(update.weights), update.requests), (3, [str(at) for at in range(6)]))

    def test_damaged_files_are_refused(self):
        path = bench.FOLDER / "damaged.safetensors"
        whole = (bench.OUT / "emmet-memit" / "update.safetensors") if bench.demo() else None
        bytes_ = whole.read_bytes()
        long = struct.pack("<Q", 1 << 60) + bytes_[8:]
        for damaged in (b"", b"12345678", bytes_[:100], bytes_[:-1], long, struct.pack("<Q", 2) + b"[]"):
            path.write_bytes(damaged)
            with self.assertRaisesRegex(palinode.InputError, "not a safetensors file"):
                TensorFile(path)
        with self.assertRaisesRegex(palinode.InputError, "cannot read"):
            palinode.Update(bench.FOLDER / "nothing")

    def test_half_precision(self):
        header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
        path = bench.FOLDER / "bf16.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<HH", 0x3F80, 0xC020))
        self.assertEqual(TensorFile(path).numpy("a").tolist(), [1.0, -2.5])


if __name__ == "__main__":
    unittest.main()
