# %% [markdown]
# # Palinode from Python
#
# A pipeline is run, its results are tables and arrays, and an edit is put on a model in memory and taken off again. The notebook uses the
# demo model of the repository, a GPT-2 with 3.2 million parameters, and takes about a minute on two cores. `just notebook` executes it.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import palinode
import pandas as pd
import torch
from palinode import stage
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

root = Path.cwd()
while not (root / "pipelines" / "demo.yaml").exists():
    root = root.parent
folder = Path(tempfile.mkdtemp(prefix="palinode-tour-"))
plt.rcParams.update({"figure.dpi": 90, "figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False})
pd.set_option("display.precision", 3)

# %% [markdown]
# ## Run a pipeline and watch it
#
# `pipelines/demo.yaml` edits 32 facts with three objectives and two ways to spread an edit over layers. A callback hears of each event;
# this one keeps the losses of the search for target values.

# %%
losses = []


def watch(event):
    if event["event"] == "measured":
        losses.append((event["at"], event["value"]))
    elif event["event"] in ("run_started", "run_finished"):
        print({name: value for name, value in event.items() if name != "event"})


pipeline = palinode.Pipeline(root / "pipelines" / "demo.yaml")
store = folder / "store"
exports = {
    "stages.out.with.path": f"{folder}/${{matrix.objective}}-${{matrix.strategy}}",
    "stages.out.with.formats": ["model", "update", "peft"],
}
run = pipeline.run(progress=watch, store=store, set=exports)
run

# %% [markdown]
# The run is in the store. The same call again computes nothing, and `plan` says so before.

# %%
pipeline.plan(store=store, set=exports)

# %%
# Requests are searched for in batches, each with a loss of its own.
curve = pd.DataFrame(losses, columns=["step", "loss"]).groupby("step")["loss"].agg(["min", "median", "max"])
fig, ax = plt.subplots(figsize=(6, 3))
ax.fill_between(curve.index, curve["min"], curve["max"], color="#4477aa", alpha=0.25, linewidth=0, label="all batches")
ax.plot(curve.index, curve["median"], color="#4477aa", label="median")
ax.set(xlabel="step", ylabel="loss, nats", title="Targets: loss over the steps of the search")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Scores
#
# A row for each cell of the matrix. `frame.attrs["columns"]` says what each column means.

# %%
scores = run.scores()
scores[["objective", "strategy", "S", "ES", "PS", "NS", "models", "edits_made"]]

# %%
shown = scores.set_index(scores["objective"] + ", " + scores["strategy"])[["ES", "PS", "NS"]]
fig, ax = plt.subplots(figsize=(7, 3))
shown.plot.bar(ax=ax, color=["#4477aa", "#66ccee", "#ccbb44"], width=0.75, rot=20)
ax.set(ylim=(0, 1.25), yticks=np.linspace(0, 1, 6), ylabel="share", title="Efficacy, paraphrases, neighborhood")
ax.legend(frameon=False, ncols=3, loc="upper center")
plt.show()

# %% [markdown]
# Behind them are the likelihoods of every prompt, before the edit and after it.

# %%
records = run.artifact("scores", objective="emmet", strategy="memit").records()
records.groupby(["kind", "edited"])[["p", "p_true"]].mean().unstack()

# %% [markdown]
# ## Arrays
#
# The search for targets gives δ, one vector for each request. Second moments are sums of k kᵀ in 64 bits. Their eigenvalues say which
# directions ordinary text uses: an edit is cheap along the others.

# %%
delta = run.artifact("targets").tensors()["delta"]
moments = run.artifact("moments")
spectra = {
    name.split("/")[0]: np.linalg.eigvalsh(total / moments.facts["tokens"])[::-1] for name, total in moments.tensors().items()
}
fig, axes = plt.subplots(1, 2, figsize=(9, 3))
axes[0].hist(np.linalg.norm(delta, axis=1), bins=12, color="#4477aa")
axes[0].set(xlabel="‖δ‖", ylabel="requests", title=f"δ of {len(delta)} requests")
for name, values in spectra.items():
    axes[1].semilogy(np.maximum(values, 1e-12), label=name)
axes[1].set(xlabel="number of the eigenvalue", ylim=(1e-5, None), title="Spectrum of C = Σ k kᵀ / tokens")
axes[1].legend(frameon=False)
plt.show()

# %% [markdown]
# ## A pipeline in code
#
# How much should λ hold on to what the model does on ordinary text? An axis of five values; what does not depend on it runs once, and what
# the demo has computed above is found in the store.

# %%
demo = root / "examples" / "demo-model"
sweep = palinode.Pipeline.build(
    "lambda",
    {
        "model": stage("load_model", path=demo / "model"),
        "edits": stage("load_requests", path=demo / "requests.json", limit=32),
        "contexts": stage("templates", {"model": "model"}, generate=[{"count": 5, "length": 10}], seed=1),
        "moments": stage("covariance", {"model": "model"}, corpus=demo / "corpus.txt", layers=[0, 1, 2], samples=3000),
        "targets": stage(
            "targets",
            {"model": "model", "requests": "edits", "templates": "contexts"},
            layer=2, steps=40, learning_rate=0.05, clamp=2, weight_decay=0.1,
        ),
        "plan": stage("distribute", strategy="memit", layers=[0, 1, 2]),
        "update": stage(
            "solve",
            {"model": "model", "requests": "edits", "moments": "moments", "targets": "targets", "plan": "plan", "templates": "contexts"},
            objective="memit", lambda_="${matrix.lambda}",
        ),
        "scores": stage("evaluate", {"model": "update", "requests": "edits"}, samples=0),
    },
    matrix={"lambda": [1, 10, 100, 1000, 10000]},
)
swept = sweep.run(store=store)
swept.stages()["state"].value_counts()

# %%
frame = swept.scores().merge(swept.table("update")[["lambda", "preservation", "relative_norm"]], on="lambda")
fig, ax = plt.subplots(figsize=(6, 3))
for metric, color in {"ES": "#4477aa", "PS": "#66ccee", "NS": "#ccbb44", "S": "#222222"}.items():
    ax.semilogx(frame["lambda"], frame[metric], marker="o", color=color, label=metric)
ax.set(xlabel="λ", ylabel="share", ylim=(0, 1.05), title="MEMIT over three layers")
ax.legend(frameon=False, ncols=4)
plt.show()
frame[["lambda", "S", "ES", "PS", "NS", "preservation", "relative_norm"]]

# %% [markdown]
# ## An edit in memory
#
# The exported update goes onto a model of transformers that is loaded already: on the CPU or on GPUs, in any floating-point type. `revert`
# brings back the very bits.

# %%
model = AutoModelForCausalLM.from_pretrained(demo / "model", dtype=torch.float32)
tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(demo / "model" / "tokenizer.json"))


def says(model, prompt, count=6):
    tokens = torch.tensor([tokenizer.encode(prompt)])
    with torch.no_grad():
        for _ in range(count):
            tokens = torch.cat([tokens, model(tokens).logits[:, -1:].argmax(-1)], dim=1)
    return tokenizer.decode(tokens[0])[len(prompt) :]


prompts = ["The currency of Colombia is the", "The official language of Chile is", "The currency of Chile is the"]
before = {name: value.clone() for name, value in model.state_dict().items()}
said = pd.DataFrame({"before": [says(model, prompt) for prompt in prompts]}, index=prompts)
edit = palinode.apply(model, folder / "emmet-memit")
said["edited"] = [says(model, prompt) for prompt in prompts]
palinode.revert(model)
said["reverted"] = [says(model, prompt) for prompt in prompts]
assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
said

# %% [markdown]
# In half precision, rounding takes a part of the change; `apply` says how much of each weight's.

# %%
half = AutoModelForCausalLM.from_pretrained(demo / "model", dtype=torch.bfloat16)
pd.DataFrame([change.__dict__ for change in palinode.apply(half, folder / "emmet-memit").changes])

# %% [markdown]
# The same change as an adapter of PEFT, which can be switched off for a while.

# %%
adapted = palinode.load_adapter(AutoModelForCausalLM.from_pretrained(demo / "model", dtype=torch.float32), folder / "emmet-memit")
with adapted.disable_adapter():
    off = says(adapted, prompts[0])
{"adapter on": says(adapted, prompts[0]), "adapter off": off}
