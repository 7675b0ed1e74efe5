"""Times one case, in the same words as `crates/stages/benches/measure`: `python -m reference.measure CASE key=value …`.

Prints one JSON object: seconds of wall clock and of CPU time of what the case measures (loading is not part of it), and
the process's peak memory in MiB. `device=cuda` and `dtype=bf16` compute on a GPU, once before the clock runs.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch

from . import edit as editing
from . import evaluate as judging
from . import moments as statistics
from . import targets as finding
from .model import Subject

MEMIT_WEIGHT = 15_000.0


def measured(work, flops=None, device="cpu"):
    def whole():
        work()
        if device != "cpu":
            torch.cuda.synchronize()

    if device != "cpu":
        whole()
    wall, cpu = time.perf_counter(), time.process_time()
    whole()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = flops and flops / cpu / 1e9
    return {"wall": wall, "cpu": cpu, "peak_mib": peak, "gflops_per_cpu_second": rate}


def smooth_moment(f):
    """0.9 exp(−|i − j|/20) + 0.1: positive definite, and the same on both sides."""
    at = torch.arange(f, dtype=torch.float64)
    return 0.9 * torch.exp(-(at[:, None] - at[None]).abs() / 20) + 0.1


def generated(subject, prompts, length):
    """Texts of `length` tokens, each token one of the five most probable ones; how many tokens are new."""
    subject.tokenizer.padding_side = "left"
    tokens = subject.tokens(prompts)
    subject.tokenizer.padding_side = "right"
    shortest = int(tokens.attention_mask.sum(1).min())
    limits = {"max_new_tokens": length - shortest, "min_new_tokens": length - shortest}
    with torch.no_grad():
        subject.model.generate(**tokens, do_sample=True, top_k=5, pad_token_id=subject.tokenizer.pad_token_id, **limits)
    # Rows with longer prompts get a few tokens more than they need: those are not counted.
    return int(length * len(prompts) - tokens.attention_mask.sum())


class Case:
    def __init__(self, words):
        self.words = dict(word.split("=", 1) for word in words)
        self.device = self.words.get("device", "cpu")
        self.dtype = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16}[self.words.get("dtype", "f32")]

    def number(self, key):
        return int(self.words[key])

    def numbers(self, key):
        return [int(n) for n in self.words[key].split(",")]

    def path(self, name):
        return Path(self.words["inputs"]) / name

    def subject(self):
        return Subject(self.path(self.words["model"]), self.device, self.dtype)

    def records(self):
        return json.loads(self.path("requests.json").read_text())[: self.number("requests")]

    def requests(self):
        rewrites = [entry["requested_rewrite"] for entry in self.records()]
        return [{"prompt": r["prompt"], "subject": r["subject"], "target_new": r["target_new"]["str"]} for r in rewrites]

    def groups(self):
        return json.loads(self.path("templates.json").read_text())

    def hyper(self):
        return {
            "v_num_grad_steps": int(self.words.get("steps", 20)),
            "v_lr": 0.5,
            "kl_factor": 0.0625,
            "v_weight_decay": 0.5,
            "clamp_norm_factor": 0.75,
            "stop_loss": float(self.words.get("stop_loss", 5e-2)),
            "mom2_update_weight": MEMIT_WEIGHT,
            "emmet_lambda": 0.1,
        }

    def find(self, subject, requests):
        openings = [t for group in self.groups() for t in group]
        found = [finding.find(subject, r, self.number("layer"), openings, self.hyper()) for r in requests]
        return torch.stack([start + delta for start, delta, _ in found])

    def targets(self):
        subject, requests = self.subject(), self.requests()
        return measured(lambda: self.find(subject, requests), device=self.device)

    def moments(self):
        subject = self.subject()
        documents = self.path("corpus.txt").read_text().splitlines()[: self.number("documents")]
        budget = int(self.words["budget"]) if "budget" in self.words else None
        counts = []

        def work():
            for layer in self.numbers("layers"):
                counts.append(statistics.collect(subject, layer, documents, budget=budget)[1])

        return measured(work, device=self.device) | {"tokens": counts[0]}

    def scores(self):
        subject, records = self.subject(), self.records()
        found = []
        time = measured(lambda: found.extend(judging.record(subject, r) for r in records), device=self.device)
        values = [value for record in found for pairs in record.values() for pair in pairs for value in pair]
        return time | {"nll": sum(values) / len(values)}

    def texts(self):
        """`generate` in batches, as transformers has it: it keeps keys and values, and pads prompts on the left."""
        subject, requests = self.subject(), self.requests()
        count, length, batch = self.number("texts"), self.number("length"), int(self.words.get("batch", 32))
        prompts = [requests[i % len(requests)] for i in range(count)]
        prompts = [r["prompt"].format(r["subject"]) for r in prompts]
        made = []

        def work():
            made.clear()
            torch.manual_seed(1)
            for start in range(0, count, batch):
                made.append(generated(subject, prompts[start : start + batch], length))

        return measured(work, device=self.device) | {"new_tokens": sum(made)}

    def solve(self):
        """The published code factors anew for every batch: `cached` changes nothing."""
        f, d, batch = (self.number(key) for key in ("f", "d", "batch"))
        i, b = torch.arange(f, dtype=torch.float64), torch.arange(batch, dtype=torch.float64)
        k = torch.sin(0.37 * (i[:, None] + 1) * (b + 1))
        j = torch.arange(d, dtype=torch.float64)
        residual = torch.cos(0.11 * (j[:, None] + 2) * (b + 3))
        moment, k, residual = smooth_moment(f).float().to(self.device), k.to(self.device), residual.to(self.device)

        def work():
            p = editing.metric(moment, self.hyper())
            memit = self.words["objective"] == "memit"
            factor = editing.memit_factor(p, k) if memit else editing.emmet_factor(p, k, 0.1)
            return residual @ factor.T

        return measured(work, device=self.device)

    def round(self):
        """A round of a sequence at one layer, as the published code solves it: the whole system anew in every round. AlphaEdit's is in
        float32 there (`precision=f32`), MEMIT's in float64. `cold=1` has the singular vectors of C with it, as AlphaEdit needs them once."""
        f, d, batch = (self.number(key) for key in ("f", "d", "batch"))
        kind = {"f32": torch.float32, "f64": torch.float64}[self.words["precision"]]
        alphaedit, cold = self.words["method"] == "alphaedit", self.number("cold") == 1
        i = torch.arange(f, dtype=torch.float64)
        moment = smooth_moment(f).to(kind)

        def keys(number):
            b = torch.arange(batch, dtype=torch.float64) + number * batch
            return torch.sin(0.37 * (i[:, None] + 1) * (b + 1)).to(kind)

        j, b = torch.arange(d, dtype=torch.float64), torch.arange(batch, dtype=torch.float64)
        residual = torch.cos(0.11 * (j[:, None] + 2) * (b + 3)).to(kind)
        history = torch.zeros(f, f, dtype=kind)
        for number in range(self.number("before")):
            history += keys(number) @ keys(number).T
        kept = int(0.75 * f)
        # Any orthonormal basis takes as long as that of C.
        projector = None if cold or not alphaedit else torch.diag((i < kept).to(kind))

        def work():
            nonlocal history
            k = keys(self.number("before"))
            if alphaedit:
                if projector is None:
                    u = torch.linalg.svd(moment, full_matrices=False)[0][:, f - kept :]
                    p = u @ u.T
                else:
                    p = projector
                system = p @ (k @ k.T + history) + 10 * torch.eye(f, dtype=kind)
                change = torch.linalg.solve(system, p @ k @ residual.T).T
            else:
                factor = torch.linalg.solve(MEMIT_WEIGHT * moment + history + k @ k.T, k)
                change = residual @ factor.T
            history += k @ k.T
            return change

        return measured(work)

    def edit(self):
        if self.device != "cpu":
            sys.exit("edit changes the model, and what runs on a GPU runs twice: use targets, moments and solve")
        subject, requests, layers = self.subject(), self.requests(), self.numbers("layers")
        moment = smooth_moment(subject.module(subject.down, 0).weight.shape[0 if subject.in_out else 1]).float()
        moments = dict.fromkeys(layers, moment)

        def work():
            values = self.find(subject, requests)
            editing.apply(subject, "memit", requests, values, layers, moments, self.groups(), self.hyper())

        return measured(work)

    def gemm(self):
        m, k, n, repeat = (self.number(key) for key in ("m", "k", "n", "repeat"))
        a, b = (torch.randn(shape, device=self.device).to(self.dtype) for shape in ((m, k), (k, n)))
        a @ b
        return measured(lambda: [a @ b for _ in range(repeat)], 2.0 * m * k * n * repeat, self.device)

    def cholesky(self):
        f = self.number("f")
        p = (MEMIT_WEIGHT * smooth_moment(f)).to(self.device)
        return measured(lambda: torch.linalg.cholesky(p), f**3 / 3, self.device)


CASES = ("targets", "moments", "scores", "texts", "solve", "round", "edit", "gemm", "cholesky")


def main(kind, doc):
    if len(sys.argv) < 2 or sys.argv[1] not in CASES:
        sys.exit(doc + f"\nCases: {', '.join(CASES)}")
    case = kind(word for word in sys.argv[2:] if not word.startswith("threads="))
    threads = [word for word in sys.argv[2:] if word.startswith("threads=")]
    torch.set_num_threads(int(threads[0].split("=")[1]) if threads else 2)
    print(json.dumps(getattr(case, sys.argv[1])()))


if __name__ == "__main__":
    main(Case, __doc__)
