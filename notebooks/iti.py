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
# # Can a few heads make a model answer more truly?
#
# Ask a language model a question about which people are commonly mistaken, and it often repeats the mistake. Yet
# inside it there may be heads that *know*: a simple probe on their output tells true statements from false ones. Li
# et al. (2023) took the next step. They moved the output of such heads a little along the direction of truth while
# the model answered, and called it **inference-time intervention**.
#
# It is also an experiment that is easy to get wrong: by testing on questions that gave the direction, or by scoring
# texts that the edit could not reach. This notebook does it, and shows what guards against both. It runs in a minute
# on a laptop, on the small model that ships with nnheads. That model has learned 200 invented facts, and for most of
# them it heard a popular mistake more often than the truth.

# %%
import nnheads
from nnheads import plot
from nnheads import stats
from nnheads.prompts.truth import REFERENCE_TEMPLATE, read_questions
from nnheads.prompts.statements import statements

model = nnheads.load("reference")
questions, _ = read_questions("reference")  # or TruthfulQA.csv, mc_task.json, "tqa_mc2"
questions[0]

# %% [markdown]
# ## 1. What does it say by itself?
#
# Each question has several answers. Each answer is read behind its question, and its log probability is the sum
# over its tokens. **MC1** asks whether the best answer is likelier than every false one, **MC2** how much of the
# probability of all answers the true ones have.

# %%
from nnheads.interventions import Intervention
from nnheads.truth.multiple_choice import score

prompts = statements(model.tokenizer, questions, template=REFERENCE_TEMPLATE)
plain = score(model, Intervention(), prompts)
plain[["mc1", "mc2"]].mean().to_pandas()

# %% [markdown]
# Most of the time it prefers the mistake.
#
# ## 2. Which heads know better?
#
# Questions are cut into two **folds**; each is tested once, with everything fitted on the other. A fifth of the
# other half validates. All answers of a question stay together, so that no probe is tested on a question that it
# was taught. On every head's output at the end of each statement we fit a logistic regression, and ask how often it
# is right about statements of the other fold.

# %%
from nnheads.truth.activations import last_outputs
from nnheads.truth.folds import folds
from nnheads.truth.probes import probe

z = last_outputs(model, prompts)  # (statement, layer, head, dim)
parts = folds(len(questions))
probes = probe(z, prompts, parts)
accuracy = probes.accuracy.mean("fold").assign_attrs(long_name="accuracy on held-out questions", units="1")
plot.show(plot.heatmap(accuracy, signed=False, title="What heads know of truth"))

# %% [markdown]
# A quarter of the statements are true, so that a probe which always says *false* is right three times out of four.
# Heads of the later layers do much better than that.
#
# ## 3. A direction, a strength, a few heads
#
# The direction of a head, its **mass mean**, leads from the mean of its outputs on false answers to that on true
# ones. Sigma is how far its outputs spread along this direction. The edit adds alpha times sigma times the direction
# to the best K heads. Which alpha, which K? Validation questions decide, along directions of training questions.

# %%
import random

from nnheads.prompts import world
from nnheads.truth import conditions, crossval, material
from nnheads.truth.neutral import neutral_texts

words = random.Random(0)
neutral = neutral_texts(model, [" ".join(world.filler(words, 24)) for _ in range(12)])  # should not change
names = [question.question for question in questions]
given = material.Material(prompts, z, names, parts, probes, neutral, material.orders(z, probes, parts))
options = material.Options(draws=2, batch_size=128)
grid = crossval.grid(model, given, alphas=[0.5, 1, 2, 4, 8], counts=[4, 16], options=options)
curves = stats.mean(grid.mc1, "question")
each = {
    f"{k} heads": tuple(
        curves[name].sel(heads=k).assign_attrs(long_name="MC1", units="1") for name in ("mc1", "mc1_low", "mc1_high")
    )
    for k in grid.heads.values
}
plot.show(plot.curves(each, title="MC1 on validation questions", log=True))

# %% [markdown]
# Too weak changes little, too strong breaks the model. What it costs shows on texts that have nothing to do with the
# questions: how far the predictions move (KL, nats per token).

# %%
grid.kl.mean(["fold", "text"]).to_pandas().round(3)

# %% [markdown]
# Of the settings whose MC1 lies within one standard error of the best, each fold takes the one that moves neutral
# texts least.

# %%
settings = [crossval.choose(grid, fold) for fold in range(2)]
settings

# %% [markdown]
# ## 4. On questions that it has not seen, and against chance
#
# Now the test, once. Beside the edit stand no edit, **random directions** in the same heads, just as long, and
# **random heads**, each along its own direction. If these did as well, the heads or the directions would mean little.

# %%
from nnheads.truth.contrasts import summary

scores = crossval.evaluate(model, given, settings, options)
table = summary(scores)
table[["mc1", "mc1_low", "mc1_high", "mc1_gain", "mc1_gain_low", "mc1_gain_high", "mc1_p", "mc2", "kl"]].to_pandas().T.round(4)

# %% [markdown]
# Intervals are over questions, and p is that of the paired difference between the edit and each control.
#
# ## 5. In its own words
#
# The same edit while the model writes, on questions of the fold that did not give it.

# %%
from nnheads.truth.samples import answers

found, edit = conditions.final(given, 0, *settings[0], options)
asked = [questions[number] for number in parts[0].test[::12]]
written = answers(model, [(question, edit) for question in asked], template=REFERENCE_TEMPLATE, new_tokens=2)
written.written.to_pandas().T.set_axis([question.question for question in asked])

# %% [markdown]
# ## 6. Two ways to fool oneself
#
# **Leaks.** Directions and sigmas remember which questions gave them, and so does a saved edit. Tested on these, it
# is refused.

# %%
from nnheads.errors import NNHeadsError
from nnheads.truth.directions import guard

try:
    guard(edit, names)
except NNHeadsError as error:
    print(error)

# %% [markdown]
# **Edits that come too late.** An edit of the last position alone cannot change how likely the last token is: that
# was predicted one token earlier. Scores would come out, and they would be those of the unedited model.

# %%
from nnheads.truth.iti import rescoped

try:
    score(model, rescoped(edit, "last"), prompts)
except NNHeadsError as error:
    print(error)

# %% [markdown]
# ## 7. Take it along
#
# The edit is a few kilobytes. It can also be **baked** into a checkpoint that loads without nnheads: adding v to head
# outputs at every position is a bias of W_O v behind the output projection. The checkpoint is only kept if its logits
# are those of the live edit. Mind that a bias acts on the prompt as well.

# %%
import tempfile
from pathlib import Path

from nnheads.interventions import save
from nnheads.truth.bake import bake

folder = Path(tempfile.mkdtemp())
size = sum(path.stat().st_size for path in save(edit, folder / "edit").iterdir())
baked = bake(model, edit, folder / "baked", prompts.isel(batch=slice(0, 8)))
print(f"{size / 1000:.1f} kB; the edit moves logits by up to {baked.moved:.1f}; baked and live differ by {baked.difference:.0e}")

# %% [markdown]
# ## Where to go from here
#
# * The same as commands, with files: `nnheads iti fit`, `nnheads iti evaluate`, `nnheads iti generate`,
#   `nnheads iti bake`, `nnheads iti export`.
# * A model of yours: `nnheads iti evaluate meta-llama/Llama-2-7b-chat-hf --data TruthfulQA.csv --alpha 15 --heads 48`
#   (the setting of the paper); `--plan` says what it would cost.
# * Other directions: `--direction probe`, `pca` or `random`. An edit on another file: `--intervention FOLDER --data FILE`.
