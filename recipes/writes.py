"""What do heads write?

Copying, succession, suppression, coupling to attention, and who reads whom.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from nnheads.recipes._checks import check_choice
from nnheads.recipes._results import described, save_described
from nnheads.recipes._study import Study, study
from nnheads.recipes._terminal import say, say_files, say_heads
from nnheads.recipes._writes import KINDS, Kind

from nnheads.errors import BadInput

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.runs.folder import Run
    from nnheads.stats import RankedHead

CHANCE = 0.05  # q value below which a head is marked
MARKED = 5  # heads that may be marked in the picture

KindName = Annotated[str, typer.Option("--kind", help=f"{', '.join(KINDS)}.")]
Words = Annotated[
    Path | None,
    typer.Option(help="Words of your own, one a line; for successor: in their order."),
]
Through = Annotated[str, typer.Option(help="What composition reads with: q, k or v.")]
Limit = Annotated[
    int, typer.Option("--limit", "-n", help="How many words, tokens or prompts at most.")
]


@study(batch_size=50, top=8, incidental=("top",), quick={"limit": 60})
def main(
    study: Study,
    kind: KindName = "copy",
    words: Words = None,
    through: Through = "k",
    limit: Limit = 300,
) -> None:
    """What do heads write? Copying, succession, suppression, coupling to attention, and who reads
    whom.

    Reads what each head does to the logits when it looks at a token, from runs of single tokens;
    coupling needs prompts and draws those of the indirect-object task, composition compares heads'
    weights. Writes scores.nc (each token or prompt, or each pair of heads), heads.nc (layer, head)
    and heads.png.
    """
    check_choice("--kind", kind, KINDS)
    if words is not None and not KINDS[kind].words:
        raise BadInput(f"--words is for copy, successor and suppression; {kind} looks at no words")
    read = None if words is None else read_words(words)
    run = study.open(item=f"{kind}-{through}" if kind == "composition" else kind, list=read)
    if not run.complete:
        compute(study, run, KINDS[kind])
    report(run, KINDS[kind], study.top)


def read_words(path: Path) -> list[str]:
    """Return the words of a file, in their order."""
    from nnheads.spans.lines import numbered_lines

    return list(dict.fromkeys(line.strip() for _, line in numbered_lines(path, "one word a line")))


def compute(study: Study, run: Run, kind: Kind) -> None:
    """Measure, reduce, draw, save; finished batches of tokens or prompts are kept in the run's
    folder.
    """
    measured = kind.measure(study, run)
    about = run.about(
        title=kind.title,
        prompts=measured.prompts,
        references=kind.source,
        sample_dims="batch" if kind.headlines else "",
    )
    save_described(run, about, scores=measured.scores, heads=measured.heads)
    count = int(measured.scores.sizes.get("batch", 1))
    draw(run, described(measured.heads, about), kind, count)
    run.finish(cases=count)


def draw(run: Run, heads: xr.Dataset, kind: Kind, count: int) -> None:
    """Draw the headline of every head, with the highest of each statistic marked."""
    from nnheads import plot

    ranked = [one for name in kind.headlines for one in highest(heads, name, MARKED)]
    marked = {(one["layer"], one["head"]): one for one in ranked if one.pop("flag")}
    figure = plot.heatmap(
        kind.drawn(heads),
        title=f"Writes: {kind.title}",
        signed=kind.signed,
        note=plot.note(heads, count),
        marked=list(marked.values()),  # one head may be high by several statistics
        framed=f"of the {MARKED} highest by {' and by '.join(kind.headlines)}, those beyond chance",
    )
    run.picture("heads", figure)


def highest(heads: xr.Dataset, name: str, top: int) -> list[dict]:
    """Return the highest heads, with a mark where chance does not explain them.

    It does not where the q value is low or, without one, the interval lies above 0.
    """
    from nnheads import stats

    ranked = stats.top_heads(heads, name, top)
    return [{**one, "flag": is_beyond(heads, name, one)} for one in ranked]


def is_beyond(heads: xr.Dataset, name: str, one: RankedHead) -> bool:
    """Return whether chance does not explain the value of a head."""
    q_value = f"{name}_q_value"
    if q_value not in heads:
        return one["low"] > 0
    return float(heads[q_value].sel(layer=one["layer"], head=one["head"])) < CHANCE


def report(run: Run, kind: Kind, top: int) -> None:
    """Print the strongest heads or pairs, and where the files are."""
    heads = run.load("heads")
    if not kind.headlines:
        say_pairs(run.load("scores"), top)
    for name in kind.headlines:
        title = f"{name}: {heads[name].attrs['long_name']} [95% interval] (* beyond chance)"
        above = [one for one in highest(heads, name, top) if one["value"] != 0]
        if above:
            say_heads(f"{title}; highest:", above)
        else:
            say(f"{title}: 0 for every head")
    if KINDS["copy"] is kind:  # what is shown unless another is asked for
        say(f"what else heads may write: --kind {', '.join(list(KINDS)[1:])}")
    say_files(run, "scores.nc", "heads.nc", "heads.png")


def say_pairs(scores: xr.Dataset, top: int) -> None:
    """Print the strongest pairs of heads, and what random heads come to."""
    from nnheads.models.names import head_name
    from nnheads.writing.composition import share_above, strongest

    null, high = float(scores["null"]), float(scores["null_high"])
    through = scores.attrs["composition"]
    say(f"composition through {through}; random heads {null:.3f}, 95% below {high:.3f}")
    share, count = share_above(scores)
    say(
        f"{share:.0%} of all {count} pairs are above that, so it is no finding by itself; the"
        " strongest:"
    )
    for pair in strongest(scores, top):
        sender = head_name(pair["layer"], pair["head"])
        receiver = head_name(pair["to_layer"], pair["to_head"])
        say(f"  {sender:<7} -> {receiver:<7} {pair['value']:.3f}")
