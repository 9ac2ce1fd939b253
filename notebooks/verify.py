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
# # Is what was published about these heads still true?
#
# *"Head 5.1 of GPT-2 is an induction head." "Copying ends without these three."* Such sentences are cited for years,
# and rarely measured again. `nnheads verify` keeps them as data: each **claim** has a source, a published number, a
# tolerance, and what has to be run to get that number. The run is made, and the claim passes, warns or fails.
#
# Here we verify what the card of the small model that ships with nnheads says about it. Then we try to fool the check:
# with a claim that is wrong, and with a model that cannot do anything.
#
# In a shell you would type `nnheads verify`. Here the same commands run inside the notebook's own process, which saves
# starting Python and loading libraries each time.

# %%
from nnheads import command

command("verify --only induction,copy,decoy --quiet")

# %% [markdown]
# Claims that need the same run share it. Those that begin with *not* are **negative**: they hold if what they say is
# not so. That one induction head alone is *not* needed, although copying ends without all three, is such a fact. It
# says how far a method that looks at one head at a time would be misled.
#
# ## 1. A claim is data
#
# This is one, as it stands in `nnheads/claims/reference.json`: how to measure (a knock-out of three heads), where to
# look (the metric without them), and what was published.

# %%
import json
from pathlib import Path

import pandas as pd

from nnheads.claims.claim_files import FOLDER

card = json.loads((FOLDER / "reference.json").read_text())
print(json.dumps(next(one for one in card["claims"] if one["id"] == "copy-lost"), indent=1))

# %% [markdown]
# ## 2. Claims of your own, one of them false
#
# Copy a file, change it, and name it with `--claims`. Five claims: a true one; one that is a little too proud; one that
# is plainly wrong about a head; a negative fact; and one about data that we do not have.

# %%
detect = {"measure": "detect", "type": "induction", "limit": 12, "length": 50}
decoy = {"measure": "knockout", "behaviour": "ioi", "heads": ["3.0"], "limit": 16}
truth = {"measure": "truth", "data": "TruthfulQA.csv", "limit": 50}
common = {"source": "this notebook", "kind": "value", "tolerance": 0.03}
mine = [
    {"id": "true", "claim": "L1H1 is an induction head", "published": 0.98, "how": detect,
     "where": {"variable": "mass", "head": "1.1"}},
    {"id": "proud", "claim": "L2H4 attends with all of its weight", "published": 1.0, "tolerance": 0.02, "warn": 0.1,
     "how": detect, "where": {"variable": "mass", "head": "2.4"}},
    {"id": "wrong", "claim": "L3H2 is an induction head", "published": 0.91, "how": detect,
     "where": {"variable": "mass", "head": "3.2"}},
    {"id": "decoy", "claim": "L3H0 names the indirect object", "published": 0.0, "kind": "at_most", "negative": True,
     "how": decoy, "where": {"variable": "lost"}},
    {"id": "questions", "claim": "it knows TruthfulQA", "published": 0.5, "how": truth, "where": {"variable": "mc1"}},
]  # fmt: skip
Path("mine.json").write_text(json.dumps({"model": "reference", "claims": [common | one for one in mine]}))
command("verify --claims mine.json --quiet")

# %% [markdown]
# All four verdicts, and exit code 1 because of the one that fails, so that a script notices. What cannot be measured is
# skipped, with the reason, and never counted as passed.
#
# The claims about induction read single numbers off one map of all heads. Here is the map, with their names:

# %%
import numpy as np

import nnheads
from nnheads import plot

model = nnheads.load("reference")
mass = nnheads.detect(model, "induction", n=12, length=50).mass
named = np.full(mass.shape, "", dtype=object)
named[1, 1], named[2, 4], named[3, 2] = "true", "proud", "wrong"
plot.show(plot.heatmap(mass, signed=False, title="Induction, and the heads that claims name", texts=named))

# %% [markdown]
# ## 3. A model that has learned nothing
#
# If these claims held for a model before training, they would say nothing about what it learned. Here is a model of the
# same shape with random weights, and the same claims of the card:

# %%
from nnheads.reference import untrained

Path("untrained").mkdir()
untrained.write(untrained.initial_model(0), Path("untrained"))
Path("card.json").write_text(json.dumps(card))
command("verify untrained --claims card.json --only induction,copy,decoy --quiet")

# %% [markdown]
# The claims about patterns fail, and that it copies, as they should. The claims about losses are skipped. They would
# pass, and not because they are true of this model: it cannot copy, so it does not copy without three heads either,
# and whoever does nothing loses nothing when a head is taken away. **A claim about what is lost counts only beside one
# that it was there.** So each of them names that one (`requires`), and says nothing where it does not pass.
#
# ## 4. What else ships
#
# Published facts about larger models. Some are about files that others published and need no model; the rest are
# measured on it, and need it from the Hub.

# %%
from nnheads.claims.claim_files import files, read_claims

rows = {}
for path in sorted(set(files().values())):
    given = read_claims(path)
    about_files = sum(one.how["measure"] == "file" for one in given.claims)
    rows[given.model] = {
        "claims": len(given.claims),
        "negative": sum(one.negative for one in given.claims),
        "on the model": len(given.claims) - about_files,
        "on published files": about_files,
    }
pd.DataFrame(rows).T

# %%
command("verify gpt2 --list --only copy,9.9")
command("verify llama-2-7b-80k --only file --quiet")

# %% [markdown]
# GPT-2 runs on a laptop in minutes once it is downloaded; models of seven billion parameters want a GPU, or a server
# (`--remote ndif`). `--files FOLDER` names the folder with published head lists. None of the claims about models other
# than the shipped one was measured for this notebook.
#
# ## What misleads here
#
# * **A wide tolerance passes everything.** Look at `tolerance` and `warn` before you trust a pass.
# * **Same name, another measurement.** Published scores come from other prompts and lengths. Where ours are shorter,
#   the note of the file says so, and a correlation or a rank is claimed rather than a digit.
# * **Passing is about this model.** It says that the number can be had again, not that the interpretation is right.
#
# ## Where to go from here
#
# * `nnheads verify`, `nnheads verify gpt2`, `nnheads verify gpt2 --only path`, `nnheads verify MODEL --claims FILE`,
#   `nnheads verify MODEL --list` says what is claimed and measures nothing.
# * What a claim may measure, and where it may look: `nnheads/claims/measures.py` and `nnheads/claims/__init__.py`.
# * The same question about one file of yours: the notebook `rerun`. The decoy head in full: the notebook `ioi`.
