"""What `nnheads iti` computes: head outputs and probes, edits, their evaluation, what they write,
and baking.
"""

from __future__ import annotations

from pathlib import Path

from nnheads.recipes import _iti as shared


def opened(arguments: dict, item: str, **more):
    """Questions read, model loaded, results folder opened: all that a command begins with."""
    from nnheads.recipes import _options as options

    from nnheads.runs.folder import Run
    from nnheads.runs.provenance import model_identity

    shared.check(arguments)
    questions, dropped, source = shared.read(arguments)
    neutral, where = shared.neutral_of(arguments), options.remote_of(arguments["remote"])
    loaded = options.load(*shared.weights(arguments, where))
    identity = model_identity(loaded, arguments["model"])
    questions, prompts = shared.laid_out(loaded.tokenizer, arguments, questions, dropped, source)
    facts = {
        **arguments,
        "model": identity["model"],
        "weights": identity["commit"],
        "neutral": shared.digest(neutral),
    }
    facts |= {"data": Path(source).name, "questions": shared.digest(questions), **more}
    facts["template"] = prompts.attrs["template"]
    run = Run(
        arguments["output"],
        "iti",
        arguments["model"],
        identity["revision"],
        facts,
        item=item,
        overwrite=arguments["overwrite"],
    )
    run.jobs_of(loaded)
    return run, loaded, questions, prompts, neutral, facts


def check_scope(prompts, scope: str) -> None:
    """Refuse to score answers that an edit of this scope cannot reach."""
    from nnheads.interventions.schema import Add, Edit, Intervention
    from nnheads.truth.iti import SCOPES
    from nnheads.truth.multiple_choice import check_reach

    check_reach(Intervention(Edit("z", Add(0.0), layer=0, at=SCOPES[scope])), prompts)


def material(model, questions, prompts, neutral: list[str], facts: dict, run):
    """Head outputs at the ends of all statements, folds, and probes on every head."""
    from nnheads.truth.activations import last_outputs
    from nnheads.truth.crossval import Material, orders
    from nnheads.truth.folds import folds
    from nnheads.truth.multiple_choice import neutral_texts
    from nnheads.truth.probes import probe

    parts = folds(len(questions), facts["folds"], seed=facts["seed"], val_ratio=facts["val_ratio"])
    z = last_outputs(
        model, prompts, batch_size=facts["batch_size"], parts=run.parts, quiet=facts["quiet"]
    )
    probes = probe(z, prompts, parts, seed=facts["seed"])
    names = [question.question for question in questions]
    return Material(
        prompts, z, names, parts, probes, neutral_texts(model, neutral), orders(z, probes, parts)
    )


def how_of(facts: dict, run):
    from nnheads.truth.crossval import How

    return How(
        facts["direction"],
        facts["scope"],
        facts.get("draws", 0),
        facts["seed"],
        facts["batch_size"],
        run.parts,
        facts["quiet"],
    )


def about_of(model, title: str, facts: dict, name: str, prompts) -> dict:
    from nnheads.runs.provenance import provenance

    return provenance(
        title=title,
        model=model,
        name=name,
        prompts=prompts,
        arguments=facts,
        references=shared.REFERENCES,
        sample_dims="question text",
    )


def chosen(model, given, facts: dict, how):
    """Strength and number of heads of each fold, and the grid that decided, if there was something
    to decide.
    """
    from nnheads.truth.crossval import choose, grid

    heads = given.probes.sizes["layer"] * given.probes.sizes["head"]
    alphas = shared.numbers_in(facts["alpha"], "alpha")
    counts = shared.counts_in(facts["heads"], heads)
    if len(alphas) == len(counts) == 1:
        return [(alphas[0], counts[0])] * len(given.folds), None
    table = grid(model, given, alphas, counts, how)
    return [choose(table, fold) for fold in range(len(given.folds))], table


def fit(run, model, questions, prompts, neutral, facts: dict, name: str) -> None:
    """Probes, directions and the edit of one fold, saved."""
    from nnheads import plot
    from nnheads.interventions.files import JSON_NAME, TENSORS_NAME
    from nnheads.interventions.files import save as save_edit
    from nnheads.truth.crossval import final

    every = material(model, questions, prompts, neutral, facts, run)
    given, how = every.only(facts["fold"]), how_of(facts, run)
    [(alpha, count)], table = chosen(model, given, facts, how)
    found, change = final(given, 0, alpha, count, how)
    about = about_of(model, "inference-time intervention: fit", facts, name, prompts)
    about |= {"alpha": alpha, "heads": count, "scope": how.scope, "fold": facts["fold"]}
    probes = every.probes.drop_dims("batch", errors="ignore")
    tables = {"probes": probes, "directions": found} | (
        {} if table is None else {"grid": reduced(table, facts["seed"])}
    )
    run.save(**{key: one.assign_attrs({**one.attrs, **about}) for key, one in tables.items()})
    marked = [
        {
            "layer": layer,
            "head": head,
            "value": float(given.probes["validation"].sel(fold=0, layer=layer, head=head)),
        }
        for layer, head in given.heads(0, count)
    ]
    values = every.probes["accuracy"].mean("fold").transpose("layer", "head")
    values.attrs = {"long_name": "accuracy of the probe on held-out statements", "units": "1"}
    note = plot.note(run.load("probes"), len(questions))
    run.picture(
        "heads",
        plot.heatmap(
            values, signed=False, marked=marked, title="What heads know of truth", note=note
        ),
    )
    save_edit(change, run.folder / "intervention", model=about["model"])
    run.files += [f"intervention/{file}" for file in (JSON_NAME, TENSORS_NAME)]
    run.finish(alpha=alpha, heads=[list(head) for head in given.heads(0, count)])


def reduced(table, seed: int):
    """Means of a grid with their intervals: over validation questions, and over texts for what it
    costs.
    """
    import xarray as xr

    from nnheads import stats
    from nnheads.truth.multiple_choice import CHOICES

    each = [
        stats.mean(table[name], "question", seed=seed)
        for name in (*CHOICES, *(f"original_{n}" for n in CHOICES))
    ]
    for name in ("cross_entropy", "kl"):
        each.append(stats.mean(table[name].mean("fold", keep_attrs=True), "text", seed=seed))
    return xr.merge(each, combine_attrs="drop_conflicts")


def evaluate(run, model, questions, prompts, neutral, facts: dict, name: str, judges) -> None:
    """Cross-validation: choose on validation questions, test on the others, compare."""
    import json

    from nnheads import plot
    from nnheads.truth import crossval
    from nnheads.truth.contrasts import summary

    given, how = material(model, questions, prompts, neutral, facts, run), how_of(facts, run)
    settings, table = chosen(model, given, facts, how)
    scores = crossval.evaluate(model, given, settings, how)
    about = about_of(model, "inference-time intervention: evaluation", facts, name, prompts)
    if table is not None:
        own = reduced(table, facts["seed"]).assign_attrs(about)
        run.save(grid=own)
        draw(run, own, scores.sizes["question"])
    edits = [
        crossval.final(given, fold, alpha, count, how)[1]
        for fold, (alpha, count) in enumerate(settings)
    ]
    asked = sampled([fold.test for fold in given.folds], facts["samples"], facts["seed"])
    save_samples(run, model, questions, list(zip(asked, edits)), facts, about, judges)
    heads = json.dumps([given.heads(fold, count) for fold, (_, count) in enumerate(settings)])
    about |= {
        "chosen_heads": heads,
        "settings": scores.attrs["settings"],
        "reached": scores.attrs["reached"],
    }
    save_scores(run, scores, summary(scores, seed=facts["seed"]), about)
    values = given.probes["accuracy"].mean("fold").transpose("layer", "head")
    values.attrs = {"long_name": "accuracy of the probe on held-out statements", "units": "1"}
    note = plot.note(run.load("scores"), len(questions))
    run.picture(
        "heads", plot.heatmap(values, signed=False, title="What heads know of truth", note=note)
    )
    run.finish(settings=settings)


def transfer(
    run, model, questions, prompts, neutral, facts: dict, name: str, judges, change
) -> None:
    """An edit that was fitted elsewhere, on all of these questions."""
    from nnheads.truth import crossval
    from nnheads.truth.contrasts import summary
    from nnheads.truth.directions import fitted_on
    from nnheads.truth.multiple_choice import neutral_texts

    names = [question.question for question in questions]
    how = how_of({**facts, "direction": "mass_mean"}, run)
    scores = crossval.transfer(model, change, prompts, names, neutral_texts(model, neutral), how)
    about = about_of(model, "inference-time intervention: transfer", facts, name, prompts)
    about |= {"reached": scores.attrs["reached"], "guarded": int(fitted_on(change) is not None)}
    asked = sampled([range(len(questions))], facts["samples"], facts["seed"])
    save_samples(run, model, questions, [(asked[0], change)], facts, about, judges)
    save_scores(run, scores, summary(scores, seed=facts["seed"]), about)
    run.finish()


def save_scores(run, scores, table, about: dict) -> None:
    run.save(
        **{
            key: one.assign_attrs({**one.attrs, **about})
            for key, one in (("scores", scores), ("summary", table))
        }
    )


def draw(run, table, n: int) -> None:
    """MC1 and its cost over the strength, a curve for each number of heads."""
    from nnheads import plot

    for picture, name, said in (
        ("grid", "mc1", "MC1 on validation questions"),
        ("cost", "kl", "Cost on neutral texts"),
    ):
        each = {
            f"{count} heads": tuple(
                table[key]
                .sel(heads=count)
                .assign_attrs(long_name=said, units=table[name].attrs["units"])
                for key in (name, f"{name}_low", f"{name}_high")
            )
            for count in table["heads"].values
        }
        run.picture(
            picture,
            plot.curves(
                each, title=said, log=bool((table["alpha"] > 0).all()), note=plot.note(table, n)
            ),
        )


def sampled(parts, count: int, seed: int) -> list[list[int]]:
    """So many questions in all, as evenly from each part as can be."""
    import numpy as np

    generator, found = np.random.default_rng(seed), []
    for number, part in enumerate(parts):
        own = min(len(part), count // len(parts) + (number < count % len(parts)))
        found.append(sorted(generator.choice(np.array(part), own, replace=False).tolist()))
    return found


def save_samples(run, model, questions, asked: list, facts: dict, about: dict, judges) -> None:
    """What is written with and without each edit, judged if there is a judge: (sample)."""
    from nnheads.truth.samples import answers

    pairs = [(number, change) for numbers, change in asked for number in numbers]
    if not pairs:
        return
    table = answers(
        model,
        [(questions[number], change) for number, change in pairs],
        template=facts["template"],
        new_tokens=facts["new_tokens"],
        judges=judges,
        batch_size=facts["batch_size"],
    )
    run.save(samples=table.assign_attrs({**table.attrs, **about}))


def scopes(model, change, questions, prompts, neutral: list[str], arguments: dict) -> dict:
    """The same edit everywhere, as a bias has it, and of tokens as they are written: name -> MC1 on
    questions on which it was not fitted (or why it cannot be scored), KL on neutral texts, and what
    answers begin with."""
    import numpy as np

    from nnheads.errors import BadInput
    from nnheads.interventions.schema import Intervention
    from nnheads.truth.directions import fitted_on, question_ids
    from nnheads.truth.iti import rescoped
    from nnheads.truth.multiple_choice import coherence, neutral_texts, score
    from nnheads.truth.samples import answers

    own = fitted_on(change)
    ids = question_ids([question.question for question in questions])
    free = [number for number, one in enumerate(ids) if own is None or one not in own]
    rows = prompts.isel(batch=np.isin(prompts["question"].values, free))
    texts = neutral_texts(model, neutral)
    running = {"batch_size": arguments["batch_size"], "quiet": arguments["quiet"]}
    found = {}
    places = {name: rescoped(change, name) for name in ("all", "answering", "decode")}
    for name, one in {"none": Intervention(), **places}.items():
        mc1: float | str
        try:
            mc1 = float(score(model, one, rows, **running)["mc1"].mean())
        except BadInput as error:
            mc1 = str(error)
        new = answers(
            model,
            [(questions[number], one) for number in free],
            template=prompts.attrs["template"],
            new_tokens=4,
            batch_size=arguments["batch_size"],
        )["begins"].sel(condition="edit")
        kl = float(coherence(model, one, texts, **running)["kl"].mean())
        found[name] = {
            "mc1": mc1,
            "kl": kl,
            "true": float((new == 1).mean()),
            "false": float((new == -1).mean()),
        }
    return found
