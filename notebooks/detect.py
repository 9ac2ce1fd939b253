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
# # Which heads are of which type, and how much of it is chance?
#
# An attention head has a type if it looks in a certain way whatever it reads: at the token before, at an earlier copy
# of the same token, at what followed that copy. Averages of attention find such heads in every model, also where
# there are none. This notebook finds the heads of all types at once, says what the columns beside the average mean,
# and then looks for types in a model that cannot have any.

# %%
import pandas as pd
import nnheads
from nnheads import plot
from nnheads import stats
from nnheads.models.names import head_name

model = nnheads.load("reference")  # or "openai-community/gpt2", a folder, ...
induction = nnheads.detect(model, "induction", n=16)
columns = ["mass", "mass_low", "mass_high", "null", "excess", "p_value", "q_value", "flag"]
induction[columns].to_dataframe().sort_values("mass", ascending=False).head(5).round(3)

# %% [markdown]
# ## 1. What the columns mean
#
# An **induction head** continues what was there before: having read *A B ... A* it looks at *B* (Olsson et al. 2022,
# arXiv 2209.11895). `detect` drew 16 sequences of random tokens, each followed by the same tokens again, and asked
# every head at every repeated token.
#
# * **mass**: how much of its attention the head puts on the target; the mean over tokens and sequences, between 0 and
#   1.
# * **mass_low, mass_high**: a 95 % interval. Draw 16 other sequences, and this is how far the mean would move.
# * **null**: the same queries, but random targets. It is what a head gets that looks around without aim.
# * **excess**: mass minus null. The **p value** says how often a draw of sequences would show such an excess if the
#   true one were no more than a margin of 0.05.
# * **q value, flag**: with 32 heads, one or two pass p < 0.05 by luck; with a thousand heads it is fifty. q is p
#   corrected for that (Benjamini and Hochberg), and heads with q below 0.05 are flagged: of all flagged heads, at
#   most about one in twenty is to be expected there by chance.
#
# ## 2. All types, and few forwards
#
# Types that are asked on the same prompts are read in the same run of the model. We count runs, one type at a time
# and all together.

# %%
from nnheads.detectors._catalog import head_type, types

forwards = []
model._module.register_forward_pre_hook(lambda *_: forwards.append(1))
counts = {}
for name in types():
    forwards.clear()
    nnheads.detect(model, name, n=4)
    counts[name] = {"prompts": head_type(name).stimulus, "forwards": len(forwards)}
forwards.clear()
nnheads.detect(model, "all", n=4)
print(f"one by one {sum(one['forwards'] for one in counts.values())}, all together {len(forwards)}")
pd.DataFrame(counts).T

# %% [markdown]
# The five types on repeated tokens cost one forward together. The two types with many forwards let the model write an
# answer, token by token.
#
# ## 3. A map of types
#
# `detect` with "all" returns one dataset a type. Flagged heads go on one map: a head of several types has a cell of
# several colours, paler where the score is low. (Hallucination heads are those that look elsewhere when the model
# makes something up. That needs prompts on which it does.)

# %%
found = nnheads.detect(model, "all", n=16)


def shown(heads):
    """Attention mass, or what a type is ranked by where it is about no attention; flagged heads alone."""
    return heads[heads.attrs["headline"] if "mass" not in heads else "mass"].where(heads.flag == 1)


flagged = {name: shown(heads) for name, heads in found.items() if heads.flag.any()}
print("no head beyond chance:", *(name for name in found if name not in flagged))
plot.show(plot.types_map(flagged, title="Heads beyond chance"))

# %% [markdown]
# ## 4. Mass without a null misleads
#
# Now the control. Here is a model of the same shape that was never trained. It has no heads of any type. We look for
# previous-token heads in both models, on sequences of two tokens and their repetition, and take every head with more
# than a fifth of its mass on the token before. A fifth looks like a lot.

# %%
from nnheads.reference.untrained import initial_model

untrained = nnheads.load("reference")
untrained._module.load_state_dict(initial_model(0).state_dict())

rows = {}
for title, one in (("trained", model), ("untrained", untrained)):
    for length in (2, 50):
        heads = nnheads.detect(one, "previous_token", n=16, length=length)
        rows[f"{title}, {length} tokens twice"] = {
            "mass > 0.2": int((heads.mass > 0.2).sum()), "largest mass": float(heads.mass.max()),
            "median null": float(heads.null.median()), "flagged": int(heads.flag.sum()),
        }  # fmt: skip
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# On short texts every head of the untrained model passes, since there are few tokens to look at, and a head that
# spreads its attention evenly has a good part of it anywhere. The null of the same queries is as high, so none is
# flagged. A mass of 0.2 means nothing until one knows what it would be without the type.
#
# Is it right to be silent about all types, then? And what did the correction for many heads do?

# %%
nothing = nnheads.detect(untrained, "all", n=16)
pd.DataFrame(
    {
        (title, which): {name: int(test(heads).sum()) for name, heads in of.items()}
        for title, of in (("trained", found), ("untrained", nothing))
        for which, test in (("p < 0.05", lambda heads: heads.p_value < 0.05), ("flagged", lambda heads: heads.flag))
    }
)

# %% [markdown]
# In the untrained model no head of any type is flagged. This could have gone wrong, and would have, with a mass
# alone. The two columns of the trained model differ where the correction held back heads that are only somewhat above
# the margin.
#
# ## 5. What misleads: a mean of two things
#
# Some name movers of the map are pale: they put half of their mass on the name that has to follow. Look at the width
# of their intervals.

# %%
found["indirect_object"][columns].to_dataframe().sort_values("mass", ascending=False).head(5).round(2)

# %% [markdown]
# With sixteen sentences an interval that wide means that sentences differ. The sentences come in two orders, ABBA
# (*When **Mary** and John ..., John gave it to*) and BABA (*When John and **Mary** ..., John gave it to*). Apart:

# %%
from nnheads.prompts.ioi_spans import with_spans

sentences = with_spans(nnheads.ioi(model.tokenizer, n=40), ("name_mover",))
mass = nnheads.measure(model, sentences).mass.sel(kind="name_mover").groupby("order").mean()
top = [(one["layer"], one["head"]) for one in stats.top_heads(found["indirect_object"], "mass", 5)]
pd.DataFrame({head_name(*head): mass.sel(layer=head[0], head=head[1]).to_series() for head in top}).T.round(2)

# %% [markdown]
# Three of them do nearly all of it in one order and nothing in the other: whatever they go by, it is not which name
# has to follow. (What L0H4 goes by, this split does not say.) Only L3H0 looks at the right name in both orders. And
# not even that makes it a name mover: it was planted as a decoy, and taking it away changes nothing (see the notebook
# [knockout](knockout.ipynb)).
#
# ## The answer
#
# A type is flagged when its heads look at the target more than at random targets, by more than a margin, in more
# prompts than chance explains, over all heads. That finds the planted heads of this model, and none in a model
# without any. It says where heads look, and nothing about what they cause.
#
# ## Where to go from here
#
# * All types as one command, with a folder a type and the map: `nnheads detect all`, `nnheads detect induction
#   MODEL`.
# * How heads come about while a model is trained: name several checkpoints, `nnheads detect induction MODEL
#   --revision step1000,step4000,step16000`, and a curve for each of the strongest heads is drawn.
# * What each type means, and types of your own: [heads](heads.ipynb). Scores on one text, as TransformerLens computes
#   them: [match](match.ipynb). What a behaviour cannot do without: [knockout](knockout.ipynb).
