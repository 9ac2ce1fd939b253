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
# # Which heads carry a task that examples show?
#
# Show a model a few pairs, *hot → cold, up → down, big →*, and it goes on with *small*. Nobody told it that the task
# is opposites. Todd et al. (2024, arXiv 2310.15213) asked where the model keeps the task that it has gathered from the
# examples, and found a few heads whose output, averaged over such prompts, is enough: put into a prompt *without* a
# clear task, it makes the model do it. The sum of these outputs is the task's **function vector**.
#
# Can the small model that ships with nnheads do anything of the sort? It knows 833 words and no antonyms. But it knows
# 200 invented facts, has mostly heard a popular mistake instead of the truth, and may gather from examples that here
# the truth is asked for.

# %%
import numpy as np
import pandas as pd

import nnheads
from nnheads import plot, stats
from nnheads.prompts.shots import shots
from nnheads.prompts.shot_tasks import audited, own_tasks, split

model = nnheads.load("reference")
wanted, layout = own_tasks(model.tokenizer)
tasks, _ = audited(model.tokenizer, wanted, layout, 5)  # pairs whose answer is one token, enough for 5 examples
shown, held_out = split(tasks)  # pairs that may be examples, and pairs that never are
prompts = {kind: shots(model.tokenizer, shown, 17, count=5, kind=kind, layout=layout) for kind in ("shown", "shuffled")}
for kind, each in prompts.items():
    print(f"{kind}: {model.tokenizer.decode(each.token.values[0])}")

# %% [markdown]
# There is a task for each sort of fact: the colour of a country, its drink, and so on. The **shuffled** prompt is the
# first control. It holds the same questions and the same words, but each answer belongs to another question.
#
# ## 1. Does it do these tasks?

# %%
from nnheads.patching.function_vectors import (
    add_vectors,
    end_outputs,
    function_vectors,
    indirect_effects,
)
from nnheads.patching.task_averages import average_effects, averaged


def mean_outputs(prompts):
    """Head outputs at the end of the prompts of each task, averaged, and how many the model answers right."""

    def by_task(each):
        return [each.isel(batch=np.flatnonzero(each.task.values == task)) for task in np.unique(each.task)]

    return averaged({kind: [end_outputs(model, one) for one in by_task(each)] for kind, each in prompts.items()})


outputs, answered = mean_outputs(prompts)
answered.set_index(task="task_name")[["accuracy_shown", "accuracy_shuffled"]].to_dataframe().round(2)

# %% [markdown]
# All of them with true examples; with shuffled ones it is mostly wrong.
#
# ## 2. Which head carries it?
#
# Take *new* prompts with shuffled examples. Give one head at a time its mean output from prompts with true ones. What
# does the right answer's probability gain? The mean over tasks is the head's **average indirect effect**. Two nulls
# stand beside it: the mean output from *shuffled* prompts, and that of *another task*, say drinks instead of colours.


# %%
def effects(outputs, trials):
    """Average indirect effect of every head, with means of the task, of shuffled examples, and of another task."""
    sources = {**outputs, "other": outputs["shown"].roll(-1, 0)}
    return average_effects({kind: indirect_effects(model, trials, z)["effect"] for kind, z in sources.items()})


trials = shots(model.tokenizer, shown, 10, count=5, kind="shuffled", seed=1, layout=layout)
heads = effects(outputs, trials)
top = stats.top_heads(heads, "aie", 4)
plot.show(plot.heatmap(heads.aie, title="Mean output put into prompts with shuffled examples", marked=top))

# %%
names = ["aie", "aie_low", "aie_high", "aie_shuffled", "aie_other"]
heads[names].to_dataframe()[names].sort_values("aie", ascending=False).head(5).round(3)

# %% [markdown]
# One head stands out, L2H1. Means of shuffled examples do nothing, so it is the examples that count. It looks like
# the finding of the paper. Now read the last column: **the mean output of another task does just as well.** What
# L2H1 holds about colours serves as well for drinks. So it does not hold the task *colours*; the question says that
# already. These eight are one task: *say what is true*.
#
# (L0H0 is negative for a dull reason. It attends to the previous word, which here is the country: a mean of many
# countries wipes out which one is asked about.)
#
# ## 3. Two tasks that differ
#
# A fair test needs two tasks that the question itself does not tell apart. Here they are: the same questions, answered
# with the **truth** or with the **popular mistake**. The prompts that we try L2H1 in have shuffled examples again. How
# likely are the true and the mistaken answer with its own output, and with what it puts out after each sort of
# examples?

# %%
from nnheads.prompts import world

disputed = [question for question in world.questions() if not question.truth_is_popular]
wanted = {
    "truth": [(question.text, question.true) for question in disputed],
    "mistake": [(question.text, question.misconception) for question in disputed],
}
tasks, _ = audited(model.tokenizer, wanted, layout, 5)
shown, held_out = split(tasks)
prompts = {kind: shots(model.tokenizer, shown, 40, count=5, kind=kind, layout=layout) for kind in ("shown", "shuffled")}
outputs, _ = mean_outputs(prompts)
trials = shots(model.tokenizer, shown, 30, count=5, kind="shuffled", seed=1, layout=layout)

true, mistaken = (outputs["shown"][[task, task]] for task in (0, 1))  # the same for prompts of either task
after = {"true": true, "mistaken": mistaken, "shuffled": outputs["shuffled"][[0, 0]]}
columns = {}
for name, z in after.items():
    found = indirect_effects(model, trials, z)
    columns[f"{name} examples"] = (found.effect.sel(layer=2, head=1) + found.base).groupby("task_name").mean()
columns["its own output"] = found.base.groupby("task_name").mean()
pd.DataFrame({name: values.to_series() for name, values in columns.items()}).rename_axis("probability of").round(2)

# %% [markdown]
# By itself the model tells the mistake. L2H1's output after true examples turns most of that round. After mistakes it
# changes nothing, because that is what the model does anyway, and so it is with shuffled examples. So L2H1 does carry
# a task: it says *which of two answers* is wanted.
#
# ## 4. The function vector, without any examples
#
# Now questions that were in no prompt so far, with no examples before them. The vector, what L2H1 writes on average
# after true examples, is added before each layer in turn. What share is answered with the truth? Beside it: its vectors
# after mistakes and after shuffled examples, and a vector of five other heads, drawn at random.

# %%
questions = shots(model.tokenizer, held_out, 40, kind="none", seed=2, layout=layout)
questions = questions.isel(batch=np.flatnonzero(questions.task_name.values == "truth"))
generator = np.random.default_rng(0)
others = [place for place in np.ndindex(*heads.aie.shape) if place != (2, 1)]
draws = [[others[place] for place in generator.choice(len(others), 5, replace=False)] for _ in range(10)]


def right_with(z, members):
    """Share of questions answered with the truth (layer) once the sum of what some heads write is added."""
    added = add_vectors(model, questions, function_vectors(model, z, members))
    right = (added.effect + added.base).rename("right")
    right.attrs = {"long_name": "share answered with the truth", "units": "1"}
    return stats.mean(right.assign_coords(layer=right.layer.assign_attrs(long_name="added before layer")))


curves = {f"L2H1 after {name} examples": right_with(z, [(2, 1)]) for name, z in after.items()}
random = [right_with(after["true"], members) for members in draws]
best = [float(one.right.max()) for one in random]
print(f"ten draws of five other heads, each at its best layer: mean {np.mean(best):.2f}, highest {max(best):.2f}")
curves["five other heads, best of ten draws"] = random[int(np.argmax(best))]
each = {name: tuple(one.data_vars.values()) for name, one in curves.items()}
plot.show(plot.curves(each, title="Questions without examples"))

# %% [markdown]
# Without a single example, what one head wrote elsewhere makes the model answer with the truth. (The curve after
# mistakes lies behind the one after shuffled examples, at the bottom.) Where it is added
# matters: before layer 0 it does nothing, and before layer 3 it comes late.
#
# The other heads are not nothing. Five of them, after true examples, lift the share a good deal, too: what the examples
# say stands in many places. So one random draw proves little, and the finding is that a single head does more than any
# of ten draws of five.
#
# ## 5. What this model can and cannot show
#
# * It **can** show that a mean head output carries what examples say, from prompt to prompt, and into prompts without
#   examples.
# * It **cannot** show function vectors for mappings such as antonyms or capitals. It knows none. Its tasks are a choice
#   between two answers that it has both learned in training; the questions were held out of the prompts, not of the
#   training.
# * Without the column *another task*, we would have reported function vectors for eight tasks. There were none of these
#   eight, but one for all. **Ask of every task vector whether that of another task would do.**
#
# ## Where to go from here
#
# * The same as one command, with intervals and pictures: `nnheads function-vectors`. It also tries the sum of the ten
#   best heads. Models that know English get their own tasks (capitals, opposites, plurals, ...):
#   `nnheads function-vectors EleutherAI/gpt-j-6b`; yours: `--tasks FILE.jsonl`.
# * Notebooks nearby: [iti](iti.ipynb) finds heads that know the truth by probes and moves them;
#   [steer](steer.ipynb) pushes the same model the same way without any examples.
