"""The role table of the indirect-object study: a run of its own, since it draws other sentences."""

from __future__ import annotations

from nnheads.recipes._pairs import REFERENCES
from nnheads.recipes._study import Study
from nnheads.recipes._terminal import say, say_files

OTHERS = ("noising", "strict", "gap", "layers")  # options that change no role


HEADING = (
    "roles, by another experiment: three fresh names are put into the sentences. total: how the"
    " logit difference changes, as a share, when a head says what it says there (below zero: it"
    " helps); direct: straight to the logits; queries: through the heads that write; alone: once"
    " these are gone"
)


def report_roles(study: Study, listed: list[tuple[int, int]]) -> None:
    """Draw sentences with three fresh names, gather each head's evidence, save and print it.

    listed: heads that were named before; each gets a line.
    """
    from nnheads.patching.role_lines import lines, lines_of_others

    as_published = () if study.spread else ("spread",)
    run = study.open(item="roles", without=(*OTHERS, *as_published), corruption="abc", site="roles")
    if not run.complete:
        compute(study, run)
    table = run.load("roles")
    said = lines(table)
    say(HEADING)
    for line in [*said, *lines_of_others(table, listed, said)]:
        say(f"  {line}")
    say_files(run, "roles.nc")


def compute(study: Study, run) -> None:
    """Measure the roles of all heads and save roles.nc (layer, head)."""
    from nnheads.patching.roles import role_table
    from nnheads.prompts.ioi import ioi

    tokenizer, options = study.model.tokenizer, {"seed": study.seed, "spread": study.spread}
    prompts = ioi(tokenizer, study.limit, corruption="abc", **options)
    table = role_table(
        study.model,
        prompts,
        seed=study.seed,
        batch_size=study.batch_size,
        parts=run.parts,
        quiet=study.quiet,
    )
    about = run.about(
        title="indirect object: the role of every head",
        prompts=prompts,
        references=REFERENCES,
        sample_dims="",
    )
    run.save(roles=table.assign_attrs({**table.attrs, **about}))
    run.finish()
