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
# # What happens while a model reads one sentence?
#
# *"When Mary and John went to the market, John gave the book to"*: the next word should be **Mary**. Before any
# statistics it is worth watching a model do this once. Which words does it consider? From which layer on does it
# know? Which heads put the answer there, and where do they look? And how much of what one run shows can be trusted?
#
# This notebook takes about ten seconds. It needs no download: nnheads ships with a small trained model.

# %%
import pandas as pd
import nnheads
from nnheads import plot

model = nnheads.load("reference")  # or "openai-community/gpt2", a folder, ...
nnheads.geometry(model)

# %% [markdown]
# ## 1. Tokens, and the candidates for the next word
#
# `logit_lens` runs one text. A model reads **tokens**: here one a word, and a `<bos>` in front that marks the beginning.
# Always look at them first. A word that a tokenizer does not know, or splits, is a common reason for odd results.

# %%
text = "When Mary and John went to the market, John gave the book to"
inside = nnheads.logit_lens(model, text, k=5)
print(" | ".join(inside.token_text.values))
inside[["next_probability"]].to_dataframe()

# %% [markdown]
# Mary, with hardly a doubt. One right answer may be luck, so here is the control: the same sentence in which Mary
# gives. Nothing else changes, and now the other name must come.

# %%
other = nnheads.logit_lens(model, text.replace("John gave", "Mary gave"), k=5)
other[["next_probability"]].to_dataframe()

# %% [markdown]
# ## 2. What would each layer answer?
#
# Every layer adds something to a running sum, the **residual stream**. The **logit lens** (nostalgebraist 2020,
# "interpreting GPT: the logit lens") reads that sum early: it passes it through the model's own last step, as if
# there were no further layers. Each cell names the best token, and its colour says how probable it is. Row 0 is the
# sum before the first layer, the last row is what the model really says. These are the last words of the sentence.

# %%
end = inside.isel(position=slice(-7, None))
seen = end.lens_probability.assign_coords(position=end.position.assign_attrs(labels=end.token_text.values))
plot.show(plot.heatmap(seen, signed=False, texts=end.lens_text.values, title="Logit lens: best token of each layer"))

# %% [markdown]
# Look at the last column. Before the first layer the lens sees the word itself, then nothing of use, and the name can
# be read before the last layer. The other columns hold a warning: in the rows between, the lens is sometimes sure of
# a word that the model never says. The middle of a model need not speak the language of its end. What the lens shows
# can be read there; where it shows nothing, that says little.
#
# ## 3. Which heads write the answer?
#
# A logit is read off a sum of everything that was ever added to the stream at the last position, so it can be split
# up without loss: this is **direct logit attribution** (Wang et al. 2022, arXiv 2211.00593). We split the **logit
# difference**, how much more the model favours Mary than John.

# %%
from nnheads.prompts.pairs import Pair, one_pair

pair = Pair(clean=text, corrupted=text.replace("John gave", "Mary gave"), answer="Mary", wrong="John")
parts = nnheads.direct_logit_attribution(model, one_pair(model.tokenizer, pair)).isel(batch=0)
total, heads, rest = map(float, (parts.logit_difference, parts.attribution.sum(), parts.component_attribution.sum()))
print(f"{total:.2f}: {heads:.2f} by heads, {rest:.2f} by all other parts")
plot.show(plot.heatmap(parts.attribution, title="What each head adds to Mary over John"))

# %% [markdown]
# Both numbers add up to the first; nnheads refuses to answer where they do not. Some heads write for Mary, some
# against her, and the MLPs, which are no heads, write about as much as all heads together.
#
# ## 4. Where does a head look?
#
# With `head=` the attention of one head is kept: for each token that reads (a row), how its attention is spread over
# the tokens up to it. This is L3H0, head 0 of layer 3.

# %%
looked = nnheads.logit_lens(model, text, head=(3, 0))
plot.show(plot.pattern(looked.attention, list(looked.token_text.values), title="Attention of L3H0"))

# %% [markdown]
# In the last row all of it goes to Mary, the name that has to follow. It is the most convincing of the three
# pictures. Yet what this head adds, in the picture above, is next to nothing.
#
# ## 5. Try to prove it wrong
#
# So whom do we believe: the look, the contribution, or neither? Take heads away and see. `ablate` replaces the output
# of one head at a time by its mean over sentences of the same template, which keeps all but what is special about the
# one at hand. One sentence proves little, so these are sixty, with many names and both orders of the names.

# %%
from nnheads.prompts.ioi_spans import with_spans

prompts = nnheads.ioi(model.tokenizer, n=60, seed=0)
spanned = with_spans(prompts, ("name_mover",))
ordinary = nnheads.ioi(model.tokenizer, n=200, seed=1)
each = {
    "looks at the answer": nnheads.measure(model, spanned).mass.sel(kind="name_mover"),
    "writes": nnheads.direct_logit_attribution(model, prompts).attribution,
    "change without it": nnheads.ablate(model, prompts, "mean", reference=ordinary).change,
}
table = pd.DataFrame({"writes, our sentence": parts.attribution.to_series()})
table = table.join(pd.DataFrame({name: values.mean("batch").to_series() for name, values in each.items()}))
pd.concat([table.sort_values("change without it").head(6), table.loc[[(3, 0)]]]).round(2)

# %% [markdown]
# The last column is in logits, like the logit difference that we split up above. It settles the matter, and it is
# hard on everything so far:
#
# * **The look was empty.** Without L3H0, the last line, nothing changes. It was planted in this model to make that
#   point.
# * **So was the contribution, in a way.** The three heads that the answer needs most write next to nothing
#   themselves. They prepare what later heads and MLPs write, and a split of the last sum cannot see
#   that.
# * **One sentence is not the average.** Compare the two columns that say what a head writes.
#
# ## The answer
#
# In this run the model says Mary with hardly a doubt, the name can be read from the stream before the last layer, and
# heads and MLPs of the upper layers write it. That much one run shows. *Which* heads make the
# difference, it does not show. Looking inside is where questions come from, not answers.
#
# ## Where to go from here
#
# * The same as a command, with pictures and a file that loads in xarray: `nnheads inspect "your text" --head 3.0`,
#   and with a model of yours `nnheads inspect "your text" openai-community/gpt2`.
# * Two sentences instead of one, and where they part: the notebook [patch](patch.ipynb). All heads that look in a
#   certain way, against chance: [detect](detect.ipynb). What a behaviour cannot do without:
#   [knockout](knockout.ipynb).
