"""CounterFact likelihoods, a batch for each record, logits at every position."""

import torch


def record(subject, entry):
    """Mean negative log-likelihood per token of both targets after each prompt: kind → list of `(new, true)`."""
    rewrite = entry["requested_rewrite"]
    prompts = {
        "rewrite": [rewrite["prompt"].format(rewrite["subject"])],
        "paraphrase": entry["paraphrase_prompts"],
        "neighborhood": entry["neighborhood_prompts"],
    }
    flat = [p for kind in prompts.values() for p in kind]
    targets = [rewrite["target_new"]["str"], rewrite["target_true"]["str"]]
    tokens = subject.tokens([f"{p} {t}" for p in flat for t in targets])
    with torch.no_grad():
        logits = subject.model(**tokens).logits
    likelihood = torch.log_softmax(logits, dim=2)
    lengths = [len(ids) for ids in subject.tokenizer(flat).input_ids]
    wanted = [subject.target_tokens(t) for t in targets]
    values = []
    for row in range(2 * len(flat)):
        start, target = lengths[row // 2], wanted[row % 2]
        values.append(
            -sum(likelihood[row, start + j - 1, t].item() for j, t in enumerate(target.tolist())) / len(target)
        )
    pairs = list(zip(values[::2], values[1::2]))
    found, at = {}, 0
    for kind, asked in prompts.items():
        found[kind] = pairs[at : at + len(asked)]
        at += len(asked)
    return found
