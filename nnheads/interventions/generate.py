"""Let a model write with an intervention in place, beside what it writes without.

The prompt is one forward; its last position predicts the first written token, which is step 0. Each
further forward reads one written token and predicts the next. An edit "at step s" acts on the
forward that reads token s, so it can change the tokens from s + 1 on; the token that is written
last is read by no forward. Positions mean:

    PROMPT, index, span, role      positions of the prompt, in its forward alone
    DECODE                         every forward behind it; steps(...): these of them
    ANSWER                         DECODE, and what the prompt holds after its `prompt_length`
    ALL                            every position of the prompt, and DECODE

What is written equals `run` over the prompt and the written tokens, token for token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from nnsight import save

from nnheads.errors import BadInput, RunError, first_line
from nnheads.generation.greedy import ends_of
from nnheads.interventions import prepare as plan
from nnheads.interventions.apply import check_places, features_of, places
from nnheads.interventions.operations import is_whole
from nnheads.interventions.schema import At, Edit, FromSource, Intervention
from nnheads.models.geometry import model_spec
from nnheads.models.inputs import check_length, check_tokens, inputs
from nnheads.spans.layout import pad_left
from nnheads.trace.decode import write_on
from nnheads.trace.session import remote_of

EVERY_STEP = ("all", "answer", "answering", "decode")
# transformers' own processors, in the order in which it applies them
PROCESSORS = {
    "repetition_penalty": "RepetitionPenaltyLogitsProcessor",
    "no_repeat_ngram_size": "NoRepeatNGramLogitsProcessor",
    "temperature": "TemperatureLogitsWarper",
    "top_k": "TopKLogitsWarper",
    "top_p": "TopPLogitsWarper",
    "min_p": "MinPLogitsWarper",
    "typical_p": "TypicalLogitsWarper",
}


@dataclass(frozen=True)
class Written:
    """What was written with the edits, and without them (None if not asked for).

    ids: [row, step], -1 from a row's end on. texts: of each row. logits: [row, step, vocabulary],
        those that step's
    token was chosen by, if they were kept. collected: key -> [row, place, feature], the prompt's
        places before those
    of the steps; NaN at steps behind a row's end.
    """

    ids: np.ndarray
    texts: list[str]
    logits: torch.Tensor | None
    original_ids: np.ndarray | None
    original_texts: list[str] | None
    original_logits: torch.Tensor | None
    collected: dict[str, torch.Tensor]


def generate(
    model,
    intervention: Intervention,
    prompts: xr.Dataset,
    sources: Sequence[xr.Dataset] = (),
    *,
    new_tokens: int = 20,
    original: bool = True,
    sample: dict[str, Any] | None = None,
    stop_at: str | Sequence[str] = (),
    keep_logits: bool = False,
) -> Written:
    """Continue prompts with an intervention in place.

    Args:
        prompts: token and mask (batch, position), padded on the left (`read_texts` makes them of
            texts); roles and `prompt_length` as for `run`.
        sources: prompts of the source runs, row by row. At decode steps an edit takes one place of
            its source (`source_at`), which serves every step, or as many places as it has steps.
        new_tokens: written at most; a row ends before that with the model's end of text (which is
            not returned), or with one of the texts of `stop_at` (which is).
        original: also write without the edits.
        sample: None for the likeliest token; options of transformers (`temperature`, `top_k`,
            `top_p`, `min_p`, `typical_p`, `repetition_penalty`, `no_repeat_ngram_size`,
            `do_sample`) and `seed` to draw. With and without edits the same numbers are drawn, on
            the processor, on any device. Of the model's own settings for generation only the ends
            of texts count.
        keep_logits: return the logits of every step.
        remote: everything is one job.

    Raises:
        BadInput: what the model or the prompts do not have, steps that no forward reads, options
            that are not known.
        RunError: predictions that are no numbers.
    """
    shape = model_spec(model)
    plan.check_model(model, intervention, shape)
    check_asked(model, intervention, prompts, sources, new_tokens)
    order, fed = plan.ordered(model, intervention), inputs(model, prompts)
    edits = [
        {
            **plan.plain(intervention.edits[i], i),
            "where": places(intervention.edits[i].at, prompts),
            "steps": steps_of(intervention.edits[i].at, new_tokens),
            "turn": turn,
        }
        for turn, i in enumerate(order)
    ]
    taken = [
        source_reads(intervention, edits, number, prompts, source)
        for number, source in enumerate(sources)
    ]
    given = [inputs(model, source) for source in sources]
    tensors = {**intervention.tensors, **plan.functions(intervention)}
    how = {
        "new_tokens": new_tokens,
        "ends": ends_of(model),
        "keep": keep_logits,
        "stops": [stop_at] if isinstance(stop_at, str) else [*stop_at],
        **sampling(sample),
    }
    serial = intervention.mode == "serial"
    last = [
        edit
        for edit in edits
        if not serial or edit["do"].get("source", len(given) - 1) == len(given) - 1
    ]
    with model.session(remote=remote_of(model)):
        known: dict = {}
        for number in range(len(given)):
            before = (
                [edit for edit in edits if edit["do"].get("source", -1) == number - 1]
                if serial and number
                else []
            )
            known.update(
                features_of(model, given[number], taken[number], before, known, shape, tensors)
            )
        plain = save(write_on(model, fed, [], {}, shape, {}, how) if original else None)
        changed = save(write_on(model, fed, last, known, shape, tensors, how))
    for name, one in (("without edits", plain), ("with these edits", changed)):
        if one is not None and one["broken"]:
            raise RunError(
                f"{name} the model's predictions are not finite: broken weights, or too strong an"
                " edit"
            )
    return labelled(model, plain, changed)


def labelled(model, plain: dict | None, changed: dict) -> Written:
    """What was written, with its texts."""
    ids = changed["ids"].numpy()
    before = None if plain is None else plain["ids"].numpy()
    return Written(
        ids,
        said(model, ids),
        changed["logits"],
        before,
        None if before is None else said(model, before),
        None if plain is None else plain["logits"],
        joined(changed["collected"], ids),
    )


def said(model, ids: np.ndarray) -> list[str]:
    """The text of each row."""
    return [model.tokenizer.decode(row[row >= 0].tolist()) for row in ids]


def joined(collected: list[dict], ids: np.ndarray) -> dict[str, torch.Tensor]:
    """What the forwards collected, side by side: those after the first read the tokens written
    before.
    """
    found: dict[str, list] = {}
    for number, own in enumerate(collected):
        read = (
            torch.from_numpy(ids[:, number - 1] >= 0)
            if number
            else torch.ones(len(ids), dtype=torch.bool)
        )
        for key, features in own.items():
            features = features.cpu()
            found.setdefault(key, []).append(torch.where(read[:, None, None], features, torch.nan))
    return {key: torch.cat(parts, 1) for key, parts in found.items()}


def read_texts(tokenizer, texts: Sequence[str]) -> xr.Dataset:
    """Prompts of plain texts: token and mask (batch, position), padded on the left."""
    rows = [tokenizer(text)["input_ids"] for text in texts]
    empty = [number for number, row in enumerate(rows) if not row]
    if empty or not rows:
        raise BadInput(
            f"text {empty[0] + 1} has no tokens; expected some text"
            if rows
            else "no texts are given"
        )
    token, mask, _ = pad_left(rows, tokenizer.pad_token_id or 0)
    place = ("batch", "position")
    return xr.Dataset({"token": (place, token), "mask": (place, mask)}, {"batch": range(len(rows))})


def steps_of(at: At, new_tokens: int) -> list[int]:
    """The written tokens that an edit acts on, by their step."""
    if at.kind == "steps":
        return list(at.values)
    return list(range(new_tokens - 1)) if at.kind in EVERY_STEP else []


def check_asked(
    model, intervention: Intervention, prompts: xr.Dataset, sources, new_tokens: int
) -> None:
    """Refuse what cannot be written before anything runs."""
    if new_tokens < 1:
        raise BadInput(f"{new_tokens} new tokens are not possible; ask for at least 1")
    check_tokens(prompts["token"].values, model.config.vocab_size)
    if not prompts["mask"].values[:, -1].all():
        raise BadInput(
            "prompts are padded on the right; pad them on the left, so that all are continued at"
            " their end"
        )
    check_length(int(prompts["mask"].values.sum(1).max()) + new_tokens - 1, model.config)
    if len(sources) != intervention.sources:
        raise BadInput(
            f"this intervention takes {intervention.sources} sources, got {len(sources)}"
        )
    for edit in intervention.edits:
        late = (
            [step for step in edit.at.values if step > new_tokens - 2]
            if edit.at.kind == "steps"
            else []
        )
        if late:
            raise BadInput(
                f"step {late[0]} is read by no forward when {new_tokens} tokens are written; the"
                f" last one that is has number {new_tokens - 2}"
            )
        source = edit.do.source if isinstance(edit.do, FromSource) else intervention.sources
        earlier = source < intervention.sources - 1
        if intervention.mode == "serial" and earlier and steps_of(edit.at, new_tokens):
            raise BadInput(
                f"in serial mode source {source} is put into source {source + 1}, where nothing is "
                f"written; position {edit.at.kind!r} is for the last source"
            )


def source_reads(
    intervention: Intervention,
    edits: list[dict],
    number: int,
    prompts: xr.Dataset,
    source: xr.Dataset,
) -> list[dict]:
    """What to read from a source's run, in the order of execution."""
    reads = []
    for ready in edits:
        edit = intervention.edits[ready["number"]]
        if not isinstance(edit.do, FromSource) or edit.do.source != number:
            continue
        where = places(edit.do.source_at or edit.at, source)
        if bool((ready["where"] >= 0).any()) or not ready["steps"]:
            check_places(edit, where, ready["where"])
        if ready["steps"]:
            check_steps(edit, where, len(prompts["token"]), len(ready["steps"]))
        reads.append({**ready, "where": where, "reads": True})
    return reads


def check_steps(edit: Edit, where: torch.Tensor, rows: int, count: int) -> None:
    """Refuse sources that say too little or too much for the steps of an edit."""
    if edit.site == "pattern":
        raise BadInput(
            "an attention pattern has a key for every token before it, so a source has none for a"
            " step"
        )
    if where.shape[0] != rows:
        raise BadInput(
            f"a source has {where.shape[0]} prompts and the base {rows}; they go row by row"
        )
    found = (where >= 0).sum(1)
    if not bool(((found == 1) | (found == count)).all()) or len(set(found.tolist())) > 1:
        raise BadInput(
            f"{edit.site} takes {', '.join(map(str, sorted(set(found.tolist()))))} positions of its"
            f" source for {count} steps; name one for all of them, or one each (source_at)"
        )


def sampling(sample: dict[str, Any] | None) -> dict:
    """Processors of scores, and the seed (None: nothing is drawn)."""
    import transformers

    options = dict(sample or {})
    draws = bool(options.pop("do_sample", sample is not None))
    seed = options.pop("seed", 0)
    unknown = [name for name in options if name not in PROCESSORS]
    if unknown:
        raise BadInput(
            f"sampling option {unknown[0]!r} is not known; use"
            f" {', '.join([*PROCESSORS, 'do_sample', 'seed'])}"
        )
    if not is_whole(seed):
        raise BadInput(f"seed {seed!r} is no whole number")
    processors = []
    for name, kind in PROCESSORS.items():
        if options.get(name) is None:
            continue
        try:
            processors.append(getattr(transformers, kind)(options[name]))
        except (ValueError, TypeError) as error:
            raise BadInput(
                f"{name} {options[name]!r} is not possible: {first_line(error)}"
            ) from None
    return {"processors": processors, "seed": int(seed) if draws else None}
