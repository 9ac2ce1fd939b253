"""The edit that a command of `nnheads iti` acts on, and what is written with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.recipes import _iti, _iti_questions, _steer
from nnheads.recipes._checks import check_at_least
from nnheads.recipes._terminal import say, shown

from nnheads.errors import BadInput

if TYPE_CHECKING:
    from nnheads.recipes._study import Study

    from nnheads.interventions.schema import Intervention


def identity_of(change: Intervention) -> str:
    """Return a short name for what an edit says."""
    tensors = [(name, tensor.tolist()) for name, tensor in sorted(change.tensors.items())]
    return _iti_questions.digest(change.edits, tensors)[:8]


def edit_of(study: Study, fit: Study) -> tuple[Intervention, str]:
    """Return the edit that was named, or the one that `iti fit` saved here, and where it is.

    fit: the fit without options, which is made first for the reference if it is not there.
    """
    from nnheads.recipes._iti_fit import fitted

    from nnheads.interventions.files import JSON_NAME, load
    from nnheads.models.shipped import REFERENCE

    if study.intervention is not None:
        return load(study.intervention), study.intervention
    folder = folder_of(study, "fit") / "intervention"
    if not (folder / JSON_NAME).is_file():
        if study.name != REFERENCE:
            raise BadInput(
                f"no edit of {study.name} in {shown(folder.parent)}; run nnheads iti fit first, or"
                " name one with --intervention"
            )
        fitted(fit)
    return load(folder), shown(folder)


def folder_of(study: Study, item: str) -> Path:
    """Return where this model's results of a kind are, without loading it."""
    from nnheads.models.shipped import REFERENCE
    from nnheads.runs.provenance import model_folder

    name = study.name
    local = "local" if Path(name).expanduser().is_dir() else "main"
    revision = "shipped" if name == REFERENCE else study.revision or local
    return Path(study.output) / "iti" / model_folder(name) / revision.replace("/", "--") / item


def generated(study: Study, fit: Study) -> None:
    """Write with and without the edit, and print both."""
    from nnheads.interventions.generate import generate
    from nnheads.interventions.sampling import sampling
    from nnheads.interventions.texts import read_texts

    check_at_least(1, new_tokens=study.new_tokens)
    sample = _steer.sample_of(study.arguments)
    sampling(sample)
    named = named_prompts(study)
    change, place = edit_of(study, fit)
    texts = unseen_prompts(study, change) if named is None else named
    model = study.model
    new = generate(
        model,
        change,
        read_texts(model.tokenizer, texts),
        new_tokens=study.new_tokens,
        sample=sample,
    )
    say(f"edit: {place}")
    for text, before, after in zip(texts, new.original_texts or (), new.texts):
        say(f"{text!r}")
        say(f"  without  {before!r}")
        say(f"  with     {after!r}")


def named_prompts(study: Study) -> list[str] | None:
    """Return what `--prompt` or `--prompts` names; None for neither."""
    _steer.check_prompts(study.arguments)
    if study.prompts is not None:
        return _steer.lines_of(study.prompts)
    return None if study.prompt is None else [study.prompt]


def unseen_prompts(study: Study, change: Intervention) -> list[str]:
    """Return questions of the reference model on which the edit was not fitted."""
    from nnheads.models.shipped import REFERENCE
    from nnheads.prompts.truth import read_questions

    if study.name != REFERENCE:
        raise BadInput("--prompt or --prompts is needed: what the model continues")
    texts = [one.question for one in read_questions(REFERENCE)[0]]
    free = [texts[number] for number in unseen(texts, change)]
    return free[:: max(1, len(free) // _iti.SAMPLES)][: _iti.SAMPLES]


def unseen(texts: list[str], change: Intervention) -> list[int]:
    """Return numbers of the questions on which an edit was not fitted, as far as it says."""
    from nnheads.truth.directions import fitted_on, question_ids

    seen: Any = fitted_on(change)
    ids = question_ids(texts)
    return [number for number, one in enumerate(ids) if seen is None or one not in seen]
