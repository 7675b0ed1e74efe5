"""Pipelines from files and from code, their events, plans and mistakes, with the real program."""

import json
import subprocess
import unittest

import bench
import palinode
from palinode import stage


class Files(unittest.TestCase):
    def test_a_run_has_its_events_and_is_cached_afterwards(self):
        run, events = bench.demo()
        self.assertEqual((run.pipeline, run.ended), ("demo", "done"))
        self.assertEqual(events[0]["event"], "run_started")
        self.assertEqual((events[0]["run"], events[0]["stages"]), (run.id, 19))
        self.assertEqual(events[-1]["event"], "run_finished")
        self.assertTrue(any(event["event"] == "measured" and event["instance"] == "targets" for event in events))
        self.assertGreater(run.cost["peak_memory"], 1 << 20)
        again = palinode.Pipeline(bench.DEMO).run(**bench.how())
        self.assertEqual({told["state"]["finished"]["is"] for told in again._record["stages"]}, {"cached"})

    def test_validate_and_plan(self):
        checked = palinode.Pipeline(bench.DEMO).validate()
        self.assertEqual((checked.name, checked.stages, checked.instances, checked.absent), ("demo", 9, 25, []))
        bench.demo()
        plan = palinode.Pipeline(bench.DEMO).plan(**bench.how())
        self.assertEqual(plan.counts, {"cached": 19})
        plan = palinode.Pipeline(bench.DEMO).plan(**bench.how(more={"stages.update.with.lambda": 7}))
        self.assertEqual(plan.counts["will_run"], 4)
        self.assertGreater(plan.seconds, 0)
        self.assertEqual(len(plan.frame()), 19)

    def test_a_part_of_a_pipeline(self):
        run = palinode.Pipeline(bench.DEMO).run(until="plan", **bench.how(bench.FOLDER / "part"))
        self.assertEqual([told["stage"] for told in run._record["stages"] if told.get("key")], ["plan", "plan"])

    def test_a_run_is_watched_as_it_goes_on(self):
        with palinode.Pipeline(bench.DEMO).start(force="plan", **bench.how()) as running:
            kinds = [event["event"] for event in running]
            run = running.wait()
        self.assertEqual((kinds[0], kinds[-1], run.id), ("run_started", "run_finished", running.id))


class Code(unittest.TestCase):
    def build(self, **changed):
        stages = {
            "model": stage("load_model", path=bench.MODEL / "model"),
            "edits": stage("load_requests", path="requests.json", limit=4),
            "moments": stage("covariance", {"model": "model"}, corpus="corpus.txt", layers="${vars.layers}", samples=64),
            "targets": stage("targets", {"model": "model", "requests": "edits"}, layer="${vars.layers[-1]}", steps=5),
            "plan": stage("distribute", strategy="single", layers="${vars.layers}"),
            "update": stage(
                "solve",
                {"model": "model", "requests": "edits", "moments": "moments", "targets": "targets", "plan": "plan"},
                objective="memit",
                lambda_="${matrix.lambda}",
            ),
        }
        return palinode.Pipeline.build(
            "built", stages | changed, vars={"layers": [1, 2]}, matrix={"lambda": [10, 1000]}, base=bench.MODEL
        )

    def test_a_pipeline_that_was_built_in_code_runs(self):
        before = sorted(bench.MODEL.iterdir())
        pipeline = self.build()
        self.assertEqual(pipeline.validate().instances, 7)
        run = pipeline.run(store=bench.STORE)
        self.assertEqual(sorted(bench.MODEL.iterdir()), before, "nothing is left in the base folder")
        errors = run.table("update").set_index("lambda")["error_after"]
        self.assertLess(errors[10], errors[1000])
        self.assertEqual(run.artifact("update", **{"lambda": 10}).params["lambda"], 10)
        saved = pipeline.save(bench.FOLDER / "built.yaml")
        self.assertEqual(json.loads(saved.text)["name"], "built")

    def test_mistakes_have_a_place(self):
        pipeline = self.build(plan=stage("distribute", strategy="singel", layers=[1]))
        with self.assertRaises(palinode.PipelineError) as caught:
            pipeline.validate()
        (mistake,) = caught.exception.mistakes
        self.assertIn("singel", mistake.message)
        self.assertGreater(mistake.line, 1)
        self.assertIn("`single`", str(caught.exception))

    def test_what_cannot_be_written_into_a_pipeline(self):
        for value in (float("nan"), object()):
            with self.assertRaises(palinode.UsageError):
                palinode.Pipeline.build("no", {"a": stage("load_model", path=value)})

    def test_numbers_of_numpy_are_numbers(self):
        import numpy as np

        pipeline = palinode.Pipeline.build("n", {}, vars={"layers": np.arange(3), "lambda": np.float64(2.5)})
        self.assertEqual(json.loads(pipeline.text)["vars"], {"layers": [0, 1, 2], "lambda": 2.5})


class Errors(unittest.TestCase):
    def raised(self, kind, call, *args, **kwargs):
        with self.assertRaises(kind) as caught:
            call(*args, **kwargs)
        self.assertIs(type(caught.exception), kind)
        return caught.exception

    def test_each_exit_code_is_an_exception(self):
        pipeline = palinode.Pipeline(bench.DEMO)
        error = self.raised(palinode.PipelineError, pipeline.run, store=bench.STORE, set={"stages.targets.with.steps": -1})
        self.assertIn("steps", str(error))
        self.raised(palinode.UsageError, palinode.Pipeline(bench.FOLDER / "none.yaml").run, store=bench.STORE)
        self.raised(palinode.UsageError, pipeline.run, store=bench.STORE, jobs=0)
        with pipeline.start(force="moments", **bench.how()) as running:
            next(iter(running))
            error = self.raised(palinode.StoreError, pipeline.run, **bench.how())
            self.assertIn("--wait", str(error))
        error = self.raised(palinode.InputError, pipeline.run, **bench.how(more={"stages.edits.with.path": "nothing.json"}))
        self.assertIn("nothing.json", str(error))

    def test_a_failed_run_keeps_what_it_finished(self):
        # The same subject at the same prompt, twice, with two targets: no exact solution has both.
        wrong = bench.FOLDER / "requests.json"
        first, second = json.loads((bench.MODEL / "requests.json").read_text())[:2]
        second["requested_rewrite"] = {**first["requested_rewrite"], "target_new": second["requested_rewrite"]["target_new"]}
        wrong.write_text(json.dumps([first, second]))
        few = bench.how(bench.FOLDER / "failed", {"stages.edits.with.path": str(wrong), "stages.update.with.emmet_lambda": 0})
        with self.assertRaises(palinode.PalinodeError) as caught:
            palinode.Pipeline(bench.DEMO).run(**few, preflight=False, keep_going=True)
        error = caught.exception
        self.assertIs(type(error), palinode.NumericalError)
        self.assertEqual(error.run.ended, "failed")
        self.assertEqual(error.run.artifact("moments").kind, "moments")

    def test_what_a_callback_raises_stops_the_run(self):
        def callback(event):
            if event["event"] == "stage_started":
                raise ValueError("enough")

        with self.assertRaisesRegex(ValueError, "enough"):
            palinode.Pipeline(bench.DEMO).run(progress=callback, force="moments", **bench.how())
        # The store is free again.
        palinode.Pipeline(bench.DEMO).run(**bench.how())

    def test_a_program_that_is_not_there(self):
        code = "import palinode; palinode.program()"
        env = bench.plain_environment() | {"PALINODE_PROGRAM": "/nowhere/palinode"}
        done = subprocess.run([bench.PYTHON, "-c", code], env=env, capture_output=True, text=True)
        self.assertIn("/nowhere/palinode, which is no program", done.stderr)


if __name__ == "__main__":
    unittest.main()
