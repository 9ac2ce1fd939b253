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
# # Where in a sentence, and where in the model, is the answer decided?
#
# *"When Mary and John went to the market, **John** gave the book to"* ends in Mary. Change one word, the second
# *John*, to *Mary*, and it ends in John. Everything that the model does differently between the two runs starts at
# that word and ends at the last one. **Activation patching** finds the way between: copy one piece of one run into
# the other, and see how far the answer swings (Heimersheim and Nanda 2024, arXiv 2404.15255, explain how to read it).

# %%
import pandas as pd
import nnheads
from nnheads import plot
from nnheads import stats
from nnheads.prompts.pairs import Pair, one_pair, token_texts

model = nnheads.load("reference")  # or "openai-community/gpt2", a folder, ...
text = "When Mary and John went to the market, John gave the book to"
twin = text.replace("John gave", "Mary gave")
pair = one_pair(model.tokenizer, Pair(clean=text, corrupted=twin, answer="Mary", wrong="John"))
for token in ("token", "corrupted"):
    said = nnheads.answers(model, pair, token=token).isel(batch=0)
    print(f"{token}: logit difference {float(said.logit_difference):+.2f}, Mary {float(said.answer_probability):.4f}")

# %% [markdown]
# We measure the **logit difference**: how much more the model favours Mary than John. It is large in the **clean**
# run, and as far below zero in the **corrupted** one. The two texts must have the same tokens, place by place, but
# for the one that differs; `one_pair` says so if they have not.
#
# ## 1. Position by position
#
# The **residual stream** is the running sum that each layer reads and adds to. For each layer and each position we
# run the corrupted sentence, but with the clean run's stream at that one place. The **effect** is 0 where nothing
# changed and 1 where the answer swung all the way back.

# %%
tokens = [token_texts(model.tokenizer, pair[name].values[0]) for name in ("token", "corrupted")]
labels = [one if one == two else f"{one} / {two}" for one, two in zip(*tokens)]
stream = nnheads.patch(model, pair, site="resid_pre", by_position=True).effect.isel(batch=0)
stream = stream.assign_coords(position=stream.position.assign_attrs(labels=labels))
plot.show(plot.heatmap(stream, title="Clean residual stream into the corrupted run"))

# %% [markdown]
# Up to layer 1 all of it is at the word that differs. Before layer 3 all of it is at the last word. In between it
# moves, and nowhere else does it stop.
#
# ## 2. Head by head
#
# What carries it? `z` is what a head puts out, here swapped at all positions at once. `patch` knows more **sites**: q
# and v are what a head asks for and what it hands on, `pattern` is its attention. They say *how* a head matters.
# (There are k, for what it offers, and the outputs of whole layers, too. Keys and values may be shared by a group of
# heads, as here by two.)

# %%
sizes = nnheads.geometry(model)
effects = {site: nnheads.patch(model, pair, site=site).effect.isel(batch=0) for site in ("z", "q", "pattern", "v")}
shared = [head * sizes.kv_heads // sizes.heads for head in range(sizes.heads)]
effects["v"] = effects["v"].isel(kv_head=shared).rename(kv_head="head").assign_coords(head=range(sizes.heads))
table = pd.DataFrame({name: values.to_series() for name, values in effects.items()})
each = nnheads.patch(model, pair, by_position=True).effect.isel(batch=0)
table["strongest at"] = each.argmax("position").to_series().map(lambda place: labels[place])
plot.show(plot.heatmap(effects["z"], title="Clean head output into the corrupted run"))

# %%
table.sort_values("z", ascending=False).head(6).round(2)

# %% [markdown]
# Read a line at a time. L0H1 hands on (v) which name stands there. L1H0 and L1H1 act at the same word, and they look
# elsewhere (pattern) because they *ask* for something else (q). L2H2 and L2H6 act at the last word, in different
# ways: L2H2 hands on something else, L2H6 looks at something else. That is the move in the first picture.
#
# ## 3. Sufficient, or necessary?
#
# So far clean pieces went into the corrupted run: **denoising**, which finds what is *enough* to bring the answer
# back. **Noising** goes the other way and finds what *cannot be spared*. And both depend on the twin: a head that
# does the same in both runs has no effect, however much it is needed. So here is noising with another twin too, in
# which all three names are fresh ones.

# %%
fresh = text.replace("Mary", "Karen").replace("John gave", "Lisa gave").replace("John", "Peter")
other = one_pair(model.tokenizer, Pair(clean=text, corrupted=fresh, answer="Mary", wrong="John"))
ways = {
    "denoising": nnheads.patch(model, pair),
    "noising": nnheads.patch(model, pair, noising=True),
    "noising, fresh names": nnheads.patch(model, other, noising=True),
}
both = pd.DataFrame({name: scores.effect.isel(batch=0).to_series() for name, scores in ways.items()})
print(fresh)
both.loc[both.max(axis=1).sort_values(ascending=False).index].head(8).round(2)

# %% [markdown]
# * L2H2 cannot be spared as easily as it suffices, and L1H1 the other way round: alone it brings much of the answer
#   back, yet without it little is lost, perhaps because L1H0 does the same. Neither column is the true one. They
#   answer two questions.
# * L0H0 and L0H2 are nothing in the first two columns and a great deal in the third. They serve to notice *that* a
#   name comes twice, which is so in both sentences of our first pair. What a pair has in common, it cannot show.
#
# ## 4. Try to prove it wrong
#
# All this is one pair of sentences. Are these heads the heads of the task, or of the market and the book? Here are
# sixty pairs: other words, other templates, the names in both orders. Intervals are over pairs.

# %%
prompts = nnheads.ioi(model.tokenizer, n=60, seed=0)
many = nnheads.patch(model, prompts)
gap = many.clean_logit_difference - many.corrupted_logit_difference
change = (many.logit_difference - many.corrupted_logit_difference).rename("effect").assign_attrs(many.effect.attrs)
compared = stats.ratio_of_means(change, gap).to_dataframe().assign(our_pair=effects["z"].to_series())
print(f"rank correlation over all heads: {compared.effect.corr(compared.our_pair, 'spearman'):.2f}")
compared.sort_values("effect", ascending=False).head(6).round(2)

# %% [markdown]
# The same heads come first, so our pair was no exception. But mind the interval of L2H2: our pair lies far outside,
# since it is the interval of a mean, and a single pair may be far from that. One pair is good for *where*, not for
# *how much*.
#
# ## 5. Your own words
#
# Any two texts will do that line up. The shipped model knows invented facts, and says what is true after *reliable*
# and what is popular after *rumor*:

# %%
question = "what is the colour of Varnia ?"
facts = one_pair(model.tokenizer, Pair(f"reliable : {question}", f"rumor : {question}", "violet", "purple"))
tokens = [token_texts(model.tokenizer, facts[name].values[0]) for name in ("token", "corrupted")]
labels = [one if one == two else f"{one} / {two}" for one, two in zip(*tokens)]
stream = nnheads.patch(model, facts, site="resid_pre", by_position=True).effect.isel(batch=0)
stream = stream.assign_coords(position=stream.position.assign_attrs(labels=labels))
heads = nnheads.patch(model, facts).effect.isel(batch=0).to_series().sort_values(ascending=False)
print(heads.head(3).round(2).to_string())
plot.show(plot.heatmap(stream, title="From rumor to reliable"))

# %% [markdown]
# Another way altogether: the first layer moves it from the first word to the colon, where it waits, and one head of
# layer 2, L2H1, brings most of it to the end.
#
# ## 6. What misleads
#
# An effect is a share of the gap between the runs. Here is a pair that differs in what must not matter, a ball for
# the book:

# %%
thing = Pair(clean=text, corrupted=text.replace("book", "ball"), answer="Mary", wrong="John")
scores = nnheads.patch(model, one_pair(model.tokenizer, thing)).isel(batch=0)
book, ball = float(scores.clean_logit_difference), float(scores.corrupted_logit_difference)
print(f"logit difference: with the book {book:+.2f}, with the ball {ball:+.2f}")
print(f"largest effect of a head: {float(scores.effect.max()):.2f}")

# %% [markdown]
# One head brings all of the difference back, and the difference is next to nothing: both runs say Mary. Look at the
# two logit differences before you look at any effect. (Pairs with a gap below `gap=0.1` are left out by themselves.)
#
# ## The answer
#
# Which of two names follows is decided at the repeated name and moved to the last word in layers 1 and 2. Two heads
# look elsewhere because of it, one hands on what they found, and sixty other pairs name the same heads. Which of them
# the model cannot do without is another question, with another experiment.
#
# ## Where to go from here
#
# * The same as a command, with a picture for every site: `nnheads patch --clean "..." --corrupted "..." --answer
#   Paris --wrong Rome MODEL`, and with `--noising`.
# * Many pairs, with intervals: `nnheads ioi`, and the notebook [ioi](ioi.ipynb). What cannot be spared:
#   [knockout](knockout.ipynb). Through whom a head acts: [path](path.ipynb). All heads from one gradient:
#   [attribute](attribute.ipynb).
