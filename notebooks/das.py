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
# # Where does a model hold a variable?
#
# You have an idea of *how* a model might come to its answer. *"When Mary and John went to the market, John gave the
# book to"*: perhaps it first finds out **which of the two names is repeated, the first or the second**, and then takes
# the other one. That is a causal model: variables, each a function of others. If the network works like this,
# something inside it plays the part of that variable, and exchanging this something between two sentences has a
# consequence that the causal model predicts.
#
# **Distributed alignment search** (Geiger et al. 2023, arXiv 2303.02536) looks for it: not a neuron or a head, but a
# direction, trained so that the exchange gives the predicted answer. A search that trains can find things that are not
# there, so most of this notebook is controls.

# %%
from nnheads.interventions import CausalModel

ioi = CausalModel(
    {
        "position": lambda first, second, repeated: int(first == repeated),  # where the answer stands: 0 or 1
        "answer": lambda first, second, position: (first, second)[position],
    }
)
sentence = {"first": "Mary", "second": "John", "repeated": "John"}
other = {"first": "Anna", "second": "Paul", "repeated": "Anna"}
print("answer:", ioi.run(sentence)["answer"])
print("with the position of the other sentence:", ioi.interchange(sentence, position=other))

# %% [markdown]
# John is the answer to neither sentence. Only a network that handles the *position* as a thing of its own can say so.
#
# ## 1. Pairs
#
# A pair is a base sentence, a source sentence, and the answer that the causal model gives once the base has the
# source's value. In half of the pairs it is another than the base's own. We train on one set and test on another, of
# other sentences. The network has to do the task to begin with:

# %%
import numpy as np
import pandas as pd
import xarray as xr

import nnheads
from nnheads import plot
from nnheads import stats
from nnheads.interventions import Edit, Interchange, Intervention, Pairs, draw_counterfactuals, evaluate, role, train
from nnheads.interventions.tasks import task_of

model = nnheads.load("reference")
task = task_of("ioi")  # the causal model above ships with nnheads, and so does a way to draw its sentences
to_train, to_test = task.draw(model.tokenizer, 128, 0), task.draw(model.tokenizer, 64, 1)
seen = set(to_train.texts())
to_test = to_test.rows([number for number, text in enumerate(to_test.texts()) if text not in seen])


def pairs(drawn, variable: str) -> Pairs:
    return drawn.pairs(draw_counterfactuals(ioi, drawn.inputs, variable, len(drawn.inputs), seed=2))


right = evaluate(model, Intervention(), Pairs(to_test.prompts, (), to_test.answers(ioi))).score
print(f"{float(right.mean()):.0%} of {right.size} new sentences answered as the causal model does")

# %% [markdown]
# ## 2. Exchange everything at one place
#
# First without any training. At one layer and one word, replace the whole residual stream of the base with that of the
# source. The **interchange accuracy** is how often the network then gives the causal model's answer. Without any
# intervention it would be one half for the position, as half of the pairs keep their answer.

# %%
test = {variable: pairs(to_test, variable) for variable in ("position", "answer")}


def picture(variable: str):
    """Interchange accuracy of the whole residual stream behind every layer, at every word that matters."""
    grid = xr.DataArray(np.zeros((4, 4)), {"layer": range(4), "word": list(task.roles)}, ("layer", "word"))
    for layer, word in np.ndindex(4, 4):
        edit = Edit("resid_post", Interchange(), layer=layer, at=role(task.roles[word]))
        grid[layer, word] = evaluate(model, Intervention(edit), test[variable].rows(np.arange(40))).score.mean()
    grid = grid.assign_attrs(long_name="interchange accuracy", units="1")
    texts = grid.values.round(2).astype(str)
    return plot.show(plot.heatmap(grid, title=f"Whole residual stream: {variable}", signed=False, texts=texts))


picture("position")

# %% [markdown]
# FIRST and SECOND are the two names, S2 is the repeated one, END is the last word. At one place the network does just
# what the causal model predicts: **at S2, behind layer 1**. Everywhere else the accuracy is near that of doing nothing,
# or worse. Where has the position gone behind layer 2? Ask for the other variable, the *answer* itself:

# %%
picture("answer")

# %% [markdown]
# Behind layer 2 the answer stands at the end. So the network first works out *which* at the repeated name, and one
# layer on, at the end, it already knows *who*. That explains the dark cells of the first picture: whoever exchanges the
# end there carries over the other sentence's **name**. (Of the answer, few pairs keep their own; so doing nothing
# scores low here.)
#
# ## 3. One direction out of 128
#
# The whole stream at S2 carries more than the position: the name itself, for example. Does the position have a
# direction of its own? We train one there. The first control is the same search on **shuffled answers**, each pair with
# the answer of another. It has the same freedom, and should find nothing. The second is the same search in the wrong
# place: at the end behind layer 2, where all is known about the answer, but not as a position. All are tested on pairs
# of sentences that were never trained on.

# %%
from nnheads.interventions.alignment import aligned

fit, training = pairs(to_train, "position"), {"steps": 30, "batch_size": 16, "learning_rate": 0.01, "every": 10}
places = {"S2": 1, "END": 2}  # word: layer
start = {word: aligned("resid_post", places[word], role(word), features=128, directions=1) for word in places}
trained = {word: train(model, start[word], fit, **training)[0] for word in places}
shuffled, _ = train(model, start["S2"], fit.shuffled(), **training)

edits = {
    "S2, trained": trained["S2"],
    "S2, trained on shuffled answers": shuffled,
    "S2, before training": start["S2"],
    "END, trained": trained["END"],
    "no intervention": Intervention(),
}
pair = test["position"]
bare = Pairs(pair.base, (), pair.answer)
scores = {name: evaluate(model, edit, pair if edit.sources else bare).score for name, edit in edits.items()}
table = {name: stats.mean(one).to_array().values for name, one in scores.items()}
pd.DataFrame(table, index=["interchange accuracy", "low", "high"]).T.round(2)

# %% [markdown]
# At S2 a single direction does nearly what the whole residual stream does. At the end, with the same training, the
# interval still holds one half: it is not that training can make any place work.
#
# How special is that direction? Half of the pairs keep their answer, and with these it is easy to be right. So look
# only at the others. Here are *many* random directions, exchanged all at once.

# %%
drawn = draw_counterfactuals(ioi, to_test.inputs, "position", len(to_test.inputs), seed=2)
changes = [one.changes for one in drawn]
rows = {f"1 direction: {name}": scores[name] for name in list(edits)[:3]}
for count in (16, 64, 128):
    edit = aligned("resid_post", 1, role("S2"), features=128, directions=count, seed=3)
    rows[f"{count} random directions"] = evaluate(model, edit, pair).score
shares = {name: float(values.values[changes].mean()) for name, values in rows.items()}
pd.DataFrame({"right, where the answer has to change": shares}).round(2)

# %% [markdown]
# The one direction that was trained does more than a random half of all of them together.
#
# ## 4. What misleads here
#
# **The control with shuffled answers is not at zero** where the answer has to change. Wrong answers taught it a part of
# what right ones teach. Is the finding an artefact? Compare the directions:

# %%
found = {name: edit.tensors["rotation"].flatten() for name, edit in edits.items() if "S2" in name}
pd.Series({name: float(found["S2, trained"] @ one) for name, one in found.items()}, name="cosine").to_frame().round(2)

# %% [markdown]
# It went a good way in the same direction. A likely reason: where answers are drawn blindly, the best that can be done
# is to make the model less sure of its own, and at this place there is one direction that does so. So this control is
# no zero to measure from; it also sees that there is *something* here. What speaks for the finding is the distance to
# it, and the rest: the same training gets hardly anywhere at the end, random directions do far less, and all of it
# holds in sentences that were never trained on.
#
# **A direction that works need not be one that the model uses.** An exchange along a trained direction can wake up
# a path that lies idle otherwise (Makelov et al. 2023, arXiv 2311.17030). Here the whole stream at the same place does
# the same, which is a good sign: the direction is a part of what is really there.
#
# ## Where to go from here
#
# * The same as one command, at every layer and word, with all controls: `nnheads das --task ioi`; `--task parity` looks
#   for a running sum; `--pairs FILE` takes pairs of your own; `--kind boundless` also learns how many directions.
# * `localise` does it from Python: all places, and each finished one is kept.
# * Notebooks nearby: [ioi](ioi.ipynb) finds the heads of this task, [path](path.ipynb) follows them from S2 to the end,
#   [steer](steer.ipynb) gets a direction without training.
