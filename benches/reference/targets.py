"""The value that each request's subject should carry: one request at a time."""

import torch

from .model import first


def fill(template, request):
    """A template's `{}` replaced by the request's prompt, whose own `{}` stays."""
    return template.replace("{}", request["prompt"], 1)


def find(subject, request, layer, templates, hyper, site="block"):
    """Optimises δ; returns `(h₀, δ, losses)`. `templates` is a flat list; `site` is `block` (MEMIT, EMMET) or `mlp` (ROME)."""
    model, tokenizer = subject.model, subject.tokenizer
    target = subject.target_tokens(request["target_new"])
    rewriting = [fill(t, request) + tokenizer.decode(target[:-1]) for t in templates]
    essence = ["{} is a"]
    patterns = rewriting + essence
    tokens = subject.tokens([p.replace("{}", request["subject"], 1) for p in patterns])
    wanted = torch.full((len(rewriting), tokens.input_ids.shape[1]), -100, device=subject.device)
    for row in range(len(rewriting)):
        length = int(tokens.attention_mask[row].sum())
        wanted[row, length - len(target) : length] = target
    places = [subject.fact_index(p, request["subject"]) for p in patterns]

    delta = torch.zeros(subject.config.hidden_size, requires_grad=True, device=subject.device)
    initial, clean, last = None, None, {}

    def add_delta(_, __, output):
        nonlocal initial
        hidden = first(output)
        if initial is None:
            initial = hidden[0, places[0]].detach().clone()
        changed = hidden.clone()
        for row, place in enumerate(places):
            changed[row, place] += delta
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def keep_last(_, __, output):
        last["hidden"] = first(output)

    name = subject.block if site == "block" else subject.mlp
    hooks = [
        subject.module(name, layer).register_forward_hook(add_delta),
        subject.module(subject.block, subject.config.num_hidden_layers - 1).register_forward_hook(keep_last),
    ]
    optimiser = torch.optim.Adam([delta], lr=hyper["v_lr"])
    losses = []
    try:
        for step in range(hyper["v_num_grad_steps"]):
            optimiser.zero_grad()
            logits = model(**tokens).logits
            now = torch.log_softmax(logits[len(rewriting) :][:, places[-1]], dim=1)
            if clean is None:
                clean = now.detach().clone()
            if site == "block":
                # MEMIT's code reads the loss off the last block, and so applies the head a second time.
                rows = subject.final_norm(last["hidden"][: len(rewriting)]) @ subject.head.weight.T
                rows = rows if subject.head.bias is None else rows + subject.head.bias
            else:
                rows = logits[: len(rewriting)]
            likelihood = torch.log_softmax(rows, dim=2)
            picked = likelihood.gather(2, wanted.clamp_min(0).unsqueeze(2)).squeeze(2)
            nll = -(picked * (wanted != -100)).sum(1) / len(target)
            kl = hyper["kl_factor"] * torch.nn.functional.kl_div(clean, now, log_target=True, reduction="batchmean")
            decay = hyper["v_weight_decay"] * delta.norm() / initial.norm() ** 2
            loss = nll.mean() + kl + decay
            losses.append(loss.item())
            if loss < hyper.get("stop_loss", 5e-2) or step == hyper["v_num_grad_steps"] - 1:
                break
            loss.backward()
            optimiser.step()
            limit = hyper["clamp_norm_factor"] * initial.norm()
            if delta.norm() > limit:
                with torch.no_grad():
                    delta *= limit / delta.norm()
    finally:
        for hook in hooks:
            hook.remove()
    return initial, delta.detach(), losses
