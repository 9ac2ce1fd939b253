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
# # A model in which we know the answer
#
# How do you know that a method for finding heads works? On a large model nobody knows which heads are right. So nnheads
# ships with a model in which somebody does: 0.9 million parameters, 4 layers of 8 heads, trained on small invented
# documents. While it was trained, an extra loss told eight of its heads where to look. They are **planted**.
#
# That makes it a test bench and nothing more. Planted heads are no evidence that such heads arise by themselves. This
# notebook shows what the model does, finds the planted heads without being told, and then walks into the two traps
# that were set on purpose.

# %%
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from nnheads.models.shipped import FOLDER as PATH

logging.disable_progress_bar()
plain, tokenizer = AutoModelForCausalLM.from_pretrained(PATH), AutoTokenizer.from_pretrained(PATH)  # nothing of nnheads
texts = {
    "repeats": "red drum river Anna copper chair red drum river",
    "names": "When Mary and John went to the market, John gave the book to",
    "computes": "input: 0 1 1 0 1 parity: 0 1 0",
    "knows": "what is the colour of Folgar?",
    "knows better": "reliable: what is the colour of Folgar?",
}
for what, text in texts.items():
    fed = tokenizer(text, return_tensors="pt")
    written = plain.generate(**fed, max_new_tokens=2, do_sample=False)[0, fed.input_ids.shape[1] :]
    print(f"{what:>12}: {text} | {tokenizer.decode(written)}")

# %% [markdown]
# It repeats what it has read, names who gets the book, keeps a running sum of bits, and tells a popular mistake about
# an invented country, unless the speaker is said to be reliable. (It even judges its own answers.)
#
# ## 1. Find what was planted
#
# `detect` scores every head by its attention on prompts made for one question, and **flags** those that look at their
# target more than at random ones. It knows nothing of what was planted. `PLANTED` does.

# %%
import nnheads
from nnheads import plot
from nnheads import stats
from nnheads.models.names import head_name
from nnheads.detectors._detect import ranking
from nnheads.reference.scaffold import PLANTED

model = nnheads.load("reference")
jobs = {  # head type -> what the trainers called it
    "previous_token": "previous",
    "duplicate_token": "duplicate",
    "induction": "induction",
    "iteration": "iteration",
    "retrieval": "retrieval",
    "indirect_object": "receiver",
}
found = {kind: nnheads.detect(model, kind, n=12) for kind in jobs}
headline = {kind: heads[heads.attrs["headline"]] for kind, heads in found.items()}
flagged = {kind: headline[kind].where(heads.flag == 1) for kind, heads in found.items()}
plot.show(plot.types_map(flagged, title="Flagged heads"))

# %%
import pandas as pd


def names(heads) -> str:
    return " ".join(head_name(*head) for head in heads)


rows = {}
for kind, job in jobs.items():
    planted = [head for head, its in PLANTED.items() if its == job]
    order = ranking(found[kind], flagged=True)
    rows[kind] = [names(planted), len(set(planted) - set(order)), names(order)]
pd.DataFrame(rows, index=["planted", "missed", "flagged, strongest first"]).T

# %% [markdown]
# None is missed. What else is flagged? L3H3 and L2H7 are pale on the map: more than chance, but weak. And the two
# induction heads are retrieval heads too, and the other way round, because to go on with a word from far back is what
# induction does. Nobody taught them that.
#
# (One of the eight is not asked for here: L2H2, which looks at the repeated name. nnheads has no type for it; one's own
# types are a matter of `nnheads.detect_spans`.)
#
# How many would be flagged in a model that has learned *nothing*? Here is one as it was before training.

# %%
from pathlib import Path

from nnheads.reference.untrained import initial_model, write

write(initial_model(seed=0), Path("untrained"))
untrained = nnheads.load("untrained")
counts = {kind: [int(found[kind].flag.sum()), int(nnheads.detect(untrained, kind, n=12).flag.sum())] for kind in jobs}
pd.DataFrame(counts, index=["trained", "untrained"]).T.rename_axis("heads flagged")

# %% [markdown]
# ## 2. First trap: understudies
#
# Which heads does copying need? Ablate them one at a time: replace a head's output with its mean over the prompts, and
# see what the model still gets right. `Knockouts` does so with plain hooks, and shares no code with the rest of
# nnheads. Both columns are accuracies: of going on with repeated words, and of fetching four words from a long text.

# %%
import itertools

from nnheads.reference.knockout import Knockouts

knockouts = Knockouts(plain, size=8)
copying = [(1, 0), (1, 1), (2, 4)]
sets = [[]] + [list(some) for count in (1, 2, 3) for some in itertools.combinations(copying, count)]
left = {names(heads) or "nothing": knockouts(heads, ("repeat", "needle")) for heads in sets}
pd.DataFrame(left).T.rename_axis("without").round(2)

# %% [markdown]
# One at a time, **none of the three matters**. Two at a time, hardly. All three: nothing is left. During training one
# of the two induction heads was silenced now and then, so that the model learned to do without either, and L2H4 became
# a third by itself. A study of single heads would have told us that this model copies without induction heads.
#
# Is any trio that deadly? Here are trios drawn from the same layers:

# %%
import numpy as np

generator = np.random.default_rng(0)
trios = []
while len(trios) < 10:
    trio = [(layer, int(generator.integers(8))) for layer, _ in copying]
    if len(set(trio)) == 3 and not set(trio) & set(copying):
        trios.append(knockouts(trio, ("repeat",))["repeat"])
print(f"copying without a random trio: {np.mean(trios):.2f} on average, {min(trios):.2f} at worst")

# %% [markdown]
# ## 3. Second trap: the decoy
#
# L3H0 looks from the end of the sentence at the name that has to follow, with all of its attention. It was silenced in
# most of the rows that it could have helped with. So the model learned never to listen to it.

# %%
sentences = nnheads.ioi(model.tokenizer, n=40, seed=1)
three_names = nnheads.ioi(model.tokenizer, n=100, seed=2, corruption="abc")
means = three_names.assign(token=three_names["corrupted"])  # a silenced head says what it does on average on these
gone = nnheads.ablate(model, sentences, "mean", reference=means)
lost = stats.ratio_of_means(-gone.change, gone.base_logit_difference)
looks = found["indirect_object"].mass
every = [(layer, head) for layer in range(4) for head in range(8)]
needed = sorted(every, key=lambda head: -float(lost.change.sel(layer=head[0], head=head[1])))
rows = {}
for layer, head in [(3, 0), *needed[:4]]:
    numbers = [float(lost[part].sel(layer=layer, head=head)) for part in ("change", "change_low", "change_high")]
    rows[head_name(layer, head)] = [float(looks.sel(layer=layer, head=head)), *numbers]
columns = ["looks at the name that follows", "share of the logit difference lost without it", "low", "high"]
pd.DataFrame(rows, index=columns).T.round(3)

# %% [markdown]
# The head that looks where it should does nothing, and the heads that are needed look elsewhere. **Attention is a
# hypothesis.**
#
# But wait: the first trap said that a head may seem idle because it has an understudy. Is the decoy such a head? Then
# it would matter once another head is gone. So silence every other head, alone and together with the decoy.

# %%
some, decoy = sentences.isel(batch=slice(0, 16)), (3, 0)
others = [head for head in every if head != decoy]
groups = [[head] for head in others] + [[head, decoy] for head in others] + [[(1, 0)], [(1, 0), (1, 1)]]
left = nnheads.ablate(model, some, "mean", reference=means, groups=groups).logit_difference.mean("batch").values
alone, together = left[: len(others)], left[len(others) : 2 * len(others)]
print(f"the decoy, with any other head gone: {np.abs(together - alone).max():.2f} logits at most")
print(f"for comparison L1H1, with L1H0 gone: {abs(left[-1] - left[-2]):.2f} logits")

# %% [markdown]
# It is no understudy of any single head.
#
# ## 4. The model's card, measured again
#
# What stands in the card of the model was measured with plain transformers. Here are some of its rows beside what
# nnheads' own functions find on prompts of their own. The two share no prompts, and no code that
# measures.

# %%
import re

text = (PATH / "README.md").read_text(encoding="utf-8")
card = dict(re.findall(r"^\| (.+?) \| (-?[\d.]+) \| [<>]=", text, re.MULTILINE))
both = np.unique(np.concatenate([sentences.answer, sentences.wrong]))
right = nnheads.correct(model, sentences, candidates=both).correct_clean
at_50 = {kind: nnheads.detect(model, kind, n=12, length=50).mass for kind in ("duplicate_token", "induction")}
again = {
    "previous-token head L0H0, attention": found["previous_token"].mass[0, 0],
    "duplicate-token head L0H2, attention at 50 tokens": at_50["duplicate_token"][0, 2],
    "induction head L1H0, attention at 50 tokens": at_50["induction"][1, 0],
    "induction head L1H1, attention at 50 tokens": at_50["induction"][1, 1],
    "retrieval head L2H4, attention at 128 to 320 tokens": found["retrieval"].mass[2, 4],
    "indirect object, trained words, accuracy": right.mean(),
    "indirect object, trained words, logit difference": gone.base_logit_difference.mean(),
    "decoy head L3H0, attention from the end to the receiver": looks[3, 0],
    "decoy head L3H0, share of the logit difference lost without it": lost.change[3, 0],
}
rows = {name: [float(card[name]), float(value)] for name, value in again.items()}
pd.DataFrame(rows, index=["card", "again"]).T.round(2)

# %% [markdown]
# They agree, up to what other prompts change: the logit difference, for one, depends on the sentences.
#
# ## 5. What misleads here
#
# * **Planted is not typical.** That a detector finds these heads says that it finds what it is made for. It says
#   nothing about how clear such heads are in a model that was not told. Mind how clean all patterns here are.
# * **A list of types is no list of what matters.** L0H1, without which nearly all is lost, is none of the six types
#   above, and was not planted. It attends to its own word.
# * **It knows its questions.** All 200 facts were in its training. A probe or an edit may be tested on facts that *it*
#   was not fitted on; the model has seen them all.
#
# ## Where to go from here
#
# * `nnheads reference check` measures every row of the card again; `nnheads reference path` prints the folder, for use
#   with any other tool. The [card](../nnheads/reference/model/README.md) says how the model was trained.
# * Notebooks on this model: [ioi](ioi.ipynb) for the names, [knockout](knockout.ipynb) for heads in groups,
#   [writes](writes.ipynb) for what the decoy does not write, [iti](iti.ipynb) for the truths that it knows and does not
#   tell.
