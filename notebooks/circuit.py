# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a ranked list to a circuit
#
# Ablating one head at a time gives a ranking: this head matters most, then that one. It is tempting to cut the list
# somewhere and call its top *the circuit*. But a circuit is a stronger claim: **these heads together are enough,
# nothing that belongs to them is missing, and none of them is idle.** Wang et al. (2022, arXiv 2211.00593) called
# this faithful, complete and minimal, and each can be measured.
#
# The task is theirs: *"When Mary and John went to the market, John gave the book to"* Mary. The model is the small
# one that ships with nnheads.

# %%
import nnheads
from nnheads import plot
from nnheads import stats
from nnheads.models.names import head_name

model = nnheads.load("reference")
to_find, to_judge = (nnheads.ioi(model.tokenizer, n=24, seed=seed) for seed in (1, 0))
fresh = nnheads.ioi(model.tokenizer, n=100, seed=2, corruption="abc")
three_names = fresh.assign(token=fresh["corrupted"])
print(to_judge.clean_text.values[0], fresh.corrupted_text.values[0], sep="\n")

# %% [markdown]
# Two sets of sentences, because heads that were chosen on some have to prove themselves on others. The second line
# printed is of a third set, with three different names. It says what a **removed** head puts out: its mean over such
# sentences, at each position of each template. So the place in the sentence stays known, and who is repeated does not.
#
# ## 1. The ranking
#
# `removal` makes a function: sets of removed heads in, the logit difference of every sentence out (how much more the
# model favours the right name over the wrong one). All that follows is asked of this function. First, one head at a
# time: what share of the logit difference is lost without it?

# %%
from nnheads.patching.circuit import alone, every_head, removal
from nnheads.patching.circuit_runs import study
from nnheads.patching.faithfulness import judge, knocked_out, order

every = every_head(model)
remove, unseen = (removal(model, prompts, reference=three_names) for prompts in (to_find, to_judge))
heads = knocked_out(remove, every)
marked = [*stats.top_heads(heads, "ranking", 6), *stats.top_heads(heads, "ranking", 2, lowest=True)]
plot.show(plot.heatmap(heads.ranking, title="Removed alone", marked=marked))

# %% [markdown]
# Three heads of the first layer look like nearly everything, a few of the middle layers help. Two heads are below
# zero: without L2H4 or L2H7 the model does better. They argue against the answer.
#
# ## 2. How many heads of the list are enough?
#
# Now turn it round: remove **all** heads but the first few of the list. **Faithfulness** is what is left, as a share
# of what the whole model does. (Feed-forward parts and embeddings stay.) There are two ways to read the list: by how
# much a head *matters*, whatever the sign, or by how much it *helps*.

# %%
import numpy as np
import xarray as xr

lists = {"by how much heads matter": order(heads.ranking), "by how much heads help": order(heads.ranking, signed=True)}
counts = xr.DataArray(range(0, 33, 2), dims="count", name="count", attrs={"long_name": "heads that are left"})


def faithfulness(of, sets) -> xr.Dataset:
    """What is left of the logit difference with some heads alone (set), with its interval over sentences."""
    found = of([frozenset(), *(alone(every, heads) for heads in sets)])
    left = xr.DataArray(found[:, 1:], dims=("case", "count"), name="share", attrs={"long_name": "faithfulness"})
    return stats.ratio_of_means(left, xr.DataArray(found[:, 0], dims="case"), "case")


each = {}
for name, ordered in lists.items():
    shares = faithfulness(remove, [ordered[:count] for count in counts.values]).assign_coords(count=counts)
    each[name] = tuple(shares.data_vars.values())
plot.show(plot.curves(each, title="The first heads of the list alone"))

# %% [markdown]
# Heads that matter a great deal one by one do little by themselves: with the first four there is next to nothing, with
# the first ten less than half. Each of the many small ones is needed. Reading the list by size is worse, because it
# takes in the two opponents early. And reading it by help **overshoots**: as long as the opponents stay removed, the
# rest does more than the whole model. That is no better circuit: faithful means *like* the model.
#
# ## 3. Choose on these sentences, judge on others
#
# We take the shortest list of helpers with at least 95 % here. Then `study` runs everything that is needed to judge
# it on sentences that chose nothing: the circuit, the first heads of the list, and twenty random circuits of the same
# size. That is the easy opponent: a random circuit nearly always lacks one of the heads without which all is lost. So
# we add two harder ones, the same number of heads by size, and the six strongest with *random* company.

# %%
import pandas as pd

helpers = lists["by how much heads help"]
enough = faithfulness(remove, [helpers[:count] for count in range(1, 33)]).share.values >= 0.95
circuit = helpers[: int(enough.argmax()) + 1]
scores = study(unseen, every, {"circuit": circuit}, helpers, subsets=6, steps=0)
found = judge(scores)

generator, rest, size = np.random.default_rng(0), sorted(every - set(helpers[:6])), len(circuit)
company = [[rest[i] for i in generator.choice(len(rest), size - 6, replace=False)] for _ in range(20)]
by_size = lists["by how much heads matter"]
opponents = {
    "random heads": found.random.values,
    "six strongest, random company": faithfulness(unseen, [helpers[:6] + others for others in company]).share.values,
    "as many, by how much they matter": faithfulness(unseen, [by_size[:size]]).share.values,
}
value, low, high = (float(found[f"faithfulness{end}"]) for end in ("", "_low", "_high"))
print(f"{size} of {len(every)} heads:", *(head_name(*head) for head in sorted(circuit)))
print(f"faithfulness {value:.2f} [{low:.2f}, {high:.2f}]")
pd.DataFrame({name: [each.mean(), each.max()] for name, each in opponents.items()}, index=["mean", "best"]).T.round(2)

# %% [markdown]
# Not quite half of the heads do the job, and the interval holds 1. Random circuits do nothing; even with the six
# strongest heads in them, none of twenty reaches its lower end. So the small heads of the circuit belong to it.
#
# ## 4. Complete?
#
# A set may be faithful by accident. If it works *as* the model does, then cutting the same heads K out of both hurts
# both alike; a circuit without its understudies would fall further. Here are random Ks,
# and for comparison the same with the ten heads that matter most.

# %%
ten = study(unseen, every, {"ten": by_size[:10]}, helpers, subsets=6, steps=0, draws=1)
rows = []
for name, one in (("circuit", scores), ("ten that matter most", ten)):
    means = one[["circuit_without", "model_without"]].mean("batch").isel(cut=slice(1, None))
    for cut in range(means.sizes["cut"]):
        left = [float(values[cut]) for values in means.data_vars.values()]
        rows.append([name, len(str(means.cut_heads.values[cut]).split()), *left])
table = pd.DataFrame(rows, columns=["of", "heads in K", "left of it [logits]", "left of the model [logits]"])
table.set_index(["of", "heads in K"]).sort_index().round(2)

# %% [markdown]
# Cut the same heads, and circuit and model are left with about the same number of logits. The ten are left with far
# less than the model wherever the model still works: what does the work there is not among them.
#
# ## 5. Minimal?
#
# Is any head of the circuit idle? For each of them: the most that its removal changes, over several cuts K.

# %%
minimality = heads.ranking.where(False)
for value, layer, head in zip(found.minimality.values, found.member_layer.values, found.member_head.values):
    minimality.loc[layer, head] = value
minimality = minimality.assign_attrs(long_name="largest change, as a share of F(M)", units="1")
percent = np.where(minimality.isnull(), "", (100 * minimality).round().fillna(0).astype(int).astype(str) + " %")
print(f"lowest end of any interval: {float(found.minimality_low.min()):.0%}")
plot.show(plot.heatmap(minimality, title="What each head of the circuit is good for", signed=False, texts=percent))

# %% [markdown]
# None is idle. Blank cells are not in the circuit; among them is the decoy L3H0, which has the attention pattern of a
# perfect name mover and was planted to mislead.
#
# ## 6. What misleads here
#
# What do removed heads say? Their mean over *other* sentences. Over the very sentence that is judged, a mean would say
# just what the head says, and a circuit of no head at all would do the task. Most of these sentences are the only ones
# of their template, so nnheads will not do it:

# %%
from nnheads.errors import BadInput

try:
    removal(model, to_judge)([frozenset()])
except BadInput as error:
    print(error)
whole, nothing = unseen([frozenset(), every]).mean(0)
print(f"\nwith means of sentences with three names: whole model {whole:.1f} logits, no head {nothing:.1f}")

# %% [markdown]
# Look at the empty circuit before you believe in a full one.
#
# ## Where to go from here
#
# * The same as one command: `nnheads circuit --signed --top 15`; your own set: `nnheads circuit --heads
#   "movers: 9.9,9.6; inhibition: 7.3" openai-community/gpt2`; a ranking from another run: `--from results/ioi/...`.
# * Other answers to *what do removed heads say*: `--ablation zero`, `resample`, `corrupted`.
# * Notebooks nearby: [ioi](ioi.ipynb) makes the ranking by patching, [knockout](knockout.ipynb) asks what breaks
#   without a list of heads, [path](path.ipynb) which head sends to which.
