"""Look inside one forward: tokens, residual norms, next tokens, logit lens, a head's attention."""

from __future__ import annotations

from typing import Annotated

import typer
from nnheads.recipes._checks import check_text
from nnheads.recipes._study import Study, study
from nnheads.recipes._terminal import say, shown

EXAMPLE = "When Mary and John went to the market, John gave the book to"

DEPTH = "behind layer"  # what the rows are: the first is the embedding

Text = Annotated[str, typer.Argument(help="What the model reads.")]
Head = Annotated[str | None, typer.Option(help="Draw this head's attention: 5.1 or L5H1.")]
Top = Annotated[int, typer.Option(help="How many candidates for the next token.")]


@study(without=("seed",), quick={})
def main(study: Study, text: Text = EXAMPLE, head: Head = None, top: Top = 10) -> None:
    """Look inside one forward: sizes, tokens, residual norms, next tokens, logit lens, attention.

    Writes scores.nc, residual_norm.png, lens.png and, with --head, pattern.png.
    """
    from nnheads.models.names import parse_head
    from nnheads.runs.folder import item_of
    from nnheads.writing.logit_lens import logit_lens

    check_text(study, text)
    chosen = None if head is None else parse_head(head)
    inside = logit_lens(study.model, text, k=top, head=chosen)
    run = study.open(item=item_of(text, head or ""))
    about = run.about(
        title="one run from inside",
        prompts=inside[["lens_token"]],
        references="nostalgebraist 2020, interpreting GPT: the logit lens",
        sample_dims="position",
    )
    inside.attrs.update(about)
    files = [*run.save(scores=inside), *draw(run, inside, chosen)]
    run.finish()
    report(study.model, inside)
    for path in files:
        say(shown(path))


def draw(run, inside, head: tuple[int, int] | None) -> list:
    """Draw the norms, the lens at the last position, and the attention of the chosen head."""
    from nnheads import plot
    from nnheads.models.names import head_name

    note, tokens = plot.note(inside, 1), inside["token_text"].values
    position = inside["position"].assign_attrs(labels=tokens)
    depth = inside["layer"].assign_attrs(labels=depths(inside))
    labelled = inside.assign_coords(position=position, layer=depth).rename(layer=DEPTH)
    norms = plot.heatmap(
        labelled["residual_norm"],
        title="Residual stream behind each layer",
        signed=False,
        log=True,  # the first position of many models has a hundred times the norm of others
        note=note,
    )
    lens = plot.heatmap(
        labelled["lens_probability"],
        title="Logit lens: best token behind each layer",
        signed=False,
        note=note,
        texts=inside["lens_text"].values,
    )
    files = [run.picture("residual_norm", norms), run.picture("lens", lens)]
    if head is not None:
        title = f"Attention of {head_name(*head)}"
        figure = plot.pattern(inside["attention"], list(tokens), title=title, note=note)
        files.append(run.picture("pattern", figure))
    return files


def depths(inside) -> list[str]:
    """Return the name of each point at which the stream is read: the embedding, then each layer."""
    return ["embedding", *(str(layer) for layer in range(inside.sizes["layer"] - 1))]


def report(model, inside) -> None:
    """Print sizes, tokens, the best next token behind each layer, and those of the last one."""
    from nnheads.models.geometry import geometry

    sizes = geometry(model)
    heads = f"{sizes.heads} heads ({sizes.kv_heads} key/value), head size {sizes.head_dim}"
    say(f"{sizes.layers} layers, {heads}, d_model {sizes.d_model}, vocabulary {sizes.vocabulary}")
    tokens = [repr(str(text))[1:-1] for text in inside["token_text"].values]
    say(f"tokens: {' | '.join(tokens)}")
    say(f"{DEPTH}  norm at the end  best next token by logit lens")
    for number, name in enumerate(depths(inside)):
        say_layer(name, inside.isel(layer=number, position=-1))
    say("next token")
    for rank in range(inside.sizes["rank"]):
        say_next(inside.isel(rank=rank))


def say_layer(name: str, last) -> None:
    """Print the norm at the last position behind one layer, and the best token by logit lens."""
    norm, probability = float(last["residual_norm"]), float(last["lens_probability"])
    say(f"  {name:>10}  {norm:15.2f}  {str(last['lens_text'].values)!r} {probability:.3f}")


def say_next(token) -> None:
    """Print one candidate for the next token."""
    say(f"  {float(token['next_probability']):.3f}  {str(token['next_text'].values)!r}")
