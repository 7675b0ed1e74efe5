"""Compares this implementation with the authors' numbers."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from . import edit, evaluate, moments, targets
from .model import Subject


def read(path):
    return json.loads(Path(path).read_text())


def relative(ours, theirs):
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


class Report:
    def __init__(self):
        self.failed = 0

    def __call__(self, what, found, limit):
        good = found <= limit
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {what:58} {found:9.1e}   of {limit:.0e}", flush=True)


def tolerance(gpt2, layer, ridge):
    if ridge:
        return 2e-4
    if not gpt2:
        return 2e-4
    return 5e-3 if layer == 0 else 2e-2


def run(folder):
    """Every quantity of a golden folder; returns the number of differences over their tolerance."""
    folder, report = Path(folder), Report()
    subject = Subject(folder / "model")
    gpt2 = folder.name == "gpt2"
    records = read(folder / "requests.json")
    requests = [
        {"prompt": r["prompt"], "subject": r["subject"], "target_new": r["target_new"]["str"]}
        for r in (e["requested_rewrite"] for e in records)
    ]
    templates = read(folder / "templates.json")
    groups, flat = templates["memit_emmet"], templates["rome"]
    experiments = read(folder / "experiments.json")
    main = experiments[0]["hparams"]

    keys = load_file(folder / "keys.safetensors")
    for layer in range(3):
        report(f"keys, layer {layer}", relative(edit.keys(subject, requests[:8], layer, groups), keys[f"layer{layer}.keys"]), 1e-5)
        now = edit.current(subject, requests[:8], layer)
        report(f"block output, layer {layer}", relative(now, keys[f"layer{layer}.block_out_bare_prompt"]), 1e-5)

    facts = read(folder / "mom2.json")
    stored = load_file(folder / "mom2.safetensors")
    lines = (folder.parent / "data" / "mom2_corpus.txt").read_text().splitlines()[: facts["corpus_lines"]]
    collected = {}
    for layer in range(3):
        total, count = moments.collect(subject, layer, lines)
        collected[layer] = total / count
        report(f"tokens counted, layer {layer}", abs(count - facts["layers"][str(layer)]["count"]), 0)
        report(f"second moment, layer {layer}", relative(collected[layer][:64, :64], stored[f"layer{layer}.block64"]), 1e-5)

    tensors = load_file(folder / "compute_z.safetensors")
    cache = {}
    for found in read(folder / "compute_z.json"):
        hyper = dict(main)
        if found["key"].startswith("zc075"):
            hyper.update(clamp_norm_factor=0.75, v_num_grad_steps=20)
        openings = [t for g in groups for t in g]
        start, delta, losses = targets.find(subject, requests[found["request"]], found["z_layer"], openings, hyper)
        cache[found["key"]] = start + delta
        report(f"steps of {found['key']}", abs(len(losses) - len(found["steps"])), 0)
        report(f"loss of {found['key']}", max(abs(a - b["loss"]) for a, b in zip(losses, found["steps"])), 1e-3)
        theirs = tensors[f"{found['key']}.target_init"] + tensors[f"{found['key']}.delta"]
        report(f"z of {found['key']}", relative(start + delta, theirs), 1e-3)

    kept = {n: t.clone() for n, t in subject.model.state_dict().items()}
    for experiment in experiments:
        name, layers, hyper = experiment["id"], experiment["layers"], experiment["hparams"]
        tag = "zc075" if "clamp0.75" in name else "z"
        values = torch.stack([cache[f"{tag}.layer{layers[-1]}.req{r}"] for r in experiment["requests"]])
        chosen = [requests[r] for r in experiment["requests"]]
        made = edit.apply(subject, experiment["alg"], chosen, values, layers, collected, groups, hyper)
        golden = load_file(folder / f"{name}.safetensors")
        for layer, (residual, factor) in made.items():
            theirs = golden[f"layer{layer}.resid"].double() @ golden[f"layer{layer}.adj_k"].double().T
            limit = tolerance(gpt2, layer, hyper.get("update_norm_lambda", 0))
            report(f"change of {name}, layer {layer}", relative(residual @ factor.T, theirs), limit)
        after = folder / f"{name}.eval_after.json"
        if after.exists():
            report(f"likelihoods after {name}", likelihoods(subject, records, read(after)), 2e-2)
        subject.model.load_state_dict(kept)
    report("likelihoods before", likelihoods(subject, records, read(folder / "eval_before.json")), 1e-3)

    golden = load_file(folder / "rome.safetensors")
    for found in read(folder / "rome.json"):
        if not found["id"].startswith("rome_single") or "edit" not in found:
            continue
        layer, request = found["layers"][0], requests[found["request"]]
        start, delta, _ = targets.find(subject, request, layer, flat, found["hparams"], site="mlp")
        left, right = edit.rome(subject, request, layer, collected[layer], flat, start + delta)
        stem = f"{found['id']}.edit{found['edit']}"
        limit = (5e-3 if layer == 0 else 2e-2) if gpt2 else 5e-3
        report(f"left vector of {stem}", relative(left, golden[f"{stem}.left_vector_f64run"]), limit)
        report(f"right vector of {stem}", relative(right, golden[f"{stem}.right_vector_f64run"]), limit)
    return report.failed


def likelihoods(subject, records, golden):
    """Largest difference of any prompt's mean negative log-likelihood."""
    by_id = {r["case_id"]: r for r in records}
    worst = 0.0
    for entry in golden:
        ours = evaluate.record(subject, by_id[entry["case_id"]])
        for kind in ("rewrite", "paraphrase", "neighborhood"):
            for (new, true), theirs in zip(ours[kind], entry[f"{kind}_prompts_probs"]):
                worst = max(worst, abs(new - theirs["target_new_prob"]), abs(true - theirs["target_true_prob"]))
    return worst
