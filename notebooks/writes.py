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
# # What do heads write?
#
# An attention pattern says where a head looks. It does not say what the head then *does*: it may repeat the word that
# it sees, speak against it, or say nothing at all. What a head writes when it looks at a word is fixed by its
# weights, and can be read off: let it look at one word, follow its output to the unembedding, and see which words it
# makes likelier.
#
# The small model that ships with nnheads is a good place to learn this. Two of its heads were planted to copy
# (induction heads), one was planted to deceive: it looks exactly at the word that has to follow, and has nothing to
# say.

# %%
import numpy as np

import nnheads
from nnheads import plot, stats

model = nnheads.load("reference")


def shares(scores, name, title, meaning):
    """A picture of all heads; those beyond chance (at a false discovery rate of 5 %) have their number."""
    values = scores[name].assign_attrs(long_name=meaning)
    texts = np.where(scores[f"{name}_q_value"] < 0.05, np.vectorize("{:.0%}".format)(values), "")
    return plot.show(plot.heatmap(values, title=title, signed=False, texts=texts))


heads = nnheads.copy_scores(model)
shares(heads, "copy", "Copying (numbers: beyond chance)", "share of names raised")

# %% [markdown]
# ## 1. Who copies?
#
# The **copy score** (Wang et al. 2022, arXiv 2211.00593) is the share of names that are among the five words which
# the head raises most when it looks at them. The model knows 833 words, so five are few.
#
# Three heads copy nearly every name: L1H0 and L1H1, the planted induction heads, and L2H4, which was planted to fetch
# words from far back. L0H1 has a number because it copies a few names more than chance would. Being beyond chance is
# not a role.
#
# Two things could make such a score empty. Heads may raise names *as such*, whichever they look at; so the null is
# how often **another** name is among the five. Or the method may find copying everywhere; so here is the same model
# **before training**.

# %%
from pathlib import Path

import pandas as pd
from transformers.utils import logging

from nnheads.reference.untrained import initial_model, write

logging.disable_progress_bar()
write(initial_model(seed=0), Path("untrained"))
untrained = nnheads.copy_scores(nnheads.load("untrained"))
rows = {"trained": heads, "untrained": untrained}
pd.DataFrame(
    {
        name: [float(one["copy"].max()), float(one.copy_null.max()), int((one.copy_q_value < 0.05).sum())]
        for name, one in rows.items()
    },
    index=["highest score of 32 heads", "highest null", "heads beyond chance"],
).T.round(2)

# %% [markdown]
# ## 2. Who speaks against what it sees?
#
# A head may also *lower* the word that it looks at (copy suppression: McDougall et al. 2023, arXiv 2310.04625). Here
# is the share of words whose own logit ends up below the average of all words. A head that writes nothing in
# particular has one half.

# %%
from nnheads.writing.copy_score import suppression_scores
from nnheads.writing.shares import summary

lowered = summary(suppression_scores(model))
shares(lowered, "suppression", "Suppression (numbers: beyond chance)", "share of words lowered")

# %% [markdown]
# Many heads of the two middle layers speak against what they see, L1H2, L1H3, L1H6 and L1H7 nearly always. The three
# copying heads hardly ever do.
#
# ## 3. Looking and writing, side by side
#
# Now sentences: *"When Mary and John went to the market, John gave the book to"*. `write_coupling` reads, at the end
# of each sentence, how much a head looks at a name, and what it adds to the right name's logit over the wrong one's.

# %%
prompts = nnheads.ioi(model.tokenizer, 100)
roles = {"IO": "Mary", "S1": "first John", "S2": "second John"}
coupled = {role: nnheads.write_coupling(model, prompts, role=role) for role in roles}
receiver = coupled["IO"]
table = pd.DataFrame(
    {
        **{f"looks at {text}": coupled[role].attention.mean("batch").to_series() for role, text in roles.items()},
        "copies": heads["copy"].to_series(),
        "suppresses": lowered.suppression.to_series(),
        "writes [logits]": receiver.write.mean("batch").to_series(),
    }
)
chosen = [(3, 0), (1, 0), (1, 1), (2, 4), (1, 2), (1, 3), (1, 6), (1, 7), (2, 2), (2, 6), (3, 1)]
table.loc[chosen].round(2)

# %% [markdown]
# The first row is the **decoy**. All of its attention is on the receiver: on its pattern alone it is the name mover of
# this model. But it copies nothing, and writes nothing.
#
# The copying heads look at Mary as much as at the first John, and on average write nothing either. The suppressors of
# layer 1, and L2H6, look at the *second* John and speak against what they see, which favours Mary. L2H2, planted to
# look there too, writes hardly anything straight to the output; and L3H1, which looks at none of the three, writes a
# lot. Direct writing counts the last step only: see the notebook [path](path.ipynb) for the steps before.
#
# ## 4. Do they write *when* they look?
#
# A head that does its job by looking should write more in sentences in which it looks more. That can be tested:
# correlation over sentences, with an interval.

# %%
columns = ["correlation", "correlation_low", "correlation_high", "slope"]
found = nnheads.coupling(receiver)[columns].to_dataframe()[columns].join(table["writes [logits]"]).dropna()
found.sort_values("correlation", ascending=False).round(2)

# %% [markdown]
# The copying heads are on top: where they look at Mary they write *Mary*, some three logits for all of their attention.
# Yet their mean is nothing, since they look at John as often. The decoy's slope looks as large, but it has nothing
# to stand on: its attention hardly ever varies, and the interval of the correlation holds 0. (Heads whose attention
# never varies at all are left out.)
#
# ## 5. Who reads what they write?
#
# Heads also write for later heads. The **composition score** (Elhage et al. 2021) compares what one head writes with
# what another one reads, from the weights alone. Induction needs it: a head has to leave a note at each position about
# the word *before* it, and the induction head has to find that note with its keys. L0H0 was planted to attend to the
# previous word. Who reads L0H0?

# %%
composed = nnheads.composition_scores(model, "k")
readers = composed.composition.sel(layer=0, head=0, drop=True).rename(to_layer="layer", to_head="head")
plot.show(plot.heatmap(readers[1:], title="Whose keys read what L0H0 writes?", signed=False))

# %% [markdown]
# Exactly the three that copy, and L2H5, which shares its keys with L2H4: in this model every two heads have one set of
# keys.
#
# Is that to be believed? The null here is easy: *random* heads. Trained heads are far from random, so that many pairs
# beat it. A better test is another method: **path patching** moves one head's output along one path, here into the
# keys of L1H0 and L1H1, in real sentences, and looks at the answer.

# %%
pairs = composed.composition.values[composed.composition.values > 0]
print(f"{(pairs > float(composed.null_high)).mean():.0%} of all pairs are above the 95th percentile of random heads")
few = nnheads.ioi(model.tokenizer, 40, corruption="abc")
path = nnheads.path_patch(model, few, receivers=[(1, 0), (1, 1)], via="k")
speaks = stats.mean(path.relative).relative.sel(layer=0)
columns = {
    "composition with the keys of L1H0": composed.composition.sel(layer=0, to_layer=1, to_head=0, drop=True),
    "relative change of the answer along that path": speaks,
}
pd.DataFrame({name: values.to_series() for name, values in columns.items()}).round(2)

# %% [markdown]
# Weights and intervention agree on L0H0, and the intervention clears the others of which the weights were not sure.
#
# ## 6. What misleads here
#
# * **A small share beyond chance.** With a hundred names, a head that copies a few of them is beyond chance. Look at
#   the share first.
# * **Words by themselves.** The scores let a head look at a word as it is behind the first block. In a sentence a word
#   carries more than that; and a head may write into directions that only later layers turn into words.
# * **Scores without a subject.** Successor heads (Gould et al. 2023, arXiv 2312.09230) raise *Tuesday* at *Monday*.
#   This model was never taught to count, and the score says so:

# %%
counting = summary(nnheads.successor_scores(model))
marks = int((counting.successor_q_value < 0.05).sum())
print(f"best of 32 heads: {float(counting.successor.max()):.2f} of the words; heads beyond chance: {marks}")

# %% [markdown]
# ## Where to go from here
#
# * The same as commands: `nnheads writes --kind copy` (or `suppression`, `successor`, `coupling`, `composition`);
#   `--words FILE` for your own; `nnheads writes --kind copy openai-community/gpt2`.
# * Notebooks nearby: [ioi](ioi.ipynb) shows the decoy from the other side, [path](path.ipynb) is about paths,
#   [circuit](circuit.ipynb) puts heads together, [reference](reference.ipynb) introduces the model.
