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
# # Do head scores survive fewer bits?
#
# Large models are run as they fit: in bfloat16, with a fast attention kernel, with weights of four bits, on somebody
# else's server. Papers name heads as if that did not matter. Does it? A head that attends with 0.98 may well do so with
# 0.97 in fewer bits; but would the *list* of heads be the same?
#
# The test is simple: score the same prompts twice, and compare the two lists. The question behind it is harder: how
# much change is much? This notebook needs three yardsticks for it.

# %%
import nnheads
from nnheads import plot
from nnheads import stats
from nnheads.models.names import head_name
from nnheads.detectors._detect import calibrated
from nnheads.detectors._scores import raw_scores
from nnheads.compare.drift import compare

types = ["induction", "previous_token", "indirect_object", "retrieval"]


def scores(model, seed: int = 0) -> dict:
    """Type -> attention of every head in every prompt."""
    return raw_scores(model, types, n=10, seed=seed, batch_size=10)


full = nnheads.load("reference", dtype="float32")
half = nnheads.load("reference", dtype="bfloat16")
first, second = scores(full), scores(half)

# %% [markdown]
# `compare` sets them side by side. **Rank correlation** (Spearman): are all heads in the same order? **Overlap**: which
# share of the top ten is the same? Two random lists share what is in the column of chance. **Largest**: the largest
# change of any head's score. Flags: how many heads become, or are no longer, *more than chance*.

# %%
import numpy as np
import pandas as pd

columns = ["rank_correlation", "rank_correlation_low", "overlap", "overlap_chance", "largest", "gained", "lost"]


def table(others: dict) -> pd.DataFrame:
    return pd.DataFrame({kind: compare(first[kind], others[kind])[columns].to_array().to_series() for kind in types}).T


table(second).round(4)

# %% [markdown]
# Sixteen bits change hardly anything. One kernel against another, both in float32, changes even less:


# %%
def means(of: dict, kind: str) -> np.ndarray:
    """What the heads of a type are ranked by, as one row."""
    heads = calibrated(of[kind])
    return heads[heads.attrs["headline"]].values.ravel()


eager = scores(nnheads.load("reference", dtype="float32", attn_implementation="eager"))
largest = max(float(np.abs(means(first, kind) - means(eager, kind)).max()) for kind in types)
print(f"largest change of any score: {largest:.0e}")

# %% [markdown]
# ## Yardstick 1: other prompts
#
# Is a rank correlation of 0.99 high? Scores are means over some prompts, and other prompts would have given others.
# So here is how far the *same* model, in float32, agrees with itself on freshly drawn ones.

# %%
fresh = scores(full, seed=1)
rows = {
    "bfloat16": {kind: stats.spearman(means(first, kind), means(second, kind)) for kind in types},
    "other prompts": {kind: stats.spearman(means(first, kind), means(fresh, kind)) for kind in types},
}
pd.DataFrame(rows).round(4)

# %% [markdown]
# For every type, drawing other prompts moves the list further than halving the bits.
#
# ## Yardstick 2: does the measure ever object?
#
# A test that always passes says nothing. So we break the model on purpose: round all weights of its blocks to fewer and
# fewer bits, and watch both the lists and what the model can do.

# %%
import torch
import xarray as xr

sentences = nnheads.ioi(full.tokenizer, n=50)


def rounded(bits: int):
    """The model with each row of each matrix on a grid of 2**bits steps."""
    model = nnheads.load("reference", dtype="float32")
    with torch.no_grad():
        for name, weight in model._module.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 0.5)
                weight.copy_((weight / step).round() * step)
    return model


bits, found, able = [8, 4, 3, 2], {}, {}
for count in bits:
    model = rounded(count)
    others = scores(model)
    found[count] = {kind: compare(first[kind], others[kind]) for kind in types}
    difference = nnheads.answers(model, sentences).logit_difference
    able[count] = [float(difference.mean()), float((difference > 0).mean())]

ends = ("rank_correlation", "rank_correlation_low", "rank_correlation_high")
curves = {}
for kind in types:
    of = [np.array([float(found[count][kind][end]) for count in bits]) for end in ends]
    about = {"long_name": "rank correlation with float32", "units": "1"}
    curves[kind] = tuple(xr.DataArray(values, {"bits": bits}, "bits", attrs=about) for values in of)
plot.show(plot.curves(curves, title="Scores of a model whose weights are rounded"))

# %%
flags = {count: sum(int(found[count][kind].gained + found[count][kind].lost) for kind in types) for count in bits}
changed = pd.DataFrame(able, index=["logit difference", "names the right one"]).T.rename_axis("bits")
before = nnheads.answers(full, sentences).logit_difference
changed.loc["float32"] = [float(before.mean()), float((before > 0).mean())]
changed.assign(flags_changed=pd.Series(flags)).round(2)

# %% [markdown]
# It does object. Down to three bits the lists stay much as they were, and so does the model; at two bits all
# lists suffer, flags change, and the model can no longer do the task. Scores and abilities go together.
#
# But the retrieval curve has fallen far at three bits already, when the model still does its task and no flag has
# changed. Why?
#
# ## Yardstick 3: among which heads?

# %%
three = raw_scores(rounded(3), ["retrieval"], n=10, batch_size=10)
pair = pd.DataFrame({"float32": means(first, "retrieval"), "3 bits": means(three, "retrieval")})
pair.index = [head_name(*divmod(number, 8)) for number in pair.index]
print(f"{(pair['float32'] == 0).mean():.0%} of the heads have a score of exactly 0")
print(f"rank correlation over the flagged heads: {float(found[3]['retrieval'].rank_correlation_named):.2f}")
pair.sort_values("float32", ascending=False).head(8).round(2)

# %% [markdown]
# The three retrieval heads are the same three. Most others score exactly 0, and the few in between get their rank from
# one or two lucky tokens. A rank correlation counts all heads alike, and where most of them do nothing, it mostly says
# how well *nothing* agrees with nothing. That is why `compare` has a second one, `rank_correlation_named`, over the heads
# that either side flags (or has at the top, where fewer than three are). Of three heads it is a coarse number; look at
# both, and at the flags.
#
# ## What about effects?
#
# Attention is a softmax and forgives a lot. What a head *does* is a difference of logits, and sixteen bits write logits
# of this size in steps of several hundredths. Here is the effect of each head's output, moved from clean into
# corrupted sentences (see the notebook [ioi](ioi.ipynb)).


# %%
def effects(model, seed: int = 0) -> np.ndarray:
    return stats.mean(nnheads.patch(model, nnheads.ioi(model.tokenizer, n=24, seed=seed)).effect).effect.values.ravel()


base = effects(full)
rows = {"bfloat16": effects(half), "other sentences": effects(full, seed=1)}
pd.DataFrame(
    {name: [stats.spearman(base, other), np.abs(base - other).max()] for name, other in rows.items()},
    index=["rank correlation", "largest change of an effect"],
).T.round(4)

# %% [markdown]
# They move a little more than attention did, and again much less than with other sentences.
#
# **The answer**: on this model, a list of heads from bfloat16 is a list of heads of the model. What limits it is the
# number of prompts. On your model, ask again: a deep model in fewer bits may differ, and it costs one command.
#
# ## Where to go from here
#
# * The same as one command: `nnheads drift`, `nnheads drift MODEL --against bfloat16`, `--against eager`, `--against
#   4bit`; `--against remote --remote ndif` compares with what a server computes. One model is in memory at a time.
# * Notebooks nearby: [ioi](ioi.ipynb) for effects, [reference](reference.ipynb) for the model used here.
