"""Along which paths do heads act? Path patching of indirect-object sentences."""

from __future__ import annotations

from typing import Annotated

import typer
from nnheads.recipes import _pairs
from nnheads.recipes._study import Study, study
from nnheads.recipes._terminal import say, say_files, say_heads, say_kept, say_logit_difference

LOGITS = "logits"
LONGEST_ITEM = 60  # of a folder's name
TITLE = (
    "change over the clean value when they carry the other text (below zero: they help), ratio of"
    " means [95% interval]"
)

Head = tuple[int, int]
Receivers = Annotated[
    str, typer.Option(help="What receives: logits, or later heads such as 9.9,9.6.")
]
Via = Annotated[str, typer.Option(help="What of a receiving head changes: q, k or v.")]
Senders = Annotated[
    str | None, typer.Option(help="Only these heads send, one at a time; default: all.")
]
At = Annotated[
    str | None, typer.Option(help="Only at a role: IO, S1, S2 or END; default: everywhere.")
]
Mlps = Annotated[str, typer.Option(help="MLPs between sender and receiver: recompute or freeze.")]


@study(limit=100, batch_size=20, top=8, incidental=("top",), quick={"limit": 8})
def main(
    study: Study,
    receivers: Receivers = LOGITS,
    via: Via = "q",
    senders: Senders = None,
    at: At = None,
    mlps: Mlps = "recompute",
    corruption: _pairs.Corruption = "abc",
    prompts: _pairs.PairsFile = None,
    strict: _pairs.Strict = False,
) -> None:
    """Along which paths do heads act? To the logits, or to later heads.

    Gives one head at a time, the sender, its output on a corrupted sentence, freezes all other
    heads, and lets only the receivers notice: the logits, or the queries, keys or values of chosen
    later heads. The effect is the change of the logit difference over its clean value: negative
    where the path helps the answer. Writes scores.nc (batch, layer, head), heads.nc (layer, head)
    and heads.png; receivers other than the logits have a folder of their own.
    """
    from nnheads.patching.path_patching import check_mlps
    from nnheads.prompts.ioi import check_corruption
    from nnheads.runs.provenance import prompts_hash

    check_corruption(corruption)
    check_mlps(mlps)
    receiving = None if receivers.strip().lower() == LOGITS else heads_in(receivers)
    sending = None if senders is None else heads_in(senders)
    check_paths(study, receiving, sending)
    pairs = pairs_at(study)
    run = study.open(
        item=item_of(receiving, via),
        receivers=names_of(receiving),
        senders=names_of(sending),
        prompts_sha256=prompts_hash(pairs),
    )
    if not run.complete:
        compute(study, run, pairs, receiving, sending)
    report(run, study.top)


def heads_in(text: str) -> list[Head]:
    """Return the heads of `9.9,L9H6`, each once."""
    from nnheads.models.names import parse_head

    return list(dict.fromkeys(parse_head(piece) for piece in text.split(",")))


def names_of(heads: list[Head] | None) -> list[str] | None:
    """Return names in order: however heads were written, the same ones are the same question."""
    from nnheads.models.names import head_name

    return None if heads is None else [head_name(*head) for head in sorted(heads)]


def item_of(receivers: list[Head] | None, via: str) -> str:
    """Return the folder of one question: nothing for the logits."""
    return "" if receivers is None else "-".join([via, *(names_of(receivers) or ())])[:LONGEST_ITEM]


def check_paths(study: Study, receivers: list[Head] | None, senders: list[Head] | None) -> None:
    """Refuse heads that the model does not have, and senders that no receiver stands behind."""
    from nnheads.models.geometry import geometry
    from nnheads.patching.path_ends import receivers_of, senders_of

    sizes = geometry(study.model)
    senders_of(senders, receivers_of(receivers, study.via, sizes), sizes)


def pairs_at(study: Study):
    """Return the pairs, of which every one has the role of `--at`."""
    from nnheads.patching.targets import role

    pairs = _pairs.pairs_of(study)
    if study.at is not None:
        role(pairs, study.at)
    return pairs


def compute(
    study: Study, run, pairs, receivers: list[Head] | None, senders: list[Head] | None
) -> None:
    """Filter, follow the paths, reduce, save; every finished batch is kept in the run's folder."""
    from nnheads.patching.path_patching import path_patch

    kept, dropped = _pairs.answered(study, run, pairs, strict=study.strict, both=False)
    options = {"via": study.via, "at": study.at, "mlps": study.mlps}
    scores = study.in_batches(
        run,
        lambda part: path_patch(run.model, part, receivers=receivers, senders=senders, **options),
        kept,
        name="paths",
        title="paths",
    )
    title = "indirect object: paths"
    scores.attrs.update(_pairs.about_pairs(run, title, pairs, kept, dropped, _pairs.REFERENCES))
    heads = reduce(scores, study.seed)
    run.save(scores=scores, heads=heads)
    draw(run, heads)
    _pairs.finish(run, scores)


def reduce(scores, seed: int):
    """Return the change of each sender (layer, head) over the clean value, as a ratio of means.

    The logit difference stands beside it, with the path swapped, and for either text.
    """
    import xarray as xr

    from nnheads import stats

    effect = scores["change"].rename("effect")
    effect = effect.assign_attrs(long_name="change along the path, over the clean value")
    reduced = [
        stats.ratio_of_means(effect, scores["base_logit_difference"], seed=seed),
        stats.mean(scores["logit_difference"], seed=seed),
    ]
    heads = xr.merge(reduced, combine_attrs="drop_conflicts")
    _pairs.add_means(heads, scores, "base_logit_difference", "new_logit_difference")
    return heads.assign_attrs(scores.attrs)


def draw(run, heads) -> None:
    """Draw the effect of every sender, with the strongest ones marked."""
    from nnheads import plot
    from nnheads.patching.role_rules import EFFECT

    strongest = [head for side in _pairs.for_and_against(heads, 5) for head in side]
    frozen = "" if heads.attrs["mlps"] == "recompute" else ", MLPs frozen"
    figure = plot.heatmap(
        heads["effect"],
        title=f"Paths to {receivers_in_words(heads.attrs)}{frozen} (below 0: helps the answer)",
        marked=[head for head in strongest if abs(head["value"]) >= EFFECT],
        framed=f"the strongest either way, of those with an effect of {EFFECT:g} or more whose"
        " interval leaves 0 out",
        note=plot.note(heads, heads.attrs["kept"]),
    )
    run.picture("heads", figure)


def receivers_in_words(attrs: dict) -> str:
    """Return `the logits`, or `the queries of L9H9+L9H6`, and where."""
    receivers, at = attrs["receivers"], attrs["at"]
    words = "the logits" if receivers == LOGITS else f"the {attrs['via']} of {receivers}"
    return words if at == "all positions" else f"{words} at {at}"


def report(run, top: int) -> None:
    """Print what was kept, the paths that help and that work against the answer, and the files."""
    heads = run.load("heads")
    say_kept(heads.attrs)
    mlps = f"; MLPs: {heads.attrs['mlps']}"
    say_logit_difference(heads, mlps, clean="base", corrupted="new")
    positive, negative = _pairs.for_and_against(heads, top)
    title = f"paths to {receivers_in_words(heads.attrs)}, {TITLE}; helping:"
    if negative:
        say_heads(title, negative)
    else:
        say(f"{title} none beyond its interval")
    if positive:
        say_heads("working against the answer:", positive)
    unsure = _pairs.large_and_unsure(heads, top)
    if unsure:
        say_heads("as large, but the interval holds 0:", unsure)
    say_files(run, "scores.nc", "heads.nc", "heads.png")
