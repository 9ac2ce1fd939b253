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
# # Can a list of heads move from tool to tool?
#
# Papers about attention heads publish lists: these are the retrieval heads, those the function-vector heads. Each tool
# writes its list in a format of its own. Two questions come with every such file. Does it survive being read and
# written, with where it came from? And is what it says true of *this* model? nnheads answers the first by keeping the
# origin beside the numbers, and the second by switching the heads off.
#
# First we need a list. **Retrieval heads** attend to the very token that has to be repeated from far back in the text
# (Wu et al. 2024, arXiv 2404.15574). In the small model that ships with nnheads we know which they are. In a shell you
# would type `nnheads detect retrieval`; here the same command runs inside the notebook's own process, which saves
# starting Python and loading libraries each time.

# %%
from nnheads import command

command("detect retrieval --limit 16 --top 4 --quiet")

# %% [markdown]
# ## 1. Read it
#
# `read_heads` takes any file that it knows, or the folder of a run, and says what is in it by layer and head. It looks
# at the contents, not at the file's name, and executes nothing that a file holds.

# %%
import json
from pathlib import Path

import pandas as pd

import nnheads
from nnheads import plot
from nnheads.runs import store

ours = nnheads.read_heads("results/detect/reference/shipped/retrieval")
known = ("model", "revision", "statistic", "references", "history", "seed", "device")
pd.Series({name: ours.attrs[name] for name in known}).to_frame("what the list knows of itself")

# %% [markdown]
# ## 2. Write it for others, and read it back
#
# Retrieval_Head keeps a list of scores for each head, function_vectors a ranked list of triples, Head_interpret arrays
# and tensors. `nnheads` is our own JSON.

# %%
names = {
    "retrieval_head": "head_score.json", "function_vectors": "top_heads.json", "array": "scores.npy",
    "tensor": "scores.pt", "nnheads": "ours.json",
}  # fmt: skip
rows = {}
for kind, name in names.items():
    again = nnheads.read_heads(nnheads.write_heads(ours, name, format=kind))
    rows[kind] = {
        "bytes": Path(name).stat().st_size,
        "largest change of a score": float(abs(again.score - ours.score).max()),
        "ranked": "rank" in again,
        "says how many heads there are": again.attrs["covers"] == "every head",
        "knows its origin": again.attrs.get("history") == ours.attrs["history"],
    }
print(Path("head_score.json").read_text()[:120], "...")
pd.DataFrame(rows).T

# %% [markdown]
# No score changes. Other formats have less room: honest_llama lists places and no scores. A list without scores says
# that a head is in it, so one has to choose which; here the three strongest. `nnheads convert` without `--to` says what
# is in a file.

# %%
command("convert results/detect/reference/shipped/retrieval --to fold --top 3 -o places.npy")
command("convert places.npy")

# %% [markdown]
# Three heads, each with 1. The file does not say how large the model is: the last layer and head that it names are all
# that is known. What needs a score for *every* head, such as a mask, therefore asks for the size first (`--model` or
# `--shape 32x32`).
#
# Only our own JSON has room for an origin, yet all know it. It lies in a file beside each:

# %%
beside = json.loads(Path("head_score.json.provenance.json").read_text())
print({name: beside[name] for name in ("of", "list_format", "sha256")})
pd.DataFrame(json.loads(nnheads.read_heads("head_score.json").attrs["lineage"]))

# %% [markdown]
# The **lineage** is every file that the list went through, each with a hash of its bytes. What if somebody changes the
# file by hand, and leaves the origin where it is? Then the origin is no longer that of this file:

# %%
Path("edited").mkdir()
content = json.loads(Path("head_score.json").read_text()) | {"0-3": [0.95]}
Path("edited/head_score.json").write_text(json.dumps(content))
record = Path("head_score.json.provenance.json").read_text()
store.write(Path("edited/head_score.json.provenance.json"), lambda path: path.write_text(record))
edited = nnheads.read_heads("edited/head_score.json")
print(edited.attrs["provenance_note"])
print("history" in edited.attrs, float(edited.score.sel(layer=0, head=3)))

# %% [markdown]
# ## 3. Use it: a smaller cache
#
# A model that generates keeps keys and values of everything that it has read. DuoAttention (Xiao et al. 2024, arXiv
# 2410.10819) saves memory: heads that retrieve keep all of it, the others keep only the first tokens and the latest,
# they **stream**. Its file is a table with a number for every *key/value* head. In this model two query heads share
# each, and the higher score of the two counts.

# %%
from nnheads.interchange.masks import kv_mask

mask = kv_mask(ours, kv_heads=4, threshold=0.5)
nnheads.write_heads(mask, "duo", format="duo_attention")
print("\n".join(sorted(path.name for path in Path("duo").iterdir())))
print(f"{mask.attrs['sparsity']:.0%} of the key/value heads stream; kept are those with a {mask.attrs['chosen_by']}")
plot.show(plot.heatmap(nnheads.read_heads("duo").score, signed=False, title="Which key/value heads keep their cache"))

# %% [markdown]
# Three query heads retrieve, and two of them share a key/value head: the mask keeps two.
#
# ## 4. Is a list that somebody sends true?
#
# Here is one, as QRHead writes it: six heads, best first. It is well formed, and it is wrong. The first three are
# made up, and the three that we found come last. Reading cannot tell; an experiment can. `knockout --from` takes the
# list, switches off its first heads, and as many random heads of the same layers beside it.

# %%
sent = [["3-0", 0.97], ["2-6", 0.93], ["1-4", 0.90], ["1-1", 0.62], ["2-4", 0.55], ["1-0", 0.41]]
Path("sent.json").write_text(json.dumps(sent))
print(nnheads.read_heads("sent.json").attrs["source_format"])

# %%
command("knockout --from sent.json --top 6 --behaviour retrieval --ks 0,3,6 --limit 16 --draws 10 --quiet -o tested")

# %%
curve = store.load(next(Path("tested").rglob("curve.nc")))
plot.show(plot.against_random(curve, "accuracy", title="Without the first K heads of the list that was sent"))

# %% [markdown]
# Without its first three heads the model finds every needle, as it does without random ones. Without all six it finds
# almost none. So the file names the right heads and ranks them wrong, and its scores say nothing about which is which.
#
# ## What misleads here
#
# * **A file that can be read is not a result.** Formats check spelling. Only the knock-out looked at the model.
# * **A missing head is not a zero.** Lists name a few heads and leave the rest out. nnheads keeps those as missing and
#   refuses to guess, unless you say with `--fill 0` that they count as zero.
# * **A mask is a bet.** That a head does not retrieve says nothing of what else it needs old tokens for. Measure the
#   model with the mask before you rely on it.
#
# ## Where to go from here
#
# * The same as commands: `nnheads convert FILE` says what is in a file, `nnheads convert FILE --to qrhead -o out.json`
#   writes another, `nnheads convert FILE --to kv_mask --sparsity 0.5 --model MODEL -o mask` chooses by share.
# * A list of yours against random ones: `nnheads knockout --from FILE --behaviour ioi MODEL`; the notebook `knockout`.
# * Did the run that a list came from really say this? See the notebook `rerun`.
