"""The same cases as PyTorch is used by someone who wants it fast: `python -m reference.batched CASE key=value …`.

* Targets: sixteen requests in one batch, sorted by length; logits where the loss reads them.
* Second moments: one pass over sorted batches for all layers, which ends after the last of them.
* Scores: prompts sorted by length, in batches of 64; logits where a target is.

Texts, solves and products are those of `measure.py`.
"""

import torch

from . import measure
from .model import Stop, first
from .moments import batches
from .targets import fill


def hidden(subject, tokens):
    """The normed hidden state that the head reads."""
    return subject.model.base_model(**tokens).last_hidden_state


def read(subject, rows):
    return torch.log_softmax(subject.head(rows), dim=-1)


class Case(measure.Case):
    def find(self, subject, requests):
        openings = [t for group in self.groups() for t in group]
        order = sorted(range(len(requests)), key=lambda i: len(requests[i]["prompt"]) + len(requests[i]["subject"]))
        values = [None] * len(requests)
        for start in range(0, len(order), 16):
            some = order[start : start + 16]
            for i, value in zip(some, self.find_together(subject, [requests[i] for i in some], openings)):
                values[i] = value
        return torch.stack(values)

    def find_together(self, subject, requests, openings):
        hyper, layer, d = self.hyper(), self.number("layer"), subject.config.hidden_size
        texts, places, owner, reads, firsts, essences = [], [], [], [], [], []
        for number, request in enumerate(requests):
            target = subject.target_tokens(request["target_new"]).tolist()
            rewriting = [fill(t, request) + subject.tokenizer.decode(target[:-1]) for t in openings]
            firsts.append(len(texts))
            for pattern in [*rewriting, "{} is a"]:
                text = pattern.replace("{}", request["subject"], 1)
                length = len(subject.tokenizer(text).input_ids)
                places.append(subject.fact_index(pattern, request["subject"]))
                if pattern == "{} is a":
                    essences.append((len(texts), places[-1]))
                else:
                    weight = 1 / len(target) / len(rewriting)
                    at = length - len(target)
                    reads += [(len(texts), at + j, t, weight) for j, t in enumerate(target)]
                texts.append(text)
                owner.append(number)
        tokens = subject.tokens(texts)
        rows, columns = torch.arange(len(texts)), torch.tensor(places)
        owner = torch.tensor(owner)
        delta = torch.zeros(len(requests), d, requires_grad=True)
        initial = None

        def add(_, __, output):
            nonlocal initial
            state = first(output)
            if initial is None:
                initial = state[firsts, columns[firsts]].detach().clone()
            changed = state.clone()
            changed[rows, columns] += delta[owner]
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = subject.module(subject.block, layer).register_forward_hook(add)
        read_rows, read_columns, wanted, weights = (torch.tensor(of) for of in zip(*reads))
        request_of = owner[read_rows]
        essence_rows, essence_columns = (torch.tensor(of) for of in zip(*essences))
        optimiser, clean = torch.optim.Adam([delta], lr=hyper["v_lr"]), None
        try:
            for step in range(hyper["v_num_grad_steps"]):
                optimiser.zero_grad()
                state = hidden(subject, tokens)
                said = read(subject, state[read_rows, read_columns]).gather(1, wanted[:, None]).squeeze(1)
                now = read(subject, state[essence_rows, essence_columns])
                clean = now.detach().clone() if clean is None else clean
                nll = -torch.zeros(len(requests)).index_add(0, request_of, said * weights)
                kl = hyper["kl_factor"] * (now.exp() * (now - clean)).sum(1)
                size = initial.norm(dim=1)
                loss = nll + kl + hyper["v_weight_decay"] * delta.norm(dim=1) / size**2
                if step == hyper["v_num_grad_steps"] - 1:
                    break
                loss.sum().backward()
                optimiser.step()
                with torch.no_grad():
                    limit = hyper["clamp_norm_factor"] * size
                    delta *= (limit / delta.norm(dim=1).clamp_min(1e-12)).clamp_max(1)[:, None]
        finally:
            handle.remove()
        return list(initial + delta.detach())

    def moments(self):
        subject, layers = self.subject(), self.numbers("layers")
        documents = self.path("corpus.txt").read_text().splitlines()[: self.number("documents")]
        budget, counted = self.number("batch_tokens"), []

        def work():
            rows = [subject.tokenizer(d, truncation=True).input_ids for d in documents]
            sums = {}
            mask = None

            def keep(layer):
                def hook(_, inputs, __):
                    keys = first(inputs).flatten(0, 1)[mask]
                    total = sums.setdefault(layer, keys.new_zeros(keys.shape[1], keys.shape[1]))
                    total.addmm_(keys.T, keys)
                    if layer == max(layers):
                        raise Stop

                return subject.module(subject.down, layer).register_forward_hook(hook)

            handles = [keep(layer) for layer in layers]
            for group in batches([len(r) for r in rows], budget):
                width = max(len(rows[i]) for i in group)
                ids, ones = (torch.zeros(len(group), width, dtype=torch.long) for _ in range(2))
                for row, i in enumerate(group):
                    ids[row, : len(rows[i])] = torch.tensor(rows[i])
                    ones[row, : len(rows[i])] = 1
                mask = ones.flatten().bool()
                counted.append(int(mask.sum()))
                try:
                    with torch.no_grad():
                        subject.model.base_model(input_ids=ids, attention_mask=ones)
                except Stop:
                    pass
            for handle in handles:
                handle.remove()

        return measure.measured(work) | {"tokens": sum(counted)}

    def scores(self):
        subject, asked = self.subject(), []
        for entry in self.records():
            rewrite = entry["requested_rewrite"]
            prompts = [rewrite["prompt"].format(rewrite["subject"])]
            prompts += entry["paraphrase_prompts"] + entry["neighborhood_prompts"]
            asked += [(p, rewrite[which]["str"]) for p in prompts for which in ("target_new", "target_true")]
        values = []

        def work():
            values.clear()
            starts = [len(ids) for ids in subject.tokenizer([p for p, _ in asked]).input_ids]
            wanted = [subject.target_tokens(t).tolist() for _, t in asked]
            order = sorted(range(len(asked)), key=lambda i: starts[i] + len(wanted[i]))
            for at in range(0, len(order), 64):
                some = order[at : at + 64]
                tokens = subject.tokens([f"{asked[i][0]} {asked[i][1]}" for i in some])
                places = [(row, starts[i] + j - 1, t) for row, i in enumerate(some) for j, t in enumerate(wanted[i])]
                rows, columns, ids = (torch.tensor(of) for of in zip(*places))
                with torch.no_grad():
                    state = hidden(subject, tokens)[rows, columns]
                    said = read(subject, state).gather(1, ids[:, None]).squeeze(1)
                sums = torch.zeros(len(some)).index_add(0, rows, said)
                values.extend((-sums / torch.tensor([len(wanted[i]) for i in some])).tolist())

        time = measure.measured(work)
        return time | {"nll": sum(values) / len(values)}


if __name__ == "__main__":
    measure.main(Case, __doc__)
