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
# # What leaves my machine when the model is elsewhere?
#
# A model of seventy billion parameters does not fit on a laptop. [NDIF](https://ndif.us) and other servers hold such
# models and run experiments on them (Fiotto-Kaufman et al. 2024, arXiv 2407.14561). Where a model runs is said once,
# when it is loaded: `load(..., remote=)`, or `--remote` of a command, takes NDIF, an address, or a rehearsal on your own
# machine. Whatever is asked of the model afterwards goes there.
#
# Before you send anything, you may want to know: are the numbers the same? What exactly is sent, and how much? What
# happens if the connection breaks? This notebook answers without a server.

# %%
import numpy as np
import pandas as pd

import nnheads

model = nnheads.load("reference")
rehearsing = nnheads.load("reference", remote="local")
here = nnheads.detect(model, "induction", n=8)
rehearsed = nnheads.detect(rehearsing, "induction", n=8)
largest = {name: float(np.nanmax(abs(here[name].astype(float) - rehearsed[name]))) for name in here.data_vars}
print(f"{len(largest)} variables, largest difference {max(largest.values()):g}")

# %% [markdown]
# A rehearsal packs the experiment as it would be sent, unpacks it, and runs what comes out. Not a bit differs.
#
# ## 1. What would be sent?
#
# We listen where the packet is made. Sizes are as sent, compressed; beside them what it would take to move the weights
# instead.

# %%
from unittest.mock import patch

from nnsight.schema.request import RequestModel

pack = RequestModel.serialize


def packets(experiment) -> list[bytes]:
    """What an experiment would send."""
    found = []

    def listening(tracer, compress=False):
        found.append(pack(tracer, compress=True))
        return pack(tracer, compress=compress)

    with patch.object(RequestModel, "serialize", listening):
        experiment()
    return found


prompts = nnheads.ioi(model.tokenizer, n=8)
asked = {
    "induction, 8 prompts": lambda: nnheads.detect(rehearsing, "induction", n=8),
    "induction, 32 prompts": lambda: nnheads.detect(rehearsing, "induction", n=32),
    "patch every head, 8 pairs": lambda: nnheads.patch(rehearsing, prompts),
}
sent = {name: packets(experiment) for name, experiment in asked.items()}
weights = sum(one.numel() * one.element_size() for one in model._module.parameters())
rows = {name: {"packets": len(found), "kB": sum(map(len, found)) / 1000} for name, found in sent.items()}
pd.DataFrame(rows | {"(the weights)": {"packets": 0, "kB": weights / 1000}}).T.round(1)

# %% [markdown]
# A dozen kilobytes, which grow with the prompts. For a large model the packet is hardly larger; its weights are. What
# comes back are scores by head, and no attention patterns.
#
# And what is in it? The server has torch and nnsight, and has never heard of nnheads. So functions travel as their
# source, and all that they mention has to be there. We unpack one and write down every module that it asks for:

# %%
import linecache

from nnsight.intervention.serialization import CustomCloudUnpickler


def opened(packet: bytes) -> tuple[set[str], list[str]]:
    """Modules that a packet needs where it is opened, and names of the functions that it brings."""
    modules, functions = set(), []

    class Listening(CustomCloudUnpickler):
        def find_class(self, module, name):
            found = super().find_class(module, name)
            if name == "subimport":  # an import that the source mentions
                return lambda wanted: (modules.add(wanted.split(".")[0]), found(wanted))[1]
            if name == "_load_function":
                return lambda source, own, *more: (functions.append(own), found(source, own, *more))[1]
            modules.add(module.split(".")[0])
            return found

    sources = dict(linecache.cache)  # opening puts the packet's source in place of the files' own
    RequestModel.deserialize(packet, model._remoteable_persistent_objects(), compress=True, unpickler=Listening)
    linecache.cache.update(sources)
    return modules, functions


modules, functions = opened(sent["induction, 8 prompts"][0])
print("needs: ", ", ".join(sorted(modules)))
print("brings:", ", ".join(sorted(functions)))

# %% [markdown]
# nnheads is not among what is needed, and neither is xarray. Whatever stands there beyond torch, nnsight and what they
# bring has to be installed on the server. Each function also brings the name of the file that it stands in on your
# machine, for error messages: do not keep secrets in folder names.
#
# ## 2. A rehearsal is a weak check
#
# Could it have failed? Here is an experiment that no server can run, because a function of ours uses a package that is
# not there. The rehearsal passes, for *we* have the package. The list of what is needed shows it.

# %%
import xarray as xr
from nnsight import save

from nnheads.trace.blocks import read_z


def spread(z):
    """Standard deviation of head outputs, the wrong way: with a package that servers lack."""
    return float(xr.DataArray(z.detach().numpy()).std())


def careless():
    with rehearsing.trace("When Mary and John went to the market", remote="local"):
        found = save(spread(read_z(rehearsing.layers[1], 8)))
    print(f"the rehearsal passes: {found:.2f}")


print("needs:", ", ".join(sorted(opened(packets(careless)[0])[0])))

# %% [markdown]
# So nnheads' own tests do more than rehearse: they run every command against a server in which nnheads, xarray and the
# like do not exist, without weights and gradients.
#
# ## 3. What is not sent
#
# Most keys may read activations and swap them, and no more: gradients and weights stay out of reach. Commands that need
# them say so at once. And if there is nobody at the address, that takes one line too:

# %%
from nnheads.errors import NNHeadsError

NOBODY = "http://127.0.0.1:9"  # a port of this machine on which nothing listens
elsewhere = nnheads.load("reference", remote=NOBODY)
for experiment in (nnheads.attribute, nnheads.patch):
    try:
        experiment(elsewhere, prompts)
    except NNHeadsError as error:
        print(f"{experiment.__name__}: {error}\n")

# %% [markdown]
# The first line comes without a try, the second after four within a few seconds. The command that asks a server how it
# is ends in one line as well. In a shell you would type `nnheads remote status --remote URL`; here it runs inside the
# notebook's own process, which saves starting Python.

# %%
from nnheads import command

command(f"remote status --remote {NOBODY}")

# %% [markdown]
# Where a server listens, it says which models it has, whether they are loaded, and which versions differ from yours.
#
# ## 4. Send now, fetch tomorrow
#
# With `--submit` a command sends its jobs and ends. A job's number is written into the run's **ledger** before anybody
# waits for its result. Kill the client or lose the connection: the same command finds the number there, asks for that
# job, and sends only what the server no longer knows. `nnheads remote collect FOLDER` does so for a folder.
#
# With no server at hand we pretend: in place of the post, a number is made up and nothing leaves this machine. All else
# is what really happens.

# %%
from pathlib import Path

from nnheads.remote import jobs as remote
from nnheads.errors import Pending

posted = []


def pretended(job, request, tracer, key, notes):
    job.job_id = f"job-{len(posted)}"
    posted.append(key)
    notes.note(key=key, job=job.job_id, up=len(job._serialize(tracer)), host=job.host)


def not_finished(job, key, notes, fresh):
    raise Pending(f"job {job.job_id} is not finished")


with patch.object(remote, "send", pretended), patch.object(remote, "awaited", not_finished):
    command(f"detect induction --limit 8 --quiet --remote {NOBODY} --submit")
    print(f"posts: {len(posted)}\n")
    command("remote collect results/detect/reference/shipped/induction")
    print(f"posts: {len(posted)}\n")
    command(f"detect induction --limit 8 --seed 1 --quiet --remote {NOBODY} --submit -o others")
    print(f"posts: {len(posted)}\n")
print(next(Path("results").rglob("jobs.jsonl")).read_text().strip())

# %% [markdown]
# The second command posts nothing: it asks after the job that is in the ledger. The third is another question, other
# prompts, and is sent. The name of a job in the ledger is a hash of the code and of all that it works on, so that one
# experiment never gets the result of another.
#
# ## What misleads here
#
# * **A rehearsal that passes.** See above: it finds what cannot be packed, and not what a server lacks.
# * **Other machines, other digits.** A server may hold the model in bfloat16, with another attention kernel, and scores
#   move a little. `nnheads drift MODEL --against remote --remote ndif` says how far; see the notebook `drift`.
# * **Sent is not done.** A run that was submitted holds a ledger, and no results until `collect` has fetched them.
#
# ## Where to go from here
#
# * `nnheads remote status meta-llama/Llama-3.1-70B`, then `nnheads detect all meta-llama/Llama-3.1-70B --remote ndif
#   --submit`, then `nnheads remote collect results/detect/...`. Your key comes from `NDIF_API_KEY`.
# * What would it cost? `nnheads ioi MODEL --remote ndif --plan` runs nothing.
# * The public service was not reached from where this notebook was made; the README says what was tested instead.
