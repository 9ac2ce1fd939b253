"""Which heads carry a task that examples show, and does their sum make the model do it without any?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _function_vectors
from nnheads.recipes import _options as options

from nnheads.errors import BadInput

REFERENCES = "Todd et al. 2024, arXiv 2310.15213"
DRAWS = 3  # random sets of heads that the function vector is compared with


def main(
    model: options.Model = "reference",
    tasks: Annotated[
        Path | None, typer.Option(help="Your own: JSON lines with task, input, output.")
    ] = None,
    question: Annotated[
        str | None, typer.Option(help=r"How a question is written: 'Q: {}\nA:' unless given.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option(help="How its answer is written: ' {}' unless given.")
    ] = None,
    gap: Annotated[
        str | None, typer.Option(help=r"What stands between examples: '\n\n' unless given.")
    ] = None,
    shots: Annotated[int, typer.Option(help="Examples in each prompt.")] = 10,
    averaged: Annotated[
        int, typer.Option(help="Prompts of each task that head outputs are averaged over.")
    ] = 50,
    top: Annotated[int, typer.Option(help="How many heads make up the function vector.")] = 10,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Trials of each task.")] = 25,
    batch_size: options.BatchSize = 50,
    seed: options.Seed = 0,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    device_map: options.DeviceMap = None,
    remote: options.Remote = None,
    submit: options.Submit = False,
    output: options.Output = options.RESULTS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Which heads carry a task that examples show?

    Head outputs, averaged over prompts with examples, are put into prompts with shuffled examples,
    one head at a time. The best heads' sum, the function vector, is added to prompts without
    examples, of words that were never shown. Writes scores.nc (per case), heads.nc (layer, head),
    vectors.nc, zero_shot.nc, heads.png and zero_shot.png.
    """
    arguments = dict(locals())
    from nnheads.models.geometry import geometry
    from nnheads.prompts.shots import Layout, audited, own_tasks, read_tasks, written
    from nnheads.runs.folder import Run
    from nnheads.runs.provenance import model_identity, prompts_hash

    options.positive(limit=limit, batch_size=batch_size, top=top, shots=shots, averaged=averaged)
    if averaged < 2:
        raise BadInput(
            f"--averaged {averaged} is too few to tell whether the model does a task; use at"
            " least 2"
        )
    given = None if tasks is None else read_tasks(tasks)
    where = options.remote_of(remote)
    loaded = options.load(model, revision, dtype, device_map, where, quantization)
    sizes = geometry(loaded)
    if top >= sizes.layers * sizes.heads:
        raise BadInput(
            f"--top {top} leaves no head to compare with; this model has"
            f" {sizes.layers * sizes.heads}"
        )
    wanted, layout = own_tasks(loaded.tokenizer) if given is None else (given, Layout())
    layout = written(layout, question=question, answer=answer, gap=gap)
    kept, dropped = audited(loaded.tokenizer, wanted, layout, shots)
    sets = prompt_sets(loaded.tokenizer, kept, layout, arguments)
    identity = model_identity(loaded, model)
    facts = {**arguments, "model": identity["model"], "weights": identity["commit"]}
    facts |= {f"{name}_sha256": prompts_hash(one) for name, one in sets.items()}
    run = Run(output, "function-vectors", model, identity["revision"], facts, overwrite=overwrite)
    run.jobs_of(loaded)
    if not run.complete:
        compute(run, loaded, sets, dropped, facts, model)
    _function_vectors.report(run)


def prompt_sets(tokenizer, tasks: list, layout, arguments: dict) -> dict:
    """Prompts to average over, with their examples and with shuffled ones; others to try heads in;
    and questions without examples about pairs that none of these holds."""
    from nnheads.prompts.shots import shots, split

    shown, held_out = split(tasks, arguments["seed"])
    seed, limit = arguments["seed"], arguments["limit"]
    own = {"count": arguments["shots"], "layout": layout}
    return {
        "shown": shots(tokenizer, shown, arguments["averaged"], seed=seed, **own),
        "shuffled": shots(
            tokenizer, shown, arguments["averaged"], seed=seed, kind="shuffled", **own
        ),
        "trials": shots(tokenizer, shown, limit, seed=seed + 1, kind="shuffled", **own),
        "questions": shots(tokenizer, held_out, limit, seed=seed + 2, kind="none", layout=layout),
    }


def compute(run, model, sets: dict, dropped: dict, facts: dict, name: str) -> None:
    """Average, find the tasks that the model does, try every head, add the vectors; finished
    batches are kept.
    """
    import json

    from nnheads import stats
    from nnheads.patching.function_vectors import average_effects, indirect_effects
    from nnheads.runs import batches
    from nnheads.runs.provenance import provenance

    def trying(z):
        return lambda part: indirect_effects(model, part, z)

    keep = {
        "parts": run.parts,
        "size": facts["batch_size"],
        "quiet": facts["quiet"],
        "model": model,
    }
    outputs, answered = averages(model, sets, keep)
    done = tasks_done(answered, name, facts["shots"])
    trials, questions = (of_tasks(sets[which], done) for which in ("trials", "questions"))
    effects = {
        which: batches.run(
            trying(z), trials, name=f"effects-{which}", title=f"heads, {which}", **keep
        )
        for which, z in sources(outputs, done).items()
    }
    scores = scores_of(effects)
    heads = average_effects(
        {which: one["effect"] for which, one in effects.items()}, seed=facts["seed"]
    )
    heads = heads.merge(excess_over_other(scores, facts["seed"]), combine_attrs="override")
    best = [(one["layer"], one["head"]) for one in stats.top_heads(heads, "aie", facts["top"])]
    vector, answers = add(model, questions, outputs, heads, best, facts["seed"], keep)
    about = provenance(
        title="heads that carry a task shown by examples",
        model=model,
        name=name,
        prompts=trials,
        arguments=facts,
        references=REFERENCES,
    )
    names = {
        int(task): str(text)
        for task, text in zip(answered["task"].values, answered["task_name"].values)
    }
    about |= {"dropped": json.dumps(dropped), "tasks": json.dumps([names[task] for task in done])}
    about["not_done"] = json.dumps([text for task, text in names.items() if task not in done])
    zero_shot = by_layer(answers, facts["seed"])
    everything = {
        "scores": scores,
        "heads": heads,
        "vectors": answered.merge(vector),
        "zero_shot": zero_shot,
    }
    for dataset in everything.values():
        dataset.attrs.update(about)
    run.save(**everything)
    draw(run, heads, zero_shot, trials.sizes["batch"])
    run.finish(tasks=len(done))


def averages(model, sets: dict, keep: dict):
    """Mean head outputs of each task, from prompts with examples and with shuffled ones, [task,
    layer, head, dim]; and how many of both the model answers right (task)."""
    import numpy as np

    from nnheads.patching.function_vectors import averaged, end_outputs
    from nnheads.runs import batches

    tasks = np.unique(sets["shown"]["task"].values)
    return averaged(
        {
            kind: [
                batches.run(
                    lambda part: end_outputs(model, part),
                    of_tasks(sets[kind], [task]),
                    name=f"outputs-{kind}",
                    title=f"task {task + 1} of {len(tasks)}, {kind}",
                    **keep,
                )
                for task in tasks
            ]
            for kind in ("shown", "shuffled")
        }
    )


def tasks_done(answered, name: str, shots: int) -> list[int]:
    """The tasks that the model does with examples and not with shuffled ones, beyond the interval."""
    from nnheads.errors import RunError

    done = [int(task) for task in answered["task"].values[answered["gain_low"].values > 0]]
    if not done:
        shown, shuffled = (
            float(answered[f"accuracy_{kind}"].mean()) for kind in ("shown", "shuffled")
        )
        raise RunError(
            f"{name} does none of the tasks ({', '.join(answered['task_name'].values)}): with"
            f" {shots} examples {shown:.0%} are answered right, with shuffled ones {shuffled:.0%};"
            " there is nothing for heads to carry"
        )
    return done


def of_tasks(prompts, tasks: list[int]):
    import numpy as np

    return prompts.isel(batch=np.flatnonzero(np.isin(prompts["task"].values, tasks)))


def sources(outputs: dict, done: list[int]) -> dict:
    """Mean outputs to try: the task's own, those of shuffled examples, and those of another task."""
    if len(done) < 2:
        return outputs
    other = outputs["shown"].clone()
    other[done] = outputs["shown"][done[1:] + done[:1]]
    return {**outputs, "other": other}


def scores_of(effects: dict):
    """Per case: the effects of all sources as one dataset."""
    base = next(iter(effects.values()))["base"]
    named = {
        "cie" if which == "shown" else f"cie_{which}": one["effect"]
        for which, one in effects.items()
    }
    return base.to_dataset(name="probability").assign(named)


def excess_over_other(scores, seed: int):
    """How much more a task's own mean does than that of another task, with an interval over tasks:
    (layer, head). Empty where there is one task alone."""
    import xarray as xr

    from nnheads.patching.function_vectors import over_tasks

    if "cie_other" not in scores:
        return xr.Dataset()
    excess = (scores["cie"] - scores["cie_other"]).rename("excess_other")
    text = "average indirect effect, shown minus another task's"
    return over_tasks(excess.assign_attrs({**scores["cie"].attrs, "long_name": text}), seed=seed)


def add(model, questions, outputs: dict, heads, best: list, seed: int, keep: dict):
    """Function vectors, and how questions are answered once they are added at each layer; for
    comparison with vectors of shuffled examples, and of random heads that are not among the
    best."""
    import numpy as np

    from nnheads.patching.function_vectors import add_vectors, function_vectors
    from nnheads.runs import batches

    def adding(vector):
        return lambda part: add_vectors(model, part, vector)

    rest = [place for place in np.ndindex(*heads["aie"].shape) if place not in best]
    generator = np.random.default_rng(seed)
    random = [
        [rest[i] for i in generator.choice(len(rest), min(len(best), len(rest)), replace=False)]
        for _ in range(DRAWS)
    ]
    vectors = {kind: function_vectors(model, outputs[kind], best) for kind in ("shown", "shuffled")}
    vectors |= {
        f"random-{number}": function_vectors(model, outputs["shown"], own)
        for number, own in enumerate(random)
    }
    found = {
        kind: batches.run(
            adding(vector), questions, name=f"added-{kind}", title=f"vectors, {kind}", **keep
        )
        for kind, vector in vectors.items()
    }
    after = {kind: one["effect"] + one["base"] for kind, one in found.items()}
    drawn = sum(after.pop(f"random-{number}") for number in range(DRAWS)) / DRAWS
    about = {
        "long_name": "function vector: sum of W_O z over the best heads",
        "units": "1",
        "source": REFERENCES,
    }
    vector = (("task", "width"), vectors["shown"].numpy(), about)
    return {"vector": vector}, {"before": found["shown"]["base"], **after, "random": drawn}


def by_layer(answers: dict, seed: int):
    """Share of questions answered right before and after each sort of vector is added, with
    intervals over tasks; and the same question by question."""
    import xarray as xr

    from nnheads.patching.function_vectors import over_tasks

    texts = {
        "before": "as they are",
        "shown": "with the function vector",
        "shuffled": "with that of shuffled examples",
        "random": f"with that of random heads, mean of {DRAWS} draws",
    }
    parts = []
    for kind, values in answers.items():
        about = {
            "long_name": f"share of questions answered right {texts[kind]}",
            "units": "1",
            "source": REFERENCES,
        }
        named = values.astype("float32").rename(f"accuracy_{kind}").assign_attrs(about)
        each = named.rename(f"right_{kind}").rename(batch="question")
        parts += [over_tasks(named, seed=seed), each.to_dataset()]
    return xr.merge(parts, combine_attrs="drop_conflicts", compat="override")


def draw(run, heads, zero_shot, cases: int) -> None:
    import xarray as xr

    from nnheads import plot, stats

    title = "Function-vector heads: average indirect effect"
    marked = stats.top_heads(heads, "aie", 5)
    run.picture(
        "heads",
        plot.heatmap(heads["aie"], title=title, marked=marked, note=plot.note(heads, cases)),
    )
    texts = {
        "shown": "function vector",
        "shuffled": "of shuffled examples",
        "random": "of random heads",
        "before": "nothing added",
    }
    each = {}
    like = zero_shot["accuracy_shown"].assign_attrs(long_name="share of questions answered right")
    for kind, text in texts.items():
        ends = [zero_shot[f"accuracy_{kind}{end}"] for end in ("", "_low", "_high")]
        each[text] = tuple(xr.zeros_like(like) + values for values in ends)
        each[text][0].attrs.update(like.attrs)
    title = "Questions without examples, vector added before a layer"
    figure = plot.curves(each, title=title, note=plot.note(zero_shot, zero_shot.sizes["question"]))
    run.picture("zero_shot", figure)
