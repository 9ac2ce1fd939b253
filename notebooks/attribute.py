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
# # Can one gradient stand in for a hundred experiments?
#
# Activation patching swaps one piece at a time, so its cost grows with the number of pieces. A gradient says at once
# how the answer would change with *every* piece, if only the model were linear. This is **attribution patching**, AtP
# (Nanda 2023; Syed et al. 2023, arXiv 2310.10348); AtP* mends two of its faults (Kramár et al. 2024, arXiv
# 2403.00745). The model is not linear. This notebook shows where the estimate fails, and how an **audit** finds out
# without patching everything.

# %%
import numpy as np
import pandas as pd
import nnheads
from nnheads import plot
from nnheads import stats
from nnheads.models.names import head_name
from nnheads.patching import screening

model = nnheads.load("reference")  # or "openai-community/gpt2", a folder, ...
prompts = nnheads.ioi(model.tokenizer, n=40, seed=0)

# %% [markdown]
# ## 1. The truth, for once
#
# We ask about **queries**: what each head asks for. In a run of the clean sentence each head in turn gets its queries
# from the corrupted twin, and we see how far the logit difference falls. This model is small enough to do it for all
# heads.

# %%
swapped = nnheads.patch(model, prompts, site="q", noising=True, gap=0.0)
change = swapped.logit_difference - swapped.clean_logit_difference
estimates = {name: nnheads.attribute(model, prompts, site="q", noising=True, method=name) for name in ("atp", "atp*")}
table = pd.DataFrame({name: one.estimate.mean("batch").to_series() for name, one in estimates.items()})
table.insert(0, "exact", change.mean("batch").to_series())
table.loc[table.abs().max(axis=1).sort_values(ascending=False).index].head(8).round(2)

# %% [markdown]
# All in logits. For the two heads that matter most, L1H0 and L1H1, plain AtP finds next to nothing, and it is alarmed
# by L0H2, which hardly matters. AtP* has the five heads that matter as its first five, but finds the two largest far
# too small.
#
# ## 2. Why: attention that is already decided
#
# Where a softmax has put all its weight on one key, it is flat: ask for something slightly else, and nothing moves.
# The gradient is zero there, although another *name* as the query would move all of the attention to another place.
# How decided are these heads? At the repeated name they look at:

# %%
from nnheads.prompts.ioi_spans import with_spans

seen = nnheads.measure(model, with_spans(prompts, ("induction", "duplicate"))).mass.mean("batch")
looks = {"induction": "the token after its copy", "duplicate": "its copy"}
rows = {}
for layer, head in ((1, 0), (1, 1), (0, 2)):
    one = seen.sel(layer=layer, head=head)
    rows[head_name(layer, head)] = {text: float(one.sel(kind=kind)) for kind, text in looks.items()}
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# Decided. AtP* does not go through the softmax by its slope: it computes the attention anew with the other queries,
# and goes on by the gradient from there. That takes away most of the false alarm L0H2, and finds L1H0 and L1H1. What
# their new attention does to *later* decided heads is still judged by the slope, which is why their sizes stay too
# small.
#
# ## 3. When the truth is too dear: screen, then audit
#
# With thousands of heads nobody patches them all. `screen` patches the top of the estimate exactly, which uncovers
# false alarms. And it patches some of *the others* too, the ones next to the top and a random sample of the rest: an
# **audit**. If some of these matter more than the smallest of the top, heads were missed, and the share of the random
# sample bounds how many more there are.

# %%
screens = {}
for method in ("atp", "atp*"):
    screens[method] = nnheads.screen(model, prompts, method=method, site="q", noising=True, top=5, sample=10)
verdict = ["threshold", "others", "audited", "missed", "missed_most", "rank_correlation"]
pd.DataFrame({method: found[verdict].to_pandas() for method, found in screens.items()}).T.round(2)


# %%
def picture(method: str):
    """Estimate and truth of what was patched: on the line both are equal."""
    found = screens[method]
    estimated = found.estimate.mean("batch").assign_attrs(long_name="estimated change", units="logit")
    exact = found.change.mean("batch").assign_attrs(long_name="exact change", units="logit")
    audited, beyond = found.chosen.isin((screening.NEXT, screening.DRAWN)), found.exact_size > found.threshold
    kinds = {"top of the estimate": found.chosen == screening.FOUND, "missed, in the audit": audited & beyond}
    return plot.show(plot.against(estimated, exact, kinds, audited & ~beyond, title=f"Queries by {method}"))


picture("atp")

# %% [markdown]
# The audit of AtP is honest about a bad estimate. It finds one of the missed heads, 1.0, just below the cut; and of five
# others, drawn at random, it concludes that up to a third of the others may have been missed (`missed_most`, with 95 %
# confidence). Such an estimate is not to be used. The audit of AtP* found none missed, and still does not promise
# that there are none: ten of 27 is a small sample.

# %%
picture("atp*")

# %% [markdown]
# ## 4. Try to prove it wrong
#
# Does the audit keep its promise? Here the truth is known, so we can audit two hundred times, with other random
# samples, and see how often the bound was below the number of heads that were really missed. It may be, in one of
# twenty.

# %%
size = abs(change).mean("batch")
rows = {}
for method, scores in estimates.items():
    known = scores.assign(change=change)
    audits = []
    for seed in range(200):
        chosen = screening.choose(known, 5, 10, seed)
        found = screening.audit(known, chosen)
        missed = int(((size > float(found.threshold)) & (chosen != screening.FOUND)).sum())
        audits.append((missed, float(found.missed_most) >= missed, float(found.missed) > 0))
    rows[method] = dict(zip(("really missed", "bound held", "audit saw one"), np.mean(audits, 0)))
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# The bound held. (It is cautious with so few heads.) And every audit of AtP saw a missed head, because one of them
# stands just below the cut, where the audit always looks; a random sample alone would have seen none now and then.
#
# ## 5. What misleads: what neither method mends
#
# The same for what heads put out (z):

# %%
swapped = nnheads.patch(model, prompts, noising=True, gap=0.0)
outputs = {"exact": (swapped.logit_difference - swapped.clean_logit_difference).mean("batch")}
for method in ("atp", "atp*"):
    outputs[method] = nnheads.attribute(model, prompts, noising=True, method=method).estimate.mean("batch")
pd.DataFrame({name: values.to_series() for name, values in outputs.items()}).sort_values("exact").head(5).round(2)

# %% [markdown]
# L0H1 decides nearly everything, and both methods see almost nothing of it. Its output becomes the queries of L1H0
# and L1H1, whose attention is decided. No attention of its own is at stake, so there is nothing for AtP* to compute
# anew. A low estimate in an early layer is no evidence of absence.
#
# ## The answer
#
# One gradient ranks most heads well, and can be wrong about the most important ones. Use it as a screen: patch what
# it finds, audit what it does not, and read the bound. AtP* is worth its little extra cost wherever queries and keys
# matter.
#
# ## Where to go from here
#
# * The same as a command: `nnheads attribute --method "atp*" --site q --noising --audit 20`; more of `--audit` makes
#   the bound tighter.
# * The exact sweep: [ioi](ioi.ipynb), and [patch](patch.ipynb) for one pair. Along which ways heads act:
#   [path](path.ipynb).
