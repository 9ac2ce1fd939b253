"""Look inside one run: sizes, tokens, residual norms, next tokens, logit lens, one head's
attention.
"""

from __future__ import annotations

from typing import Annotated

import typer
from nnheads.recipes import _options as options

EXAMPLE = "When Mary and John went to the market, John gave the book to"


def main(
    text: Annotated[str, typer.Argument(help="What the model reads.")] = EXAMPLE,
    model: options.Model = "reference",
    head: Annotated[
        str | None, typer.Option(help="Draw this head's attention: 5.1 or L5H1.")
    ] = None,
    top: Annotated[int, typer.Option(help="How many candidates for the next token.")] = 10,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = None,
    device_map: options.DeviceMap = None,
    remote: options.Remote = None,
    submit: options.Submit = False,
    output: options.Output = options.RESULTS,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    traceback: options.Traceback = False,
) -> None:
    """Look inside one run: sizes, tokens, residual norms, next tokens, logit lens, one head's
    attention.

    Writes scores.nc, residual_norm.png, lens.png and, with --head, pattern.png.
    """
    arguments = dict(locals())
    from nnheads.models.names import parse_head
    from nnheads.runs.folder import Run, item_of
    from nnheads.runs.provenance import model_identity, provenance
    from nnheads.writing.logit_lens import logit_lens

    options.positive(top=top)
    chosen = None if head is None else parse_head(head)
    where = options.remote_of(remote)
    loaded = options.load(model, revision, dtype, device_map, where, quantization)
    inside = logit_lens(loaded, text, k=top, head=chosen)
    identity = model_identity(loaded, model)
    facts = {**arguments, "model": identity["model"], "weights": identity["commit"]}
    inside.attrs.update(
        provenance(
            title="one run from inside",
            model=loaded,
            name=model,
            prompts=inside[["lens_token"]],
            arguments=facts,
            references="nostalgebraist 2020, interpreting GPT: the logit lens",
            sample_dims="position",
        )
    )
    item = item_of(text, head or "")
    run = Run(output, "inspect", model, identity["revision"], facts, item=item, overwrite=overwrite)
    run.jobs_of(loaded)
    files = [*run.save(scores=inside), *draw(run, inside, chosen)]
    run.finish()
    report(loaded, inside)
    for path in files:
        options.say(options.shown(path))


def draw(run, inside, head: tuple[int, int] | None) -> list:
    """Pictures of the norms, of the lens at the last position, and of the head that was asked for."""
    from nnheads import plot
    from nnheads.models.names import head_name

    note = plot.note(inside, 1)
    labelled = inside.assign_coords(
        position=inside["position"].assign_attrs(labels=inside["token_text"].values)
    )
    files = [
        run.picture(
            "residual_norm",
            plot.heatmap(
                labelled["residual_norm"],
                title="Residual stream before each layer",
                signed=False,
                note=note,
            ),
        ),
        run.picture(
            "lens",
            plot.heatmap(
                labelled["lens_probability"],
                title="Logit lens: best token of each layer",
                signed=False,
                note=note,
                texts=inside["lens_text"].values,
            ),
        ),
    ]
    if head is not None:
        figure = plot.pattern(
            inside["attention"],
            list(inside["token_text"].values),
            title=f"Attention of {head_name(*head)}",
            note=note,
        )
        files.append(run.picture("pattern", figure))
    return files


def report(model, inside) -> None:
    from nnheads.models.geometry import geometry

    sizes = geometry(model)
    options.say(
        f"{sizes.layers} layers, {sizes.heads} heads ({sizes.kv_heads} key/value), head size"
        f" {sizes.head_dim}, d_model {sizes.d_model}, vocabulary {sizes.vocabulary}"
    )
    options.say("tokens: " + " | ".join(map(str, inside["token_text"].values)))
    options.say("layer  norm at the end  best next token by logit lens")
    for layer in inside["layer"].values:
        last = inside.sel(layer=layer).isel(position=-1)
        name = "end" if layer == sizes.layers else str(layer)
        options.say(
            f"  {name:>3}  {float(last['residual_norm']):15.2f}  {str(last['lens_text'].values)!r} "
            f"{float(last['lens_probability']):.3f}"
        )
    options.say("next token")
    for rank in range(inside.sizes["rank"]):
        one = inside.isel(rank=rank)
        options.say(f"  {float(one['next_probability']):.3f}  {str(one['next_text'].values)!r}")
