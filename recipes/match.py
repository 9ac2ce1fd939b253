"""Pattern match on a text of your own, to compare with published numbers."""

from __future__ import annotations

import hashlib
from typing import Annotated

import typer
from nnheads.recipes._checks import check_text
from nnheads.recipes._study import Study, study
from nnheads.recipes._terminal import say, say_ranked, shown

EXAMPLE = "Mary gave the book to John and Mary gave the letter to John"

Text = Annotated[str, typer.Argument(help="What the model reads.")]
Pattern = Annotated[str, typer.Option(help="previous_token, duplicate_token or induction.")]
Measure = Annotated[str, typer.Option(help="mul (share of attention on the pattern) or abs.")]
ExcludeBos = Annotated[bool, typer.Option("--exclude-bos", help="Leave the first token out.")]
ExcludeCurrent = Annotated[bool, typer.Option("--exclude-current", help="Leave the diagonal out.")]


@study(top=8, without=("seed",), incidental=("top",), quick={})
def main(
    study: Study,
    text: Text = EXAMPLE,
    pattern: Pattern = "induction",
    measure: Measure = "mul",
    exclude_bos: ExcludeBos = False,
    exclude_current: ExcludeCurrent = False,
) -> None:
    """Pattern match on a text of your own, as TransformerLens computes it.

    The scores depend on the text and its length; `nnheads detect` asks the better question. Writes
    heads.nc and heads.png.
    """
    from nnheads.runs.folder import item_of
    from nnheads.spans.pattern_match import check_names, match_text

    check_text(study, text)
    check_names(pattern, measure)
    options = {"exclude_bos": exclude_bos, "exclude_current": exclude_current}
    match = match_text(study.model, text, pattern, kind=measure, **options)
    run = study.open(item=item_of(text, pattern, measure, str(options)), model=study.name)
    about = run.about(
        title=f"{pattern} on one text",
        prompts=hash_of(study.model.tokenizer, text),
        references="TransformerLens head_detector",
        sample_dims="",
    )
    scores = match.to_dataset(name="match").assign_attrs(about)
    files = [*run.save(heads=scores), draw(study, run, scores)]
    run.finish()
    report(scores["match"], study.top, files)


def draw(study: Study, run, scores):
    """Draw the match of every head, and return where the picture is."""
    from nnheads import plot

    title, note = f"{study.pattern}, {study.measure}", plot.note(scores, 1)
    signed = study.measure == "abs"
    figure = plot.heatmap(scores["match"], title=title, signed=signed, note=note)
    return run.picture("heads", figure)


def hash_of(tokenizer, text: str) -> str:
    """Return what stands for the prompts of a single text."""
    return hashlib.sha256(str(tokenizer(text)["input_ids"]).encode()).hexdigest()


def report(match, top: int, files: list) -> None:
    """Print the heads that match best, and where the files are."""
    ranked = match.to_series().sort_values(ascending=False, kind="stable")
    say_ranked(str(match.attrs["long_name"]), ranked.head(top))
    for path in files:
        say(shown(path))
