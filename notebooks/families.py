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
# # Is this model read as it computes?
#
# To speak of "head 6 of layer 9" a tool has to know where a model keeps its heads: which module is given their outputs
# side by side, what joins the residual stream, whether a norm stands between. A table of such places is written by
# hand, and a new model is not in it. nnheads derives the places from the model and **proves** them, and refuses a model
# for which a line of the proof fails.
#
# A small copy of the model is built from its configuration, with random weights: the same kinds of layers, norms and
# windows, but few and narrow. One run of it is written down, module by module.

# %%
from nnheads import command

command("families olmo3")

# %% [markdown]
# OLMo 3 is in no table of ours. Each line compares what nnheads reads, writes or computes again with plain PyTorch on
# the same weights. That took a second, once; the proof is kept for the next time.
#
# ## 1. What was found
#
# No name was looked up. Blocks are the list whose members attend; the projection is the module that is given what the
# heads computed; what joins the stream are the two outputs whose sum is a block's step.

# %%
import dataclasses

import pandas as pd

from nnheads.models.proven import told_of, usual

row = told_of(usual("olmo3")).row
pd.Series(dataclasses.asdict(row)).to_frame("olmo3")

# %% [markdown]
# OLMo norms what attention and the MLP give before it joins the stream, so what they *add* is what comes out of these
# norms. A tool that takes the attention module's own output for it is wrong by a norm, and nothing looks amiss.
#
# ## 2. What is refused
#
# Some models have no heads, some have heads in a few blocks only, some do something that a line of the proof catches.

# %%
for name in ("mamba", "qwen3_next", "granite_swa"):
    command(f"families {name}")
    print()

# %% [markdown]
# ## 3. Try to prove it wrong
#
# A proof is worth something only if it can fail. Here is a Llama whose output projection secretly gives half of what it
# computes. Its attention looks the same, and its logits are as good as any random model's.

# %%
from nnheads.models.families import FAMILIES
from nnheads.models.proof import proof
from nnheads.models.proven import any_tokenizer, built

module = built(usual("llama"))
for block in module.model.layers:
    block.self_attn.o_proj.register_forward_hook(lambda part, given, output: output * 0.5)
for line in proof(module, FAMILIES["llama"], any_tokenizer()):
    print("holds" if not line.failure else "FAILS", " ", line.says)
    if line.failure:
        print("        ", line.failure)

# %% [markdown]
# ## What misleads
#
# * **The copy is not the model.** What depends on the weights, or shows only in long texts or many layers, is not
#   proven: the proof is about the code that computes.
# * **A configuration is proven, not a name.** Another configuration of the same family may switch a norm or a
#   multiplier on, and has a proof of its own.
# * **Refused does not mean impossible.** A row can be written by hand (docs/extending.md).
