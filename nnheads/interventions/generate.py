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
from jaxtyping import Float, Int
from nnsight import save

from nnheads.errors import BadInput, RunError
from nnheads.generation.greedy import ends_of
from nnheads.interventions.forwards import features_of_sources
from nnheads.interventions.massive import warn_of_sources
from nnheads.interventions.model_checks import check_model, check_sources
from nnheads.interventions.operations import FromSource
from nnheads.interventions.positions import steps_of
from nnheads.interventions.prepare import Prepared, prepared
from nnheads.interventions.sampling import sampling
from nnheads.interventions.schema import Edit, Intervention
from nnheads.models.geometry import model_spec
from nnheads.models.inputs import check_length, check_tokens, real_tokens
from nnheads.trace.decode import WriteOptions, write_on
from nnheads.trace.session import remote_of


@dataclass(frozen=True)
class Written:
    """What was written with the edits, and without them (None if not asked for).

    Args:
        ids: [row, step], -1 from a row's end on.
        texts: of each row.
        logits: [row, step, vocabulary], those that each step's token was chosen by, if they were
            kept.
        collected: key -> [row, chosen position, feature], the prompt's positions before those of
            the steps; NaN at steps behind a row's end.
    """

    ids: Int[np.ndarray, "row step"]
    texts: list[str]
    logits: Float[torch.Tensor, "row step vocabulary"] | None
    original_ids: Int[np.ndarray, "row step"] | None
    original_texts: list[str] | None
    original_logits: Float[torch.Tensor, "row step vocabulary"] | None
    collected: dict[str, Float[torch.Tensor, "row chosen feature"]]

    @property
    def original(self) -> Written | None:
        """What was written without the edits; None if it was not asked for."""
        if self.original_ids is None or self.original_texts is None:
            return None
        ids, texts, logits = self.original_ids, self.original_texts, self.original_logits
        return Written(ids, texts, logits, None, None, None, {})


def generate(
    model: Any,
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
        sources: prompts of the source runs, row by row. At decode steps an edit takes one position
            of its source (`source_at`), which serves every step, or as many as it has steps. A
            source read at a first token with a massive activation is warned of.
        new_tokens: written at most; a row ends before that with the model's end of text (which is
            not returned), or with one of the texts of `stop_at` (which is).
        original: also write without the edits.
        sample: None for the likeliest token; options of transformers (`temperature`, `top_k`,
            `top_p`, `min_p`, `typical_p`, `repetition_penalty`, `no_repeat_ngram_size`,
            `do_sample`) and `seed` to draw. With and without edits the same numbers are drawn, on
            the processor, on any device. Of the model's own settings for generation only the ends
            of texts count.
        keep_logits: return the logits of every step.

    Returns:
        Token ids, texts and, if kept, logits with and without the edits, and what was collected.

    Raises:
        BadInput: what the model or the prompts do not have, steps that no forward reads, options
            that are not known.
        RunError: predictions that are no numbers.

    Example:
        >>> from nnheads.interventions import Edit, Intervention, Zero, generate
        >>> model = nnheads.load("reference")
        >>> prompts = nnheads.ioi(model.tokenizer, 2)
        >>> silent = Intervention(Edit("z", Zero(), layer=1, units=(2,)))
        >>> written = generate(model, silent, prompts, new_tokens=3)
        >>> written.ids.shape, len(written.texts)
        ((2, 3), 2)
    """
    check_model(model, intervention, model_spec(model))
    _check_prompts(model, prompts, new_tokens)
    check_sources(intervention.sources, len(sources))
    for edit in intervention.edits:
        _check_last_step(edit, new_tokens)
        _check_path(edit)
        _check_serial(intervention, edit, new_tokens)
    warn_of_sources(model, intervention, prompts, sources)
    ready = prepared(model, intervention, prompts, sources, new_tokens)
    processors, seed = sampling(sample)
    options: WriteOptions = {
        "new_tokens": new_tokens,
        "ends": ends_of(model),
        "stops": [stop_at] if isinstance(stop_at, str) else [*stop_at],
        "processors": processors,
        "seed": seed,
        "keep": keep_logits,
    }
    plain, changed = _write(model, ready, options, original)
    return _labelled(model, plain, changed)


def _check_prompts(model: Any, prompts: xr.Dataset, new_tokens: int) -> None:
    """Refuse prompts that cannot be continued by so many tokens."""
    if new_tokens < 1:
        raise BadInput(f"{new_tokens} new tokens are not possible; ask for at least 1")
    check_tokens(real_tokens(prompts), model.config.get_text_config().vocab_size)
    if not prompts["mask"].values[:, -1].all():
        raise BadInput(
            "prompts are padded on the right; pad them on the left, so that all are continued at"
            " their end"
        )
    check_length(int(prompts["mask"].values.sum(1).max()) + new_tokens - 1, model.config)


def _check_last_step(edit: Edit, new_tokens: int) -> None:
    """Refuse steps that no forward reads."""
    steps = edit.at.values if edit.at.kind == "steps" else ()
    late = [step for step in steps if step > new_tokens - 2]
    if late:
        raise BadInput(
            f"step {late[0]} is read by no forward when {new_tokens} tokens are written; the"
            f" last one that is has number {new_tokens - 2}"
        )


def _check_path(edit: Edit) -> None:
    """Refuse the whole model: while it writes it gives the logits of one position."""
    if edit.path == "":
        raise BadInput("a model that writes has no outputs at every position; name a part of it")


def _check_serial(intervention: Intervention, edit: Edit, new_tokens: int) -> None:
    """Refuse steps of an edit that acts on a source, where nothing is written."""
    if intervention.mode != "serial" or not isinstance(edit.do, FromSource):
        return
    source = edit.do.source
    if source < intervention.sources - 1 and steps_of(edit.at, new_tokens):
        raise BadInput(
            f"in serial mode source {source} is put into source {source + 1}, where nothing is "
            f"written; position {edit.at.kind!r} is for the last source"
        )


def _write(
    model: Any, ready: Prepared, options: WriteOptions, original: bool
) -> tuple[dict | None, dict]:
    """Write without the edits (if asked for) and with them, in one session."""
    spec, inputs, edits, tensors = ready.spec, ready.inputs, ready.edits, ready.tensors
    source_runs = ready.sources
    with model.session(remote=remote_of(model)):
        known = features_of_sources(model, source_runs, spec, tensors)
        plain = save(write_on(model, inputs, [], {}, spec, {}, options) if original else None)
        changed = save(write_on(model, inputs, edits, known, spec, tensors, options))
    _check_unbroken(plain, "without edits")
    _check_unbroken(changed, "with these edits")
    return plain, changed


def _check_unbroken(written: dict | None, name: str) -> None:
    if written is not None and written["broken"]:
        raise RunError(
            f"{name} the model's predictions are not finite: broken weights, or too strong an edit"
        )


def _labelled(model: Any, plain: dict | None, changed: dict) -> Written:
    """Return what was written, with its texts."""
    ids = changed["ids"].numpy()
    before = None if plain is None else plain["ids"].numpy()
    return Written(
        ids=ids,
        texts=_texts(model, ids),
        logits=changed["logits"],
        original_ids=before,
        original_texts=None if before is None else _texts(model, before),
        original_logits=None if plain is None else plain["logits"],
        collected=_joined(changed["collected"], ids),
    )


def _texts(model: Any, ids: Int[np.ndarray, "row step"]) -> list[str]:
    return [model.tokenizer.decode(row[row >= 0].tolist()) for row in ids]


def _joined(
    forwards: list[dict], ids: Int[np.ndarray, "row step"]
) -> dict[str, Float[torch.Tensor, "row chosen feature"]]:
    """Return what the forwards collected, side by side; NaN where a row had ended."""
    parts: dict[str, list[torch.Tensor]] = {}
    for number, collected in enumerate(forwards):
        runs = _running(ids, number)
        for key, features in collected.items():
            there = torch.where(runs[:, None, None], features.cpu(), torch.nan)
            parts.setdefault(key, []).append(there)
    return {key: torch.cat(several, 1) for key, several in parts.items()}


def _running(ids: Int[np.ndarray, "row step"], number: int) -> torch.Tensor:
    """Return which rows a forward still reads: those after the first read what was written."""
    if number == 0:
        return torch.ones(len(ids), dtype=torch.bool)
    return torch.from_numpy(ids[:, number - 1] >= 0)
