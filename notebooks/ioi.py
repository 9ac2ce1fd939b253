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
# # Which heads name the indirect object?
#
# *"When Mary and John went to the market, John gave the book to"* — you expect **Mary**. To say so, a model
# has to notice that John appears twice, rule him out, and copy the other name. Somewhere in it, attention
# heads do this. This notebook finds them, and then tries to prove itself wrong.
#
# It runs in a minute on a laptop, with no account and no download: nnheads ships with a small trained model
# in which we know the answer, because some of its heads were planted. Change one line to point it at any
# Hugging Face causal language model.

# %%
import torch
import nnheads

torch.manual_seed(0)
model = nnheads.load("reference")  # or "openai-community/gpt2", a folder, ...
nnheads.geometry(model)

# %% [markdown]
# ## 1. Look at one sentence
#
# First, does the model do the task at all? `logit_lens` runs one text and reports what is going on inside: the
# candidates for the next word, and what each layer would answer if it were the last (the *logit lens*).

# %%
inside = nnheads.logit_lens(model, "When Mary and John went to the market, John gave the book to", k=4)
inside[["next_probability"]].to_dataframe()

# %%
inside.isel(position=-1)[["lens_probability"]].to_dataframe()

# %% [markdown]
# ## 2. Many sentences, and their twins
#
# One sentence proves little. `ioi` draws a hundred, from templates in which either person may be mentioned
# first, so that no head can succeed by position alone. Each comes with a **corrupted** twin in which the
# second *John* is *Mary*. Everything else is the same, token by token, but now **John** is right.
#
# The result is a labelled dataset. Words that the tokenizer would split are left out beforehand.

# %%
prompts = nnheads.ioi(model.tokenizer, n=100, seed=0)
for text in (prompts.clean_text, prompts.corrupted_text):
    print(text.values[0])
prompts

# %% [markdown]
# We measure the **logit difference**: how much more the model favours the right name over the wrong one. It
# should be large and positive on clean prompts, large and negative on corrupted ones. Cases in which the
# model is wrong on either are no evidence about how it gets them right, so they are dropped, and counted.

# %%
import numpy as np

names = np.unique(np.concatenate([prompts.answer, prompts.wrong]))
right = nnheads.correct(model, prompts, candidates=names)
good = ((right.correct_clean == 1) & (right.correct_corrupted == 1)).values
prompts = prompts.isel(batch=good)
print(f"{good.sum()} of {good.size} are right on both")

clean = nnheads.answers(model, prompts)
corrupted = nnheads.answers(model, prompts, token="corrupted")
float(clean.logit_difference.mean()), float(corrupted.logit_difference.mean())

# %% [markdown]
# ## 3. Move one head's output at a time
#
# Now the experiment. Run the corrupted sentence, but give *one* head the output that it had on the clean
# one. If the answer swings back, this head carries what decides it. Do that for every head, in every
# sentence.
#
# The **effect** is 0 if nothing changed and 1 if that head alone restored the whole difference. It is not
# bounded: a head that argues for the wrong name is negative.

# %%
scores = nnheads.patch(model, prompts)
scores.effect

# %%
from nnheads import plot
from nnheads import stats
from nnheads.models.names import head_name

gap = scores.clean_logit_difference - scores.corrupted_logit_difference
change = (scores.logit_difference - scores.corrupted_logit_difference).rename("effect").assign_attrs(scores.effect.attrs)
heads = stats.ratio_of_means(change, gap)
top = stats.top_heads(heads, "effect", 5)
for head in top:
    print(head_name(head["layer"], head["head"]), f"{head['value']:.2f} [{head['low']:.2f}, {head['high']:.2f}]")
plot.show(plot.heatmap(heads.effect, title="Clean head output into the corrupted run", marked=top))

# %% [markdown]
# The intervals are bootstrapped over sentences: draw a hundred sentences again, and this is how far the
# numbers would move.
#
# ## 4. Sufficient is not necessary
#
# What we did, called *denoising*, asks which heads are enough to bring the answer back. The reverse,
# *noising*, puts corrupted outputs into the clean run and asks which heads cannot be spared. A head with
# understudies looks important in the first picture and dispensable in the second.

# %%
noised = nnheads.patch(model, prompts, noising=True)
both = stats.mean(scores.effect)[["effect"]].rename(effect="denoising")
both["noising"] = stats.mean(noised.effect).effect
both.to_dataframe().sort_values("denoising", ascending=False).head(8)

# %% [markdown]
# ## 5. Try to prove it wrong
#
# A ranking is a claim. Here is a check that shares no code with it: switch off the three top heads with a
# plain nnsight trace, and compare with triples drawn at random from the same layers.

# %%
from nnheads.trace.blocks import read_z
from nnheads.models.inputs import inputs
from nnsight import save

fed, sizes = inputs(model, prompts), nnheads.geometry(model)
answer, wrong = (torch.from_numpy(prompts[name].values).long() for name in ("answer", "wrong"))


def without(cut: list[tuple[int, int]]) -> float:
    """Mean logit difference with some heads silenced."""
    with torch.no_grad(), model.trace(**fed, use_cache=False, logits_to_keep=1):
        for layer, head in sorted(cut):
            read_z(model.layers[layer], sizes.heads)[:, :, head] = 0
        logits = save(model.output.logits[:, -1].float())
    return float((logits.gather(1, answer[:, None]) - logits.gather(1, wrong[:, None])).mean())


found = [(head["layer"], head["head"]) for head in top[:3]]
generator = np.random.default_rng(0)
random = []
while len(random) < 20:
    triple = [(layer, int(generator.integers(sizes.heads))) for layer, _ in found]
    if len(set(triple)) == 3 and not set(triple) & set(found):
        random.append(without(triple))
print(f"all heads {without([]):.2f}; without the top three {without(found):.2f}; ", end="")
print(f"without three random ones {np.mean(random):.2f} (lowest of 20: {min(random):.2f})")

# %% [markdown]
# ## 6. What are they, and what is missing?
#
# The effect says *that* a head matters. Where it looks says something about *how*. `detect` scores every head by
# its attention on prompts made for one question, against the same queries with random targets.

# %%
import pandas as pd

types = ["current_token", "duplicate_token", "induction", "indirect_object"]
scores_of = {name: nnheads.detect(model, name, n=16).mass for name in types}
columns = {name: values.to_series() for name, values in scores_of.items()}
table = pd.DataFrame({"effect": heads.effect.to_series(), **columns})
table.sort_values("effect", ascending=False).head(6).round(2)

# %% [markdown]
# The strongest head attends to itself: it prepares each word's identity for the layers above. The next ones are
# induction heads, pressed into service. Now look for the head with the best *pattern* for the job, the one that
# looks from the end of the sentence straight at the name that has to follow:

# %%
table.sort_values("indirect_object", ascending=False).head(2).round(2)

# %% [markdown]
# A perfect pattern, and an effect of nothing. It was planted to make this point: **attention is a hypothesis,
# intervention is the test.**
#
# ## Where to go from here
#
# * The same as one command, with files that load in xarray: `nnheads ioi`, `nnheads ioi openai-community/gpt2`.
# * Other twins: `nnheads ioi --corruption abc` (three fresh names), `--corruption swapped`, or your own
#   sentences with `--prompts FILE`.
# * One pair of your own, position by position: `nnheads patch --clean ... --corrupted ... --answer ... --wrong ...`.
