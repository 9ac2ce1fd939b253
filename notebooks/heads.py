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
# # What types of heads are there, and how do I define one of my own?
#
# A **head type** is a sentence about where a head looks, or what it puts out, and a way to measure it. This notebook
# is a catalogue: what each type means, how it is scored, who described it, and where its strongest head looks on one
# text. Then it asks a question for which no type was made: how does the shipped model say a list *backwards*? For
# that we write types of our own, in a text file, and let them compete.

# %%
import numpy as np
import pandas as pd
import nnheads
from nnheads import plot
from nnheads import stats
from nnheads.models.names import head_name
from nnheads.detectors._catalog import head_type, types
from nnheads.detectors._detect import ranking

model = nnheads.load("reference")  # or "openai-community/gpt2", a folder, ...
pd.set_option("display.max_colwidth", None)
values = {name: head_type(name) for name in types()}
about = {name: [text, values[name].headline, values[name].source] for name, text in types().items()}
pd.DataFrame(about, index=["what such a head does", "statistic", "source"]).T

# %% [markdown]
# The statistics: **mass** is the share of attention on the target, **hit** the share of queries whose strongest key
# is the target, **score** counts copied words while the model writes, **correct** is how often a probe on the head's
# output is right. `head_type("induction")` is one value that says more, also how a type misleads.
#
# ## 1. Where the strongest heads look
#
# For each type that is about attention on a given text we find the strongest head and draw one prompt. The table has
# the token that asks, the token at which such a head should look, and the one at which this head looks most.

# %%
rows = {}
for name, value in values.items():
    if value.span is None:
        continue  # not about attention, or only known once the model has written
    heads = nnheads.detect(model, name, n=8)
    best = ranking(heads)[0]
    prompt = value.prompts(model.tokenizer, 1, seed=3)
    query, target = (int(prompt[part].values[0, prompt.kind.values == value.span][-1]) for part in ("query", "key_start"))
    inside = nnheads.logit_lens(model, model.tokenizer.decode(prompt.token.values[0], skip_special_tokens=True), head=best)
    attention, token = inside.attention[query], inside.token_text.values
    strongest = int(attention.argmax("key"))
    rows[name] = {
        "head": head_name(*best),
        "asks": f"{token[query]} ({query})",
        "should look at": f"{token[target]} ({target})",
        "looks at": f"{token[strongest]} ({strongest})",
        "with": round(float(attention[strongest]), 2),
    }
pd.DataFrame(rows).T

# %% [markdown]
# In brackets stands the position. On these prompts each strongest head looks where it should.
#
# ## 2. A question without a type
#
# The shipped model has learned to say lists backwards: *mirror : a b c ; c b a*. Which heads do that? Two guesses:
#
# * **word_to_come**: at each word, a head looks at the word that has to come next, and copies it.
# * **own_copy**: a head looks at the earlier copy of the word itself. What stood before that copy comes next, and a
#   head below may have noted it there.
#
# A type of one's own is a file with one JSON object a line: a text, and spans in it, each with a kind, a query (who
# looks) and a key (at what). Pieces are given as characters from and to, or as the words themselves where they occur
# once. A third kind takes the whole list as its key. It is here to show what a wide target does.

# %%
import itertools
import json
import random
from pathlib import Path

from nnheads.prompts import world_words as words

draw = random.Random(0)


def mirrored(listed: list[str]) -> dict:
    """A list, the same backwards, and where each word of the second half might look."""
    spoken = ["mirror", ":", *listed, ";", *reversed(listed)]
    start = [0, *itertools.accumulate(len(word) + 1 for word in spoken)]
    piece = [[first, first + len(word)] for first, word in zip(start, spoken)]
    middle, spans = 2 + len(listed), []
    for step in range(1, len(listed)):
        keys = {"word_to_come": piece[middle - 1 - step], "own_copy": piece[middle - step]}
        keys["list"] = [piece[2][0], piece[middle - 1][1]]
        spans += [{"kind": kind, "query": piece[middle + step], "key": key} for kind, key in keys.items()]
    return {"text": " ".join(spoken), "spans": spans}


records = [mirrored(draw.sample(words.NOUNS + words.CODE_WORDS, draw.randint(5, 9))) for _ in range(24)]
Path("mirror.jsonl").write_text("\n".join(map(json.dumps, records)))
print(records[0]["text"])
records[0]["spans"][:3]

# %% [markdown]
# `detect_spans` treats every kind in the file as a head type, with interval, null and flag. These are the first four
# of each kind.

# %%
found = nnheads.detect_spans(model, "mirror.jsonl")
columns = ["mass", "mass_low", "mass_high", "null", "flag"]
tables = {kind: heads[columns].to_dataframe().sort_values("mass", ascending=False) for kind, heads in found.items()}
pd.concat({kind: table.head(4) for kind, table in tables.items()}).round(2)

# %% [markdown]
# The second guess wins by far: several heads put nearly all of their attention on the earlier copy. On the word to
# come no head has much. One of these is flagged all the same, and rightly: it looks there more than at random words.
# Beyond chance is not the same as much.
#
# The third kind shows why the null matters. The whole list is most of what there is to see, so a head without aim has
# more than half of its mass on it (see the null). Wide targets need their null more than any.
#
# What the second guess looks like:

# %%
seen = nnheads.logit_lens(model, records[0]["text"], head=ranking(found["own_copy"])[0])
head = head_name(*ranking(found["own_copy"])[0])
plot.show(plot.pattern(seen.attention, list(seen.token_text.values), title=f"Attention of {head}"))

# %% [markdown]
# ## 3. Try to prove it wrong
#
# A pattern is a claim. If the second guess is right, saying the list must fail without the heads that look at the
# copy, and without the head that noted there what stood before: the previous-token head. It must not fail without the
# head that looks at the word to come, and not without random heads of the same layers. Attention is replaced by an
# even one (`uniform`), so that all heads still put out something.

# %%
from nnheads.patching.knockout import curve
from nnheads.spans.files import read_spans

spans = read_spans("mirror.jsonl", model.tokenizer)
query, key = (spans[part].values[:, spans.kind.values == "word_to_come"] for part in ("query", "key_start"))
wanted = np.where(query >= 0, np.take_along_axis(spans.token.values, key, 1), -1)
asked = spans[["token", "mask"]].assign(ask=(("batch", "step"), query), target=(("batch", "step"), wanted))

lists = {
    "word_to_come, first": ranking(found["word_to_come"])[:1], "own_copy, first five": ranking(found["own_copy"])[:5],
    "previous token, first": ranking(nnheads.detect(model, "previous_token", n=8))[:1],
}  # fmt: skip
rows = {}
for title, chosen in lists.items():
    scores = nnheads.knockout(model, asked, chosen, ks=[0, len(chosen)], ablation="uniform", metric="accuracy", draws=40)
    reduced = curve(scores)[["accuracy", "random_median", "random_lowest", "random_highest"]]
    rows[title] = {"heads": " ".join(head_name(*one) for one in chosen), **reduced.isel(k=-1).to_pandas()}
print(f"with all heads: {float(reduced.accuracy[0]):.2f}")
pd.DataFrame(rows).T.set_index("heads", append=True).astype(float).round(2)

# %% [markdown]
# Both parts of the second guess are needed, the first guess is not. Random heads are not either, with one exception:
# the lowest value in the last line says that some other head of layer 0 is needed as well. Look at the range of
# random lists, not at their median alone.
#
# ## What misleads
#
# **A type is a type on its prompts.** In the catalogue above, L2H6 is the strongest *attention sink*: on random
# tokens it rests on the first position. On lists it is the strongest head of our own type. Neither is wrong. The name
# of a type says what a head does on the prompts of that type.
#
# **Fixed distances.** If query and key are always equally far apart, a head that looks a fixed distance back passes
# for any type. In our lists the distance to the copy grows with each word, and still there are two such heads, L0H6
# and L0H7, which look two tokens back in any text. They are right at one word of each list. What does the flag say of
# them?

# %%
found["own_copy"][columns].to_dataframe().loc[[(0, 6), (0, 7)]].round(2)

# %% [markdown]
# Flagged, with little mass: right once a list is more than chance. Vary distances in a file of your own, and look at
# the mass of what is flagged.
#
# ## The answer
#
# The shipped model says a list backwards by looking at the earlier copy of the word at hand, where a previous-token
# head has noted what stood before. Two lines of guesses, made into two types, could be told apart, and knocking the
# heads out agrees.
#
# ## Where to go from here
#
# * The catalogue on the terminal: `nnheads heads`. Your own type as a command: `nnheads detect spans MODEL --spans
#   FILE.jsonl`.
# * A type that you want beside the others in `nnheads detect all` is one file in `nnheads/detectors/`.
# * What intervals, null, q and flag mean: [detect](detect.ipynb). More about taking heads away:
#   [knockout](knockout.ipynb).
