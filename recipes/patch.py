"""Patch your own pair of prompts: residual stream, attention, MLP, heads, and their inputs."""

from __future__ import annotations

from typing import Annotated

import typer
from nnheads.recipes._pairs import Noising
from nnheads.recipes._study import Study, study
from nnheads.recipes._terminal import say, say_logit_difference, say_ranked, shown

from nnheads.errors import BadInput

CLEAN = "When Mary and John went to the market, John gave the book to"
CORRUPTED = "When Mary and John went to the market, Mary gave the book to"
REFERENCES = "Heimersheim & Nanda 2024, arXiv 2404.15255"
MARKED = 8  # heads that a picture names
Clean = Annotated[str, typer.Option(help="The prompt that is answered by --answer.")]
Corrupted = Annotated[
    str, typer.Option(help="The same prompt with what decides the answer changed.")
]
Answer = Annotated[str, typer.Option(help="Next word after the clean prompt: one token.")]
Wrong = Annotated[str, typer.Option(help="The word that it is measured against.")]

Blank = Annotated[
    bool | None,
    typer.Option(
        "--blank/--no-blank",
        help="A blank before words given without one; default: as the text before them asks.",
    ),
]


@study(top=8, without=("seed",), incidental=("top",), quick={})
def main(
    study: Study,
    clean: Clean = CLEAN,
    corrupted: Corrupted = CORRUPTED,
    answer: Answer = "Mary",
    wrong: Wrong = "John",
    noising: Noising = False,
    blank: Blank = None,
) -> None:
    """Your own pair: patch residual stream, attention, MLP, heads, their queries, keys and values.

    The two prompts must have the same tokens but for those that differ in meaning. Writes scores.nc
    with one effect per site, and a picture of each.
    """
    from nnheads.runs.folder import item_of

    prompts = pair_of(study)
    how = (str(noising), *(() if blank is None else (f"blank {blank}",)))
    run = study.open(item=item_of(clean, corrupted, answer, wrong, *how))
    if not run.complete:
        compute(study, run, prompts)
    report(run, study.top)


def pair_of(study: Study):
    """Return the pair as prompts (batch of one, position)."""
    from nnheads.prompts.pair import Pair
    from nnheads.prompts.pairs import one_pair

    for name in ("clean", "corrupted", "answer", "wrong"):
        if not study.arguments[name].strip():
            raise BadInput(f"--{name} is empty")
    pair = Pair(study.clean, study.corrupted, study.answer, study.wrong, blank=study.blank)
    return one_pair(study.model.tokenizer, pair)


def compute(study: Study, run, prompts) -> None:
    """Patch each site, keep it, draw and save; the effect of every site is one variable."""
    from nnheads.runs.progress import progress
    from nnheads.trace.sites import SWEPT

    scores = {}
    with progress("sites", len(SWEPT), study.quiet) as advance:
        for name in SWEPT:
            scores[name] = patched(study, run, prompts, name)
            advance(1)
    result = joined(scores)
    tokens = token_labels(study.model.tokenizer, prompts)
    about = run.about(
        title="patching of one pair", prompts=prompts, references=REFERENCES, sample_dims=""
    )
    result = result.assign_coords(token_text=("position", tokens))
    result.attrs.update(about, direction=scores["z"].attrs["direction"])
    result.attrs["answers"] = answers_of(study, prompts)
    run.save(scores=result)
    draw(run, result)
    run.finish()


def patched(study: Study, run, prompts, name: str):
    """Return the effect of one site (batch, layer, [head,] [position]), kept among the parts."""
    from nnheads.patching.patch import patch
    from nnheads.runs import batches
    from nnheads.trace.sites import UNITS

    options = {"by_position": name not in UNITS, "noising": study.noising, "gap": 0.0}
    return batches.run(
        lambda part: patch(study.model, part, site=name, **options),
        prompts,
        parts=run.parts,
        name=name,
        quiet=True,
        model=study.model,
    )


def joined(scores: dict):
    """Return the effects of all sites as one dataset, with the logit difference on either text."""
    import xarray as xr

    pair = {name: one.isel(batch=0) for name, one in scores.items()}
    result = xr.Dataset(
        {
            name: one["effect"].assign_attrs(long_name=f"effect of {one.attrs['site']}")
            for name, one in pair.items()
        }
    )
    for name in ("clean_logit_difference", "corrupted_logit_difference"):
        result[name] = pair["pattern"][name]
    return result


def token_labels(tokenizer, prompts) -> list[str]:
    """Return the tokens of a pair, both where they differ."""
    from nnheads.prompts.pairs import token_texts

    texts = [token_texts(tokenizer, prompts[which].values[0]) for which in ("token", "corrupted")]
    return [a if a == b else f"{a} / {b}" for a, b in zip(*texts)]


def answers_of(study: Study, prompts) -> str:
    """Return the tokens of both answers, and how to have others where there are any."""
    from nnheads.prompts.pairs import token_texts

    ids = [int(prompts[name].values[0]) for name in ("answer", "wrong")]
    answer, wrong = token_texts(study.model.tokenizer, ids)
    other = "without one" if answer[:1].isspace() else "with a blank before it"
    option = "--no-blank" if answer[:1].isspace() else "--blank"
    hint = f"; {option} takes it {other}" if prompts.attrs["word_form"] else ""
    return f"answer {answer!r}, wrong {wrong!r}{hint}"


def draw(run, result) -> None:
    """Draw the effect of each site."""
    from nnheads import plot
    from nnheads.trace.sites import SITES, SWEPT, UNITS

    note, direction = plot.note(result, 1), result.attrs["direction"]
    position = result["position"].assign_attrs(labels=result["token_text"].values)
    labelled = result.assign_coords(position=position)
    for name in SWEPT:
        marked = strongest_heads(result[name]) if name in UNITS else None
        places = ", all positions" if name in UNITS else ""
        title = f"{SITES[name]['meaning']}{places}, {direction}"
        figure = plot.heatmap(
            labelled[name],
            title=title,
            marked=marked,
            framed=f"the {MARKED} largest either way",
            note=note,
        )
        run.picture(name, figure)


def strongest_heads(effect) -> list[dict]:
    """Return the heads with the largest effect either way, as pictures mark them."""
    from nnheads import stats

    unit = effect.dims[1]
    places = [divmod(int(index), effect.sizes[unit]) for index in stats.ranked(abs(effect.values))]
    return [
        {"layer": layer, "head": head, "value": float(effect[layer, head])}
        for layer, head in places[:MARKED]
    ]


def report(run, top: int) -> None:
    """Print the strongest place of each site, the strongest heads, and where the files are."""
    result = run.load("scores")
    if "answers" in result.attrs:  # not in runs of earlier versions
        say(result.attrs["answers"])
    say_logit_difference(result, f" ({result.attrs['direction']})")
    for site in ("resid_pre", "attn_out", "mlp_out"):
        say_strongest(result, site)
    ranked = result["z"].to_series().sort_values(key=abs, ascending=False)
    say_ranked("heads with the strongest effect", ranked.head(top))
    for path in sorted(run.folder.glob("[!.]*.*")):
        say(shown(path))


def say_strongest(result, site: str) -> None:
    """Print at which layer and token a site has the largest effect."""
    best = result[site].fillna(0).argmax(...)
    strongest = {name: int(index) for name, index in best.items()}
    token = str(result["token_text"].values[strongest["position"]])
    value = float(result[site].isel(strongest))
    say(f"{site:<9} strongest at layer {strongest['layer']}, {token!r}: {value:+.3f}")
