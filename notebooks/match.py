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
# # How well does a head match a pattern on this one text?
#
# Much of what is published about head types comes from one text and one number: lay the attention of a head over the
# pattern that such a head should have, and see how much of it falls onto the pattern. TransformerLens computes such
# scores (`head_detector`), and nnheads computes the same ones, so that numbers can be compared. This notebook shows
# how, with patterns of your own, and then what a score on a single text cannot tell.

# %%
import numpy as np
import pandas as pd
import nnheads
from nnheads import plot
from nnheads import stats
from nnheads.models.names import head_name
from nnheads.spans.pattern_match import PATTERNS, match_text, target

model = nnheads.load("reference")  # or "openai-community/gpt2", a folder, ...
text = "Mary gave the book to John and Mary gave the letter to John"
induction = match_text(model, text, "induction")
plot.show(plot.heatmap(induction, signed=False, title="Induction pattern on one text"))

# %% [markdown]
# ## 1. What is matched
#
# The pattern is a matrix D with a row for each token that reads and a column for each token that is looked at: 1
# where such a head should look. *Previous token* has its ones below the diagonal. *Duplicate token* has them at
# earlier copies of the same token, *induction* at the tokens after these copies. The score **mul** is the share of
# all attention A that falls onto the ones: the sum of A times D over the sum of A.

# %%
ids = np.array(model.tokenizer(text)["input_ids"])


def strongest(scores, k: int = 3) -> str:
    """The k heads with the highest score."""
    ranked = scores.to_series().sort_values(ascending=False, kind="stable").head(k)
    return ", ".join(f"{head_name(*head)} {value:.2f}" for head, value in ranked.items())


rows = {}
for pattern in PATTERNS:
    rows[pattern] = {
        "mul": strongest(match_text(model, text, pattern)),
        "mul, first token left out": strongest(match_text(model, text, pattern, exclude_bos=True)),
        "abs": strongest(match_text(model, text, pattern, kind="abs")),
        "tokens with a target": target(ids, pattern).any(1).mean().round(2),
    }
pd.DataFrame(rows).T

# %% [markdown]
# The known heads of this model come first in each row: L0H0 looks at the previous token, L0H2 at duplicates, L1H0,
# L1H1 and L2H4 are induction heads. The numbers need care:
#
# * Tokens without a target count as well. A perfect head cannot score more than the last column, so that 0.23 may be
#   good and cannot be compared with another text.
# * **exclude_bos** leaves out the first token, where heads rest when there is nothing to do. Only then the share
#   means something like *when it looks anywhere, it looks there*.
# * **abs** is one minus the sum of |A - D| over the number of tokens. It is below zero for most heads, and longer or
#   shorter texts move it.
#
# ## 2. A pattern of your own
#
# A pattern is a lower triangular matrix of zeros and ones. This one says: two tokens back.

# %%
n = len(ids)
two_back, first = np.eye(n, k=-2), np.eye(n)[[0]].repeat(n, 0)
print("two tokens back:", strongest(match_text(model, text, two_back)))
print("at the first token:", strongest(match_text(model, text, first)))

# %% [markdown]
# L0H6 and L0H7 look two tokens back, a habit that no type is about. Keep them in mind.
#
# ## 3. The same heads on other texts
#
# Now the same induction score on four texts. If it were a property of the head, the rows would be alike.

# %%
texts = {
    "our text": text,
    "ten words twice": "river silver temple apple marble Mary red meadow garden letter " * 2,
    "three words, four times": "river silver temple " * 4,
    "nothing twice": "the old river was cold and a young sailor slept behind one quiet castle",
}
heads = [(1, 0), (1, 1), (2, 4), (0, 6), (0, 7), (0, 2)]
rows = {}
for name, one in texts.items():
    scores = match_text(model, one, "induction")
    reachable = target(np.array(model.tokenizer(one)["input_ids"]), "induction").any(1).mean()
    rows[name] = {head_name(*head): float(scores.sel(layer=head[0], head=head[1])) for head in heads}
    rows[name]["tokens with a target"] = reachable
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# They are not alike. Part of it is the last column, the most that any head could get. The third line is worse: L0H6
# and L0H7 get as much as the true induction heads. On a text that repeats every three words, what followed the
# earlier copy stands two tokens back, and that is where these two mostly look. The text cannot tell the two habits
# apart. On the last text no word comes twice, and no head has any score.
#
# A second trap is the share of what is left when the first token is left out:

# %%
four = "river silver temple apple " * 4
size = len(model.tokenizer(four)["input_ids"])
columns = {
    "duplicate_token": match_text(model, four, "duplicate_token"),
    "duplicate_token, first token left out": match_text(model, four, "duplicate_token", exclude_bos=True),
    "attention off the first token": 1 - match_text(model, four, np.eye(size)[[0]].repeat(size, 0)),
}
table = pd.DataFrame({name: scores.to_series() for name, scores in columns.items()})
table.sort_values("duplicate_token, first token left out", ascending=False).head(3)

# %% [markdown]
# By the middle column L2H6 is as good a duplicate-token head as L0H2. But nearly all its attention rests on the first
# token; the score is about the crumbs that are left, in the last column. Where little is left, such a share means
# little.
#
# ## 4. The control: random tokens, varied distances, many texts
#
# `detect` asks the same question so that these traps are closed: random tokens, copies at another distance in each
# text, a null of random targets, and an interval over texts. If the suspicion against the two heads is wrong, they
# should come out as induction heads here too.

# %%
detected = nnheads.detect(model, "induction", n=24)
suspects = pd.MultiIndex.from_tuples(heads, names=["layer", "head"])
detected[["mass", "mass_low", "mass_high", "null", "flag"]].to_dataframe().loc[suspects].round(3)

# %% [markdown]
# The true induction heads pass, the two that look a fixed distance back do not.
#
# ## The answer
#
# A score on one text says how much of a head's attention lies on a pattern *there*. It is the right number to compare
# with a published one that was computed in the same way, on the same text, with the same options. It has no interval
# and no null, it depends on how many tokens have a target, and habits that agree on this text cannot be told apart.
#
# ## Where to go from here
#
# * The same as a command: `nnheads match "some text" MODEL --pattern previous_token --measure abs --exclude-bos`.
# * Several texts: average `match_text` over them, and mind that longer texts score otherwise than short ones.
# * Types, nulls and intervals: [detect](detect.ipynb). A type of your own on texts of your own, with a null:
#   [heads](heads.ipynb).
