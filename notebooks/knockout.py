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
# # Does the model need these heads?
#
# A detector names three induction heads: they look at what followed the earlier copy of a token. So they should be
# what copies repeated text. The test is to take them away. **Knocking out** a head means to replace its output by one
# that knows nothing of the text at hand, here by its mean over other texts, and to measure what the model still can
# do.
#
# It sounds simple. One at a time gives the wrong answer in this model, and larger ones have backup heads too (Wang et
# al. 2022, arXiv 2211.00593, found them in GPT-2).

# %%
import pandas as pd
import nnheads
from nnheads import plot
from nnheads import stats
from nnheads.models.names import head_name
from nnheads.detectors._detect import ranking
from nnheads.patching.behaviours import ask_for

model = nnheads.load("reference")  # or "openai-community/gpt2", a folder, ...
heads = ranking(nnheads.detect(model, "induction", n=16), flagged=True)
print("induction heads:", ", ".join(head_name(*head) for head in heads))

# other texts than those on which the heads were found, and what their mean is taken over
prompts, others = ask_for("induction", model.tokenizer, 16, seed=1_000_000, length=20)
print(model.tokenizer.decode(prompts.token.values[0]))

# %% [markdown]
# ## 1. One at a time
#
# Each text is twenty random tokens, twice; asked is the second copy. We measure the **log probability** of the right
# token, whose change is finer than the share of right answers. All heads of the model, one at a time:

# %%
alone = nnheads.ablate(model, prompts, "mean", reference=others, metric="log_probability")
change = stats.mean(alone.change)
plot.show(plot.heatmap(change.change, title="Change of log probability without one head"))

# %% [markdown]
# Two heads of layer 0 are needed. (L0H0 notes at each token what stood before it, and L0H1 prepares every token's own
# identity.) The induction heads are not: the model copies as well as before. Were they named by mistake?
#
# ## 2. All at once, and against random heads
#
# `knockout` takes away the first head of the list, the first two, and all three. Beside it go twenty random lists,
# with as many heads of the same layers, none of them listed. Without these, a loss would say little: perhaps any
# three heads hurt.

# %%
from nnheads.patching.knockout import curve

scores = nnheads.knockout(model, prompts, heads, reference=others, metric="accuracy", draws=20)
reduced = curve(scores)
plot.show(plot.against_random(reduced, "accuracy", title="Right tokens in the second copy"))

# %%
columns = ["accuracy", "accuracy_low", "accuracy_high", "random_median", "random_lowest", "p_value"]
reduced[columns].to_dataframe().round(3)

# %% [markdown]
# Two can go with little loss. Without the third nothing is left, while random heads are not missed. **p** is the
# share of lists, the real one among them, that change as much. With twenty draws it cannot be smaller than 1/21, so
# do not read it as a measure of size.
#
# ## 3. The parts do not add up
#
# `interactions` compares what a head is worth alone with what it is worth *after the others are gone*.

# %%
from nnheads.patching.interaction import stepping_in, summary

parts = summary(nnheads.interactions(model, prompts, heads, reference=others, metric="log_probability"))
print(f"together {float(parts.joint):.2f}, sum of the parts {float(parts.sum_of_parts):.2f}")
print(parts.attrs["warning"])
parts[["alone", "last", "last_low", "last_high"]].to_dataframe().round(2)

# %% [markdown]
# Each head alone is worth nothing, and once the other two are gone each is worth everything. They stand in for each
# other. Whoever takes away one head at a time, or reads effects from single swaps, finds none of the three.
#
# ## 4. Who steps in?
#
# Suppose we knew only L1H0 and L1H1, which were planted in this model to stand in for each other. With `backup=True`
# every other head is taken away before and after the list. A head that matters more once the list is gone **steps
# in**.

# %%
planted = [(1, 0), (1, 1)]
stepping = nnheads.interactions(model, prompts, planted, backup=True, reference=others, metric="log_probability")
stepping = summary(stepping)
steps_in = stepping_in(stepping, 3)
for head in steps_in:
    print(head_name(head["layer"], head["head"]), f"{head['value']:.2f} [{head['low']:.2f}, {head['high']:.2f}]")
growth = stepping.growth
plot.show(plot.heatmap(growth, title="How much more each head matters without L1H0 and L1H1", marked=steps_in[:1]))

# %% [markdown]
# An effect is negative where a head helps, so red means: it helps more than before. L2H4 steps in, by far the most.
# Nobody planted it as an induction head: it was taught to retrieve facts, and took up induction by itself. (The blue
# fields of layer 0 are no such thing. L0H0 and L0H1 serve the heads that are gone, so they matter *less* now.)
#
# ## 5. Try to prove it wrong
#
# Perhaps the three heads are needed for everything, and copying is just one victim. So: the same list, with random
# lists beside it, on other things that the model can do. And the other way round: a head with a perfect pattern for
# naming the indirect object, L3H0, on that task.

# %%
rows = {}
for title, task, chosen in (
    ("induction heads", "iteration", heads), ("induction heads", "truth", heads), ("induction heads", "ioi", heads),
    ("L3H0", "ioi", [(3, 0)]),
):  # fmt: skip
    asked, filling = ask_for(task, model.tokenizer, 24, seed=1_000_000)
    metric = "accuracy" if task == "iteration" else "logit_difference"
    found = curve(nnheads.knockout(model, asked, chosen, ks=[len(chosen)], reference=filling, metric=metric, draws=10))
    last = found.isel(k=-1)
    rows[title, task, metric.replace("_", " ")] = {
        "intact": float(found[f"base_{metric}"]), "without": float(last[metric]),
        "low": float(last[f"{metric}_low"]), "high": float(last[f"{metric}_high"]),
        "random, lowest": float(last.random_lowest), "random, highest": float(last.random_highest),
    }  # fmt: skip
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# Parities (*iteration*) and facts (*truth*) come out nearly as before: these heads are not needed for everything.
# Naming the indirect object does suffer, more than without random heads: it presses the same heads into service.
# "Induction head" is not all that they are. And L3H0, with its perfect pattern, can go without loss. The random lists
# warn once more: for facts, one of them loses everything, since it holds a head that facts need (the notebook
# [patch](patch.ipynb) meets one, L2H1). That is why there are many of them.
#
# ## 6. What misleads: what is put in their place
#
# A head cannot be nothing; something stands in its place. Its mean over other texts, zero, an even attention, or its
# output on one other text (*resample*):

# %%
groups = [[head] for head in heads] + [heads[:2], heads]
table = {}
for how in ("mean", "zero", "uniform", "resample"):
    filling = {"reference": others} if how in ("mean", "resample") else {}
    gone = nnheads.ablate(model, prompts, how, groups=groups, metric="accuracy", **filling)
    table[how] = gone.accuracy.mean("batch").to_series()
pd.DataFrame(table).round(2)

# %% [markdown]
# Three ways agree. The fourth destroys the behaviour with two heads gone, although the third is there and can do it:
# outputs of another text do not say nothing, they say something wrong, aloud, and the backup is outvoted. Whether a
# behaviour *survives without* heads and whether it survives their *contradiction* are two questions.
#
# ## The answer
#
# Copying needs induction heads, but none in particular. Any of the three does it, two may go, and all three may not.
# One at a time would have cleared them. Random lists of the same layers, other tasks, and other kinds of knockout say
# that the loss comes from these heads, and not from any damage whatever.
#
# ## Where to go from here
#
# * The same as a command: `nnheads knockout --behaviour induction --backup`; for heads and sentences of your own
#   `nnheads knockout MODEL --heads 9.9,9.6,10.0 --behaviour pairs --prompts FILE.jsonl --pairs`; `--plan` says what
#   it costs.
# * Where the heads come from: [detect](detect.ipynb). Swaps instead of removal: [patch](patch.ipynb). Through whom
#   they act: [path](path.ipynb). Whole circuits, with the same care: [circuit](circuit.ipynb).
