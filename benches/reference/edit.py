"""Targets written into weights, layer by layer, with a dense float64 system for each."""

import torch

from .model import at_words
from .targets import fill


def keys(subject, requests, layer, groups):
    """Keys averaged within each template group, then over groups, `[n, f]`."""
    templates = [t for group in groups for t in group]
    patterns = [fill(t, r) for r in requests for t in templates]
    names = [r["subject"] for r in requests for _ in templates]
    found, _ = at_words(subject, subject.module(subject.down, layer), patterns, names)
    found = found.reshape(len(requests), len(templates), -1)
    ends = torch.tensor([len(g) for g in groups]).cumsum(0).tolist()
    means = [found[:, end - len(g) : end].mean(1) for g, end in zip(groups, ends)]
    return torch.stack(means).mean(0)


def current(subject, requests, layer):
    """Block output at the bare prompts' fact tokens, `[n, d]`."""
    module = subject.module(subject.block, layer)
    _, out = at_words(subject, module, [r["prompt"] for r in requests], [r["subject"] for r in requests])
    return out


def memit_factor(metric, k):
    """`(λC + K Kᵀ)⁻¹ K`, `f × B`, float64."""
    return torch.linalg.solve(metric + k @ k.T, k)


def emmet_factor(metric, k, epsilon):
    """`C⁻¹ K (Kᵀ C⁻¹ K + εI)⁻¹`, `f × B`, float64, by explicit inverses."""
    inverse = torch.linalg.inv(metric)
    system = k.T @ inverse @ k
    if k.shape[1] > 1:
        system = system + epsilon * torch.eye(k.shape[1], dtype=k.dtype, device=k.device)
    return inverse @ k @ torch.linalg.inv(system)


def metric(moment, hyper):
    """`λC + ρI`, `f × f`, float64."""
    eye = torch.eye(len(moment), dtype=torch.float64, device=moment.device)
    return hyper["mom2_update_weight"] * moment.double() + hyper.get("update_norm_lambda", 0) * eye


def apply(subject, algorithm, requests, targets, layers, moments, groups, hyper):
    """Edits the model in place; returns each layer's `(resid, adj_k)` with Δ = resid · adj_kᵀ."""
    made = {}
    for i, layer in enumerate(layers):
        k = keys(subject, requests, layer, groups).T.double()
        now = current(subject, requests, layers[-1])
        residual = ((targets - now).T / (len(layers) - i)).double()
        p = metric(moments[layer], hyper)
        factor = memit_factor(p, k) if algorithm == "memit" else emmet_factor(p, k, hyper["emmet_lambda"])
        subject.add(layer, residual @ factor.T)
        made[layer] = (residual, factor)
    return made


def rome(subject, request, layer, moment, templates, value):
    """`(left, right)` with the change of the weight as stored by GPT-2 = outer(left, right)."""
    module = subject.module(subject.down, layer)
    filled = [fill(t, request) for t in templates]
    key, _ = at_words(subject, module, filled, [request["subject"]] * len(filled))
    left = torch.linalg.inv(moment.double()) @ key.mean(0).double()
    left = left / left.norm()
    at, out = at_words(subject, module, [request["prompt"]], [request["subject"]])
    right = (value - out[0]).double() / (at[0].double() @ left)
    return left, right
