"""Pairs of indirect-object sentences: their options, where they are from, and which ones are kept.

    pairs = pairs_of(study)
    kept, dropped = answered(study, run, pairs)  # only these are patched

A file or an endpoint without a usable sentence is refused; a model that answers none of the
prompts ends the run.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from nnheads.recipes._study import Study

from nnheads.errors import BadInput, RunError

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.runs.folder import Run

SHOWN_AS_ZERO = 5e-4  # below which a value is printed as zero
NO_PATH = "right; there is no path to follow"
REFERENCES = "Wang et al. 2022, arXiv 2211.00593"

Corruption = Annotated[str, typer.Option(help="other, random, abc or swapped.")]
PairsFile = Annotated[Path | None, typer.Option(help="Pairs made elsewhere: .jsonl or .csv.")]
Noising = Annotated[
    bool, typer.Option("--noising", help="Corrupted into clean instead of clean into corrupted.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Answers must be best of the whole vocabulary.")
]


def pairs_of(study: Study, spread: int = 0) -> xr.Dataset:
    """Return the pairs of `--prompts`, or sentences of our own (batch, position)."""
    from nnheads.prompts.ioi import ioi

    if study.prompts is not None:
        return pairs_in_file(study)
    options = {"corruption": study.corruption, "spread": spread}
    return ioi(study.model.tokenizer, study.limit, seed=study.seed, **options)


def pairs_in_file(study: Study) -> xr.Dataset:
    """Return the first `--limit` pairs of `--prompts` (batch, position)."""
    from nnheads.prompts.pair_files import read_pairs

    tokenizer, limit = study.model.tokenizer, study.limit
    pairs = read_pairs(study.prompts)
    beyond = Counter({"beyond --limit": max(0, len(pairs) - limit)})
    return well_formed(tokenizer, pairs[:limit], len(pairs), beyond)


def written_pairs(study: Study, run: Run) -> xr.Dataset:
    """Return pairs of what a model wrote for this run (batch, position).

    It is asked once for a run, because an endpoint need not repeat itself.
    """
    from nnheads.prompts.format import from_sentences

    path = run.folder / "sentences.json"
    sentences = sentences_of(study, path)
    pairs, dropped = from_sentences(sentences, study.corruption)
    prompts = well_formed(study.model.tokenizer, pairs, len(sentences), dropped)
    text = json.dumps(sentences, indent=1)
    run.keep(path.name, text)
    return prompts


def sentences_of(study: Study, path: Path) -> list[str]:
    """Return the sentences that a file keeps, or ask the writer for some."""
    from nnheads.prompts.writer import open_writer

    if path.exists():
        return json.loads(path.read_text())
    return open_writer(study.writer)(study.limit, study.seed)


def well_formed(tokenizer, pairs: list, asked: int, dropped: Counter) -> xr.Dataset:
    """Tokenize the pairs that have the form of the task, and count the others by their reasons.

    asked: how many sentences there were before any was left out.

    Raises:
        BadInput: none can be used.
    """
    from nnheads.prompts.format import keep_well_formed
    from nnheads.prompts.pairs import tokenize

    pairs, malformed = keep_well_formed(pairs)
    dropped = dropped + malformed
    if not pairs:
        raise BadInput(f"none of {asked} sentences can be used: {main_reason(dropped)}")
    prompts = tokenize(tokenizer, pairs)
    reasons = Counter(json.loads(prompts.attrs["dropped"])) + dropped
    return prompts.assign_attrs(asked=asked, dropped=json.dumps(dict(reasons)))


def main_reason(dropped: Counter) -> str:
    """Return why most sentences were dropped."""
    return dropped.most_common(1)[0][0] if dropped else "nothing was written"


def answered(
    study: Study, run: Run, pairs: xr.Dataset, *, strict: bool = False, both: bool = True
) -> tuple[xr.Dataset, dict[str, int]]:
    """Return the pairs that the model gets right, and how many were dropped for which reason.

    strict: the answer is the first choice of all tokens. both: right on the corrupted prompt too.

    Raises:
        RunError: none is right.
    """
    clean, corrupted = right_answers(study, run, pairs, strict)
    good = clean & corrupted if both else clean
    if not good.any():
        why = "right on both runs; nothing can be patched" if both else NO_PATH
        raise RunError(f"{study.name} answers none of {pairs.attrs['asked']} prompts {why}")
    counts = json.loads(pairs.attrs["dropped"])
    counts["wrong on the clean prompt"] = int((~clean).sum())
    counts["right on clean, wrong on the corrupted prompt"] = int((clean & ~good).sum())
    dropped = {reason: count for reason, count in counts.items() if count}
    return pairs.isel(batch=good.nonzero()[0]), dropped


def right_answers(study: Study, run: Run, pairs: xr.Dataset, strict: bool) -> tuple:
    """Return for which prompts the model is right [case], on the clean and the corrupted text."""
    import numpy as np

    from nnheads.models.answers import correct

    pool = np.unique(np.concatenate([pairs["answer"], pairs["wrong"]]))
    right = study.in_batches(
        run,
        lambda part: correct(run.model, part, candidates=pool, strict=strict),
        pairs,
        name="correct",
        title="answers",
    )
    return right["correct_clean"].values == 1, right["correct_corrupted"].values == 1


def about_pairs(
    run: Run, title: str, pairs: xr.Dataset, kept: xr.Dataset, dropped: dict, references: str
) -> dict[str, Any]:
    """Return what repeats a study of pairs, and how many of them it kept, as attributes."""
    about = run.about(title=title, prompts=pairs, references=references)
    counts = {"asked": pairs.attrs["asked"], "dropped": dropped, "kept": kept.sizes["batch"]}
    counts["word_form"] = pairs.attrs.get("word_form", "")
    return {**about, **counts}


def finish(run: Run, scores: xr.Dataset) -> None:
    """Mark a run of pairs complete, and record how many it kept."""
    run.finish(kept=int(scores.attrs["kept"]), asked=int(scores.attrs["asked"]))


def add_means(heads: xr.Dataset, scores: xr.Dataset, *names: str) -> None:
    """Add the mean over prompts (batch) of what is measured once a prompt."""
    for name in names:
        about = {**scores[name].attrs, "cell_methods": "batch: mean"}
        heads[name] = scores[name].mean("batch").assign_attrs(about)


def for_and_against(heads: xr.Dataset, top: int) -> tuple[list[dict], list[dict]]:
    """Return the strongest heads in both directions, of those whose interval leaves zero out."""
    from nnheads import stats

    heads = with_heads(heads)
    highest = stats.top_heads(heads, "effect", top)
    lowest = stats.top_heads(heads, "effect", top, lowest=True)
    return [one for one in highest if is_above(one)], [one for one in lowest if is_below(one)]


def large_and_unsure(heads: xr.Dataset, top: int) -> list[dict]:
    """Return the heads among the largest by size whose interval holds zero."""
    from nnheads import stats

    heads = with_heads(heads)
    largest = stats.top_heads(heads, "effect", top, by=abs(heads["effect"]))
    return [one for one in largest if one["low"] <= 0 <= one["high"]]


def is_above(head: dict) -> bool:
    """Say whether the value and its interval are above zero; one prompt has no interval (NaN)."""
    return head["value"] > SHOWN_AS_ZERO and not head["low"] <= 0


def is_below(head: dict) -> bool:
    """Say whether the value and its interval are below zero; one prompt has no interval (NaN)."""
    return head["value"] < -SHOWN_AS_ZERO and not head["high"] >= 0


def with_heads(heads: xr.Dataset) -> xr.Dataset:
    """Return what is said of key/value heads as if it were of heads (layer, head)."""
    return heads.rename(kv_head="head") if "kv_head" in heads.dims else heads


def letters_of(heads) -> str:
    """Return the letters of a head's name: KV where key/value heads are swapped."""
    return "KV" if "kv_head" in heads.dims else "H"
