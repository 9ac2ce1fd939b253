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
# # Which head sends to which?
#
# *"When Mary and John went to the market, John gave the book to"* and Mary follows. Swapping the output of one head
# tells *that* it matters. It does not tell along which way: a head may write the answer itself, or it may tell a
# later head where to look. **Path patching** (Wang et al. 2022, arXiv 2211.00593) keeps one way and blocks all
# others. With it we can follow the task back, from the answer to the first layer.

# %%
import pandas as pd
import nnheads
from nnheads import plot
from nnheads import stats
from nnheads.models.names import head_name

model = nnheads.load("reference")  # or "openai-community/gpt2", a folder, ...
prompts = nnheads.ioi(model.tokenizer, n=40, seed=0, corruption="abc")
for text in (prompts.clean_text, prompts.corrupted_text):
    print(text.values[0])

# %% [markdown]
# ## 1. All ways together, and the direct one
#
# The corrupted twin has three fresh names, so that no name is right. First the **total** effect: each head in turn
# puts out what it puts out on the corrupted sentence, and everything behind it follows. Then the **direct** one: the
# same, but all other heads stay frozen at what they were, so that only the logits notice. Both are changes of the
# logit difference over its clean value: -1 would be all of it lost.


# %%
def share(scores):
    """The change of the logit difference over its clean value, a ratio of means, with its interval."""
    change = scores.change.rename("effect").assign_attrs(long_name="change over the clean value", units="logit")
    return stats.ratio_of_means(change, scores.base_logit_difference)


total = nnheads.patch(model, prompts, noising=True)
total["base_logit_difference"] = total.clean_logit_difference
total["change"] = total.logit_difference - total.clean_logit_difference
direct = nnheads.path_patch(model, prompts)
strict = nnheads.path_patch(model, prompts, mlps="freeze")
kinds = {"total": total, "direct": direct, "direct, frozen": strict}
table = pd.DataFrame({name: share(one).effect.to_series() for name, one in kinds.items()})
table.sort_values("total").head(8).round(2)

# %% [markdown]
# The heads of layer 0 matter more than any, and say nothing to the logits: all that they do, they do through others.
# L2H2 is in between. The last two columns differ in the MLPs: in *direct* they may take up what a head
# says and pass it on, as in the paper, in *frozen* they may not. Little of L2H2 is left then. So which heads receive it?
#
# ## 2. Which heads send to the queries of the writers?
#
# The **writers** are the heads of the last layer that go straight to the logits. `receivers` names them, and
# `via="q"` by their queries alone: what they ask for, which decides where they look.

# %%
last = direct.sel(layer=[3])
writers = [(head["layer"], head["head"]) for head in stats.top_heads(share(last), "effect", 3, lowest=True)]
print("writers:", ", ".join(head_name(*head) for head in writers))
received = share(nnheads.path_patch(model, prompts, receivers=writers, via="q", at="END"))
senders = stats.top_heads(received, "effect", 1, lowest=True)
title = "To the queries of " + ", ".join(head_name(*head) for head in writers)
plot.show(plot.heatmap(received.effect, title=title, marked=senders))

# %% [markdown]
# One head sends, L2H2: it decides what they ask for. Wang et al. found such heads in GPT-2, where they tell later
# heads which name *not* to look at, and called them **S-inhibition** heads. The layer of the receivers is blank,
# since heads of one layer do not hear each other.
#
# ## 3. Back to the first layer
#
# Now the same question about L2H2, and about those that send to it. For each step we ask by queries, by keys (what
# stands to be found where) and by values (what is handed on).

# %%
steps = {"L2H2": [(2, 2)], "L1H0, L1H1": [(1, 0), (1, 1)]}
columns = {}
for name, receivers in steps.items():
    for via in ("q", "k", "v"):
        effect = share(nnheads.path_patch(model, prompts, receivers=receivers, via=via)).effect
        columns[name, via] = effect.to_series()
table = pd.DataFrame(columns)
table[(table < -0.05).any(axis=1)].round(2)

# %% [markdown]
# L2H2 hands on (v) what L1H0, L1H1 and L0H2 say. And these two look where they look because L0H1 and L0H2 send to
# their queries, and L0H0 to their keys. Put together:
#
# * L0H0 notes at each token what stood before it. L1H0 and L1H1 find that note (k).
# * L0H1 and L0H2 say at the repeated name who it is and that it came before. L1H0 and L1H1 search for it (q), and
#   L2H2 gets it too (v).
# * L2H2 carries this to the end of the sentence and tells the writers what to look for (q).
#
# ## 4. Try to prove it wrong
#
# That is a nice story, and it makes predictions. If L1H0 and L1H1 find the repeated name by the note of L0H0, then
# this path must run through one place: the token *behind* the first mention of that name, where the note is.

# %%
found = nnheads.path_patch(model, prompts, receivers=steps["L1H0, L1H1"], via="k", senders=[(0, 0)], by_position=True)
lost = found.change.sel(layer=0, head=0) / found.base_logit_difference.mean()
distance = found.position - prompts.role_S1
places = {"first mention": distance == 0, "right behind it": distance == 1, "anywhere else": ~distance.isin([0, 1])}
pd.Series({name: lost.where(here).sum("position").mean("batch").item() for name, here in places.items()}).round(2)

# %% [markdown]
# All of it is where it has to be. The second prediction: these paths lead to these receivers, not to any heads of
# their layers.

# %%
writers_not = [(3, head) for head in range(8) if (3, head) not in writers]
paths = {"L2H2 to queries of": ((2, 2), "q", [writers, writers_not])}
paths["L0H0 to keys of"] = ((0, 0), "k", [[(1, 0), (1, 1)], [(1, 2), (1, 3)], [(1, 4), (1, 5)], [(1, 6), (1, 7)]])
rows = {}
for name, (sender, via, lists) in paths.items():
    for receivers in lists:
        one = share(nnheads.path_patch(model, prompts, receivers=receivers, via=via, senders=[sender]))
        names = " ".join(head_name(*head) for head in receivers)
        rows[name, names] = one.sel(layer=sender[0], head=sender[1]).to_pandas()
pd.DataFrame(rows).T[["effect", "effect_low", "effect_high"]].astype(float).round(2)

# %% [markdown]
# The first line of each block is the story. The other heads of layer 3 receive from L2H2 as well, though less, and the
# other heads of layer 1 receive nothing from L0H0 at all.
#
# ## What misleads
#
# * **"Direct" is not quite direct.** With MLPs recomputed, as is usual, a direct effect includes what
#   they make of it. Compare the two columns of the first table before you call a head a writer.
# * **Paths need not add up.** Each is followed with all else frozen. In a chain the same loss is seen at every link:
#   L0H0 and L0H1 both account for most of the answer, and for the same part of it.
# * **Keys and values are shared.** In this model two heads have one key. L1H0 and L1H1 are such a pair, so nothing
#   can be sent to the keys of one alone; `nnheads.path_patch` names in its attributes which really received.
#
# ## The answer
#
# A head of the first layer takes a note at each token, two heads find the note that belongs to the repeated name,
# L2H2 carries what they found to the end of the sentence, and changes what the writers look for. Each link was
# measured by itself, and two of them were held against other places and other receivers, where there was little or
# nothing.
#
# ## Where to go from here
#
# * The same as commands: `nnheads path` for ways to the logits, `nnheads path --receivers 3.1,3.6,3.7 --via q --at
#   END` for those to later heads, with `--mlps freeze` if MLPs shall not help.
# * All of this evidence at once, as a table of roles: `nnheads ioi --roles`. Total effects: [patch](patch.ipynb) and
#   [ioi](ioi.ipynb). Is the circuit faithful and complete? [circuit](circuit.ipynb).
