"""Second moments of keys: a pass over the corpus for every layer."""

import torch

from .model import traced


def batches(lengths, budget):
    """Documents by rising length, in groups whose padded rectangle is at most `budget` tokens."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    groups = []
    for index in order:
        if groups and (len(groups[-1]) + 1) * lengths[index] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def collect(subject, layer, documents, dtype=torch.float32, budget=None, hundred=100):
    """`(Σ k kᵀ, tokens)` over documents cut to the context; `budget` 0 runs one document at a time.

    As published: a hundred documents are read at a time and put into padded batches of at most three contexts.
    """
    context = subject.config.max_position_embeddings
    budget = 3 * context if budget is None else budget
    module = subject.module(subject.down, layer)
    total, count = None, 0
    for start in range(0, len(documents), hundred):
        rows = [
            subject.tokenizer(d, truncation=True, max_length=context).input_ids for d in documents[start : start + hundred]
        ]
        groups = batches([len(r) for r in rows], budget) if budget else [[i] for i in range(len(rows))]
        for group in groups:
            width = max(len(rows[i]) for i in group)
            ids = torch.zeros(len(group), width, dtype=torch.long)
            mask = torch.zeros(len(group), width, dtype=torch.long)
            for row, i in enumerate(group):
                ids[row, : len(rows[i])] = torch.tensor(rows[i])
                mask[row, : len(rows[i])] = 1
            ids, mask = ids.to(subject.device), mask.to(subject.device)
            with torch.no_grad(), traced(module, stop=True) as seen:
                subject.model(input_ids=ids, attention_mask=mask)
            keys = seen["input"].reshape(len(group) * width, -1)[mask.flatten().bool()].to(dtype)
            total = keys.new_zeros(keys.shape[1], keys.shape[1]) if total is None else total
            total.add_(keys.T @ keys)
            count += len(keys)
    return total, count
