"""Edits of an update listed and taken off, by the program, with its ledger."""

import shutil
import subprocess
import unittest
from pathlib import Path

import bench
import palinode


def exported(cell):
    bench.demo()
    return palinode.Update(bench.OUT / cell)


class Ledger(unittest.TestCase):
    def test_edits_are_listed_with_what_is_known_of_them(self):
        edits = exported("memit-single").edits()
        self.assertEqual([edit.number for edit in edits], [1, 2, 3, 4, 5, 6])
        self.assertEqual([edit.request for edit in edits], [str(at) for at in range(6)])
        for edit in edits:
            self.assertIn(edit.subject, edit.prompt)
            self.assertTrue(edit.target and edit.when and edit.layers == ("2",))
            self.assertEqual((edit.file, edit.superseded_by, edit.alone), ("demo.yaml", None, True))

    def test_an_update_without_some_of_its_edits_is_what_the_program_makes_of_it(self):
        update = exported("memit-single")
        before = update.path.read_bytes()
        edits = update.edits()
        less = update.without(edits[1], 5)
        self.assertEqual([edit.number for edit in less.edits()], [1, 3, 4, 6])
        self.assertEqual(less.requests, ["0", "2", "3", "5"])
        self.assertEqual(less.weights, update.weights)
        folder = bench.FOLDER / "by-the-program"
        args = [palinode.program(), "revert", update.path, "--edit", "2", "--edit", "5", "--output", folder]
        subprocess.run(args, check=True, capture_output=True)
        self.assertEqual(less.path.read_bytes(), (folder / "update.safetensors").read_bytes())
        self.assertEqual(update.path.read_bytes(), before)
        # Another one off what is left, by its subject.
        least = less.without(edits[0].subject, output=bench.FOLDER / "least")
        self.assertEqual([edit.number for edit in palinode.Update(bench.FOLDER / "least").edits()], [3, 4, 6])
        self.assertEqual(least.path, bench.FOLDER / "least" / "update.safetensors")
        # A folder that nobody named goes with its update.
        place = less.path.parent
        self.assertTrue(place.is_dir())
        del less
        self.assertFalse(place.exists())

    def test_over_several_layers_it_is_solved_again(self):
        update = exported("memit-memit")
        with self.assertRaisesRegex(palinode.InputError, "there is no model to measure on"):
            update.without(2)
        how = {"base": bench.MODEL / "model", "store": bench.STORE}
        with self.assertRaisesRegex(palinode.InputError, "second moments of layer 0 are not in the store"):
            update.without(2, **how | {"store": bench.FOLDER / "no-store"})
        less = update.without(2, **how)
        self.assertEqual([edit.number for edit in less.edits()], [1, 3, 4, 5, 6])

    def test_what_is_no_edit_is_an_error(self):
        update = exported("memit-single")
        with self.assertRaises(palinode.UsageError):
            update.without()
        for edit, words in [(7, "none of the 6 edits of .* is `7`"), ("-1", "is `-1`"), ("nobody", "is `nobody`")]:
            with self.assertRaisesRegex(palinode.InputError, words):
                update.without(edit)
        with self.assertRaisesRegex(palinode.InputError, "nothing would be left"):
            update.without(1, 2, 3, 4, 5, 6)
        occupied = bench.FOLDER / "occupied"
        occupied.mkdir()
        (occupied / "mine.txt").write_text("mine")
        with self.assertRaises(palinode.InputError):
            update.without(1, output=occupied)
        self.assertEqual([path.name for path in occupied.iterdir()], ["mine.txt"])
        # Without its ledger, the names are all that is known.
        alone = bench.FOLDER / "alone" / "update.safetensors"
        alone.parent.mkdir()
        shutil.copy(update.path, alone)
        bare = palinode.Update(alone)
        self.assertEqual([(edit.number, edit.request) for edit in bare.edits()][:2], [(None, "0"), (None, "1")])
        for edit in (bare.edits()[0], 1):
            with self.assertRaisesRegex(palinode.InputError, "ledger"):
                bare.without(edit)
        self.assertEqual(Path(bare.path), alone)


if __name__ == "__main__":
    unittest.main()
