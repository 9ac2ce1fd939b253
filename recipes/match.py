"""Pattern scores on a text of your own, as TransformerLens computes them, to compare with published
numbers.
"""

from __future__ import annotations

from typing import Annotated

import typer
from nnheads.recipes import _options as options

EXAMPLE = "Mary gave the book to John and Mary gave the letter to John"


def main(
    text: Annotated[str, typer.Argument(help="What the model reads.")] = EXAMPLE,
    model: options.Model = "reference",
    pattern: Annotated[
        str, typer.Option(help="previous_token, duplicate_token or induction.")
    ] = "induction",
    measure: Annotated[
        str, typer.Option(help="mul (share of attention on the pattern) or abs.")
    ] = "mul",
    exclude_bos: Annotated[
        bool, typer.Option("--exclude-bos", help="Leave the first token out.")
    ] = False,
    exclude_current: Annotated[
        bool, typer.Option("--exclude-current", help="Leave the diagonal out.")
    ] = False,
    top: Annotated[int, typer.Option(help="How many heads to name.")] = 8,
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
    """Pattern scores on a text of your own, as TransformerLens computes them.

    They depend on the text and its length; `nnheads detect` asks the better question. Writes
    heads.nc and heads.png.
    """
    arguments = dict(locals())
    from nnheads import plot
    from nnheads.runs.folder import Run, item_of
    from nnheads.runs.provenance import model_identity, provenance
    from nnheads.spans.pattern_match import check_names, match_text

    check_names(pattern, measure)
    options.positive(top=top)
    where = options.remote_of(remote)
    loaded = options.load(model, revision, dtype, device_map, where, quantization)
    how = {"exclude_bos": exclude_bos, "exclude_current": exclude_current}
    scores = match_text(loaded, text, pattern, kind=measure, **how).to_dataset(name="match")
    identity = model_identity(loaded, model)
    facts = {
        **{key: value for key, value in arguments.items() if key != "top"},
        "weights": identity["commit"],
    }
    prompts = hash_of(loaded.tokenizer, text)
    scores.attrs = provenance(
        title=f"{pattern} on one text",
        model=loaded,
        name=model,
        prompts=prompts,
        arguments=facts,
        references="TransformerLens head_detector",
        sample_dims="",
    )
    item = item_of(text, pattern, measure, str(how))
    run = Run(output, "match", model, identity["revision"], facts, item=item, overwrite=overwrite)
    run.jobs_of(loaded)
    files = run.save(heads=scores)
    note, signed = plot.note(scores, 1), measure == "abs"
    files.append(
        run.picture(
            "heads",
            plot.heatmap(scores["match"], title=f"{pattern}, {measure}", signed=signed, note=note),
        )
    )
    run.finish()
    report(scores["match"], top, files)


def hash_of(tokenizer, text: str) -> str:
    """What stands for the prompts of a single text."""
    import hashlib

    return hashlib.sha256(str(tokenizer(text)["input_ids"]).encode()).hexdigest()


def report(match, top: int, files: list) -> None:
    from nnheads.models.names import head_name

    options.say(str(match.attrs["long_name"]))
    for (layer, head), value in (
        match.to_series().sort_values(ascending=False, kind="stable").head(top).items()
    ):
        options.say(f"  {head_name(layer, head):<7} {value:+.3f}")
    for path in files:
        options.say(options.shown(path))
