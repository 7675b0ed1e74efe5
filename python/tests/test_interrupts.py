"""Ctrl-C, as a terminal sends it: to a Python program that runs a pipeline."""

import json
import os
import signal
import subprocess
import sys
import unittest

import bench
import palinode

#: Tells each event on stdout, and what ended it.
PROGRAM = """
import json, sys, palinode
how = json.loads(sys.argv[2])
try:
    palinode.Pipeline(sys.argv[1]).run(progress=lambda event: print(json.dumps(event), flush=True), **how)
except KeyboardInterrupt:
    print(json.dumps({"event": "interrupted"}), flush=True)
"""


def ctrl_c(program):
    """As a terminal does it: to every process of the group. One that got it from there and from Python too would stop in the middle."""
    os.killpg(program.pid, signal.SIGINT)


def end(program):
    while program.poll() is None:
        ctrl_c(program)
        try:
            program.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue


class Interrupts(unittest.TestCase):
    def begin(self, how, until):
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(bench.DEMO), json.dumps(how)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=bench.plain_environment(),
            start_new_session=True,
        )
        # Last of all, and only where a test failed: nothing of it goes on.
        self.addCleanup(end, program)
        self.addCleanup(program.stdout.close)
        self.addCleanup(program.stderr.close)
        for line in program.stdout:
            event = json.loads(line)
            if event["event"] == until[0] and event.get("instance") == until[1]:
                return program
        self.fail(f"there was no {until}: {program.stderr.read()}")

    def test_once_stops_after_the_unit_and_the_same_call_goes_on(self):
        how = bench.how(bench.FOLDER / "interrupted", {"stages.moments.with.samples": 2000})
        program = self.begin(how, ("unit_done", "moments"))
        ctrl_c(program)
        rest = [json.loads(line)["event"] for line in program.stdout]
        said = program.stderr.read()
        self.assertEqual((program.wait(), rest[-1]), (0, "interrupted"), said)
        self.assertIn("finishing this unit", said)
        self.assertEqual(palinode.open_run(store=how["store"]).ended, "interrupted")
        events = []
        palinode.Pipeline(bench.DEMO).run(events.append, until="moments", **how)
        kept = [event["kept"] for event in events if event["event"] == "progress" and event["what"] == "documents"]
        self.assertGreater(max(kept), 0, "it went on from the unit that was kept")

    def test_twice_stops_in_the_middle_of_a_unit(self):
        long = {"stages.targets.with.steps": 100_000, "stages.targets.with.stop_loss": 1e-9}
        how = bench.how(bench.FOLDER / "killed", long)
        program = self.begin(how, ("measured", "targets"))
        ctrl_c(program)
        for line in program.stderr:
            if "finishing this unit" in line:
                break
        goes_on = [json.loads(program.stdout.readline())["event"] for _ in range(20)]
        self.assertLessEqual({"measured"}, set(goes_on))
        self.assertNotIn("interrupted", goes_on, "once does not end a unit")
        ctrl_c(program)
        rest = [json.loads(line)["event"] for line in program.stdout]
        self.assertEqual((program.wait(), rest[-1]), (0, "interrupted"))
        # Its process is gone, and the store is free.
        self.assertEqual(palinode.open_run(store=how["store"]).ended, "lost")
        palinode.Pipeline(bench.DEMO).run(until="plan", **how)

    def test_a_run_is_stopped_without_a_signal(self):
        with palinode.Pipeline(bench.DEMO).start(force="moments", **bench.how()) as running:
            next(event for event in running if event["event"] == "unit_done")
            running.stop()
            with self.assertRaises(KeyboardInterrupt):
                running.wait()
        self.assertEqual(palinode.open_run(running.id, bench.STORE).ended, "interrupted")


if __name__ == "__main__":
    unittest.main()
