"""The commands of `nnheads iti`: which run or edit is asked for, and what is done with it."""

from __future__ import annotations

import shutil
from pathlib import Path

from nnheads.recipes import _iti as shared
from nnheads.recipes import _iti_runs as runs
from nnheads.recipes import _options as options

PARITY_ROWS = 16  # statements on which a baked checkpoint is compared with the live edit


def fitted(arguments: dict):
    """The run of `iti fit`, computed if it is not there."""
    from nnheads.errors import BadInput

    if arguments["fold"] >= arguments["folds"]:
        raise BadInput(
            f"--fold {arguments['fold']} does not exist; {arguments['folds']} folds count from 0"
        )
    (
        shared.numbers_in(arguments["alpha"], "alpha"),
        shared.numbers_in(arguments["heads"], "heads", whole=True),
    )
    run, model, questions, prompts, neutral, facts = runs.opened(arguments, "fit")
    if not run.complete:
        if "," in arguments["alpha"] + arguments["heads"]:
            runs.check_scope(prompts, facts["scope"])
        runs.fit(run, model, questions, prompts, neutral, facts, arguments["model"])
    return run


def evaluated(arguments: dict):
    """The run of `iti evaluate`, computed if it is not there; None where only its cost was asked
    for.
    """
    from nnheads.errors import BadInput
    from nnheads.interventions.files import load
    from nnheads.truth.judges import open_judge

    plan, saved = arguments.pop("plan"), arguments["intervention"]
    options.positive(new_tokens=arguments["new_tokens"])
    (
        shared.numbers_in(arguments["alpha"], "alpha"),
        shared.numbers_in(arguments["heads"], "heads", whole=True),
    )
    if saved is not None:
        usual = {
            "alpha": shared.ALPHAS,
            "heads": shared.HEADS,
            "direction": "mass_mean",
            "scope": "all",
        }
        for name, value in usual.items():
            if arguments[name] != value:
                raise BadInput(
                    f"--{name} is for an edit that is fitted here; a saved intervention says it"
                    " itself"
                )
        if plan:
            raise BadInput(
                "--plan says what fitting and testing cost; leave it out with a saved intervention"
            )
    change = None if saved is None else load(saved)
    specs = {"true": arguments["judge"], "informative": arguments["info_judge"]}
    judges = {about: open_judge(spec) for about, spec in specs.items() if spec is not None}
    more = {} if saved is None else {"intervention": identity_of(change)}
    item = "evaluate" if saved is None else f"transfer-{identity_of(change)}"
    if plan:
        say_cost(arguments)
        return None
    run, model, questions, prompts, neutral, facts = runs.opened(arguments, item, **more)
    if not run.complete:
        if change is None:
            runs.check_scope(prompts, facts["scope"])
        given = (run, model, questions, prompts, neutral, facts, arguments["model"], judges)
        runs.evaluate(*given) if change is None else runs.transfer(*given, change)
    return run


def say_cost(arguments: dict) -> None:
    """What an evaluation would cost: forwards, tokens, bytes, and seconds where it would run here."""
    import torch

    from nnheads.models.geometry import geometry
    from nnheads.patching.cost import block_parameters, rate
    from nnheads.truth.cost import cost
    from nnheads.truth.multiple_choice import LONGEST

    shared.check(arguments)
    questions, dropped, source = shared.read(arguments)
    where = options.remote_of(arguments["remote"])
    model = options.load(*shared.weights(arguments, where))
    questions, prompts = shared.laid_out(model.tokenizer, arguments, questions, dropped, source)
    sizes = geometry(model)
    cells = len(shared.numbers_in(arguments["alpha"], "alpha")) * len(
        shared.counts_in(arguments["heads"], sizes.layers * sizes.heads)
    )
    texts = [model.tokenizer(text)["input_ids"][:LONGEST] for text in shared.neutral_of(arguments)]
    found = cost(
        prompts,
        sizes,
        folds=arguments["folds"],
        val_ratio=arguments["val_ratio"],
        seed=arguments["seed"],
        cells=0 if cells == 1 else cells,
        draws=arguments["draws"],
        neutral=[len(ids) for ids in texts],
    )
    options.say(f"{found.rows:,} statements and texts to read, {found.tokens:,} tokens")
    options.say(
        f"{found.output_bytes / 1e6:,.1f} MB of head outputs, {found.score_bytes / 1e3:,.1f} kB of"
        " scores"
    )
    flops = (
        2
        * found.tokens
        * (block_parameters(model) * sizes.layers + sizes.d_model * sizes.vocabulary)
    )
    if not where or where == "local":
        device = next(model._module.parameters()).device
        seconds = flops / rate(torch.device(device), 512, sizes.d_model)
        options.say(
            f"{flops:.1e} operations, at least {seconds:,.1f} s here; answers in words come on top"
        )
    else:
        options.say(f"{flops:.1e} operations; answers in words come on top")


def identity_of(change) -> str:
    """A short name for what an edit says."""
    return shared.digest(
        change.edits, [(name, tensor.tolist()) for name, tensor in sorted(change.tensors.items())]
    )[:8]


def edit_of(arguments: dict, fit: dict) -> tuple:
    """The edit that was named, or the one that `iti fit` saved here, which for the reference is
    fitted first if it is not there; and where it is. fit: the options of `iti fit` as they are
    without any."""
    from nnheads.errors import BadInput
    from nnheads.interventions.files import JSON_NAME, load
    from nnheads.models.shipped import REFERENCE

    if arguments["intervention"] is not None:
        return load(arguments["intervention"]), arguments["intervention"]
    folder = folder_of(arguments, "fit")
    if not (folder / "intervention" / JSON_NAME).is_file():
        if arguments["model"] != REFERENCE:
            raise BadInput(
                f"no edit of {arguments['model']} in {options.shown(folder)}; run nnheads iti fit"
                " first, or name one with --intervention"
            )
        fitted(fit | {"output": arguments["output"], "quiet": True})
    return load(folder / "intervention"), options.shown(folder / "intervention")


def folder_of(arguments: dict, item: str) -> Path:
    """Where this model's results of a kind are, without loading it."""
    from nnheads.models.shipped import REFERENCE
    from nnheads.runs.provenance import model_folder

    name, revision = arguments["model"], arguments["revision"]
    local = "local" if Path(name).expanduser().is_dir() else "main"
    stands_for = "shipped" if name == REFERENCE else revision or local
    return (
        Path(arguments["output"])
        / "iti"
        / model_folder(name)
        / stands_for.replace("/", "--")
        / item
    )


def generated(arguments: dict, fit: dict) -> None:
    """Write with and without the edit, and print both."""
    from nnheads.recipes._steer import lines_of

    from nnheads.errors import BadInput
    from nnheads.interventions.generate import generate, read_texts, sampling

    options.positive(new_tokens=arguments["new_tokens"])
    if arguments["prompt"] is not None and arguments["prompts"] is not None:
        raise BadInput(
            "--prompt and --prompts exclude each other; what is continued comes from one of them"
        )
    asked = {
        name: arguments[name] for name in ("temperature", "top_p") if arguments[name] is not None
    }
    sample = {**asked, "seed": arguments["seed"]} if asked else None
    sampling(sample)
    given = [arguments["prompt"]] if arguments["prompt"] is not None else None
    given = lines_of(arguments["prompts"]) if arguments["prompts"] is not None else given
    change, place = edit_of(arguments, fit)
    given = unseen_prompts(arguments, change) if given is None else given
    where = options.remote_of(arguments["remote"])
    model = options.load(*shared.weights(arguments, where))
    new = generate(
        model,
        change,
        read_texts(model.tokenizer, given),
        new_tokens=arguments["new_tokens"],
        sample=sample,
    )
    options.say(f"edit: {place}")
    for text, before, after in zip(given, new.original_texts or (), new.texts):
        options.say(f"{text!r}")
        options.say(f"  without  {before!r}")
        options.say(f"  with     {after!r}")


def unseen_prompts(arguments: dict, change) -> list[str]:
    """Questions of the reference model on which the edit was not fitted."""
    from nnheads.errors import BadInput
    from nnheads.models.shipped import REFERENCE
    from nnheads.prompts.truth import read_questions
    from nnheads.truth.directions import fitted_on, question_ids

    if arguments["model"] != REFERENCE:
        raise BadInput("--prompt or --prompts is needed: what the model continues")
    texts, own = [one.question for one in read_questions(REFERENCE)[0]], fitted_on(change)
    free = [
        text for text, number in zip(texts, question_ids(texts)) if own is None or number not in own
    ]
    return free[:: max(1, len(free) // shared.ASKED)][: shared.ASKED]


def baked(arguments: dict, fit: dict) -> None:
    """Bake, compare with the live edit, and with one of tokens as they are written."""
    from nnheads.recipes import _iti_report

    from nnheads.truth.bake import bake, push

    change, place = edit_of(arguments, fit)
    to, item = arguments["to"], f"bake-{identity_of(change)}"
    elsewhere = ("to", "push", "private")  # where it goes changes no number
    plain = {name: value for name, value in arguments.items() if name not in elsewhere}
    plain |= {"dtype": "float32", "remote": None, "intervention": identity_of(change)}
    run, model, questions, prompts, neutral, _ = runs.opened(plain, item)
    folder = to or run.folder / "checkpoint"
    if not run.complete or not folder.is_dir():
        if to is None:
            shutil.rmtree(folder, ignore_errors=True)  # of a run that did not come to its end
        done = bake(
            model,
            change,
            folder,
            prompts.isel(batch=slice(0, PARITY_ROWS)),
            name=arguments["model"],
        )
        found = runs.scopes(model, change, questions, prompts, neutral, arguments)
        run.finish(difference=done.difference, moved=done.moved, family=done.family, scopes=found)
    options.say(f"edit: {place}")
    _iti_report.baked(run, folder)
    if arguments["push"] is not None:
        options.say(push(folder, arguments["push"], private=arguments["private"]))


def exported(arguments: dict, fit: dict) -> None:
    """Write the edit alone, and say how large it is."""
    from nnheads.interventions.files import push, save
    from nnheads.truth.directions import fitted_on
    from nnheads.truth.iti import heads_of

    change, place = edit_of(arguments, fit)
    folder = save(
        change, arguments["to"] or folder_of(arguments, "export"), model=arguments["model"]
    )
    size, own = sum(path.stat().st_size for path in folder.iterdir()), fitted_on(change)
    options.say(f"edit: {place}")
    known = "it does not say on which questions" if own is None else f"{len(own)} questions"
    options.say(f"{len(heads_of(change))} heads, fitted on {known}, {size / 1000:.1f} kB")
    options.say(options.shown(folder))
    if arguments["push"] is not None:
        options.say(push(folder, arguments["push"], private=arguments["private"]))
