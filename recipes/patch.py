"""Patch your own pair of prompts: residual stream, attention, MLP, heads, and their inputs."""

from __future__ import annotations

from typing import Annotated

import typer
from nnheads.recipes._study import Study, study
from nnheads.recipes._terminal import say, shown

CLEAN = "When Mary and John went to the market, John gave the book to"
CORRUPTED = "When Mary and John went to the market, Mary gave the book to"
BY_POSITION = ("resid_pre", "attn_out", "mlp_out", "z_by_position")
AT_ONCE = ("z", "q", "k", "v", "pattern")


@study(without=("seed",), incidental=("top",))
def main(
    study: Study,
    clean: Annotated[str, typer.Option(help="The prompt that is answered by --answer.")] = CLEAN,
    corrupted: Annotated[
        str, typer.Option(help="The same prompt with what decides the answer changed.")
    ] = CORRUPTED,
    answer: Annotated[
        str, typer.Option(help="Next word after the clean prompt: one token.")
    ] = "Mary",
    wrong: Annotated[str, typer.Option(help="The word that it is measured against.")] = "John",
    noising: Annotated[
        bool,
        typer.Option("--noising", help="Corrupted into clean instead of clean into corrupted."),
    ] = False,
    top: Annotated[int, typer.Option(help="How many heads to name.")] = 8,
) -> None:
    """Your own pair: patch residual stream, attention, MLP, heads, their queries, keys, values and
    patterns.

    The two prompts must have the same tokens but for those that differ in meaning. Writes scores.nc
    with one effect per site, and a picture of each.
    """
    from nnheads.errors import BadInput
    from nnheads.prompts.pairs import Pair, one_pair
    from nnheads.runs.folder import item_of

    texts = {"clean": clean, "corrupted": corrupted, "answer": answer, "wrong": wrong}
    for name, text in texts.items():
        if not text.strip():
            raise BadInput(f"--{name} is empty")
    prompts = one_pair(study.model.tokenizer, Pair(**texts))
    run = study.open(item=item_of(*texts.values(), str(noising)))
    if not run.complete:
        compute(run, prompts, noising, study.quiet)
    report(run, top)


def compute(run, prompts, noising: bool, quiet: bool) -> None:
    """Patch each site; the effect of every site is one variable."""
    import xarray as xr

    from nnheads.patching.patch import patch
    from nnheads.runs import batches

    effects = {}
    with batches.progress("sites", len(BY_POSITION) + len(AT_ONCE), quiet) as advance:
        for name in (*BY_POSITION, *AT_ONCE):
            site, by_position = name.removesuffix("_by_position"), name in BY_POSITION
            scores = patch(
                run.model, prompts, site=site, by_position=by_position, noising=noising, gap=0.0
            )
            effects[name] = (
                scores["effect"].isel(batch=0).assign_attrs(long_name=f"effect of {site}")
            )
            advance(1)
    result = xr.Dataset(effects)
    for which in ("clean", "corrupted"):
        result[f"{which}_logit_difference"] = scores[f"{which}_logit_difference"].isel(batch=0)
    result = result.assign_coords(
        token_text=("position", token_labels(run.model.tokenizer, prompts))
    )
    references = "Heimersheim & Nanda 2024, arXiv 2404.15255"
    result.attrs.update(
        run.about(
            title="patching of one pair", prompts=prompts, references=references, sample_dims=""
        )
    )
    result.attrs["direction"] = scores.attrs["direction"]
    run.save(scores=result)
    draw(run, result)
    run.finish()


def token_labels(tokenizer, prompts) -> list[str]:
    """Return the tokens of a pair, both where they differ."""
    from nnheads.prompts.pairs import token_texts

    texts = [token_texts(tokenizer, prompts[which].values[0]) for which in ("token", "corrupted")]
    return [a if a == b else f"{a} / {b}" for a, b in zip(*texts)]


def draw(run, result) -> None:
    from nnheads import plot

    note = plot.note(result, 1)
    labelled = result.assign_coords(
        position=result["position"].assign_attrs(labels=result["token_text"].values)
    )
    titles = {
        "resid_pre": "Residual stream",
        "attn_out": "Attention output",
        "mlp_out": "MLP output",
        "z": "Head output, all positions",
        "q": "Queries, all positions",
        "k": "Keys, all positions",
        "v": "Values, all positions",
        "pattern": "Attention weights, all positions",
    }
    for name, title in titles.items():
        run.picture(
            name,
            plot.heatmap(labelled[name], title=f"{title}, {result.attrs['direction']}", note=note),
        )


def report(run, top: int) -> None:
    from nnheads.models.names import head_name

    result = run.load("scores")
    clean, corrupted = (
        float(result["clean_logit_difference"]),
        float(result["corrupted_logit_difference"]),
    )
    say(
        f"logit difference: clean {clean:+.2f}, corrupted {corrupted:+.2f}"
        f" ({result.attrs['direction']})"
    )
    for site in ("resid_pre", "attn_out", "mlp_out"):
        best = result[site].fillna(0).argmax(...)
        place = {name: int(index) for name, index in best.items()}
        token = str(result["token_text"].values[place["position"]])
        say(
            f"{site:<9} strongest at layer {place['layer']}, {token!r}:"
            f" {float(result[site].isel(place)):+.3f}"
        )
    ranked = result["z"].to_series().sort_values(key=abs, ascending=False).head(top)
    say("heads with the strongest effect")
    for (layer, head), value in ranked.items():
        say(f"  {head_name(layer, head):<7} {value:+.3f}")
    for path in sorted(run.folder.glob("[!.]*.*")):
        say(shown(path))
