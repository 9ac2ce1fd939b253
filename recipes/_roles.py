"""The role table of the indirect-object study: a run of its own beside it, because it asks other
sentences.
"""

from __future__ import annotations

from pathlib import Path

from nnheads.recipes import _options as options

REFERENCES = "Wang et al. 2022, arXiv 2211.00593"


def report_roles(
    place: tuple[Path, str, str, str],
    model,
    name: str,
    arguments: dict,
    *,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Draw sentences with three fresh names, gather each head's evidence, save roles.nc and print
    it.

    place: output folder, recipe, model name and revision, as `Run` takes them.
    """
    from nnheads.patching.roles import lines, role_table
    from nnheads.prompts.ioi import ioi
    from nnheads.runs.folder import Run
    from nnheads.runs.provenance import provenance

    facts = {**arguments, "corruption": "abc", "site": "roles"}
    for unused in ("noising", "strict", "gap", "layers"):
        facts.pop(unused)
    output, recipe, model_name, revision = place
    run = Run(output, recipe, model_name, revision, facts, item="roles", overwrite=overwrite)
    run.jobs_of(model)
    if not run.complete:
        how = {"seed": facts["seed"], "spread": facts.get("spread", 0)}
        prompts = ioi(model.tokenizer, facts["limit"], corruption="abc", **how)
        table = role_table(
            model,
            prompts,
            seed=facts["seed"],
            batch_size=facts["batch_size"],
            parts=run.parts,
            quiet=quiet,
        )
        title = "indirect object: the role of every head"
        about = provenance(
            title=title,
            model=model,
            name=name,
            prompts=prompts,
            arguments=facts,
            references=REFERENCES,
            sample_dims="",
        )
        run.save(roles=table.assign_attrs({**table.attrs, **about}))
        run.finish()
    options.say("roles")
    for line in lines(run.load("roles")):
        options.say(f"  {line}")
    options.say(options.shown(run.folder / "roles.nc"))
