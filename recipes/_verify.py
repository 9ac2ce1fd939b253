"""What `nnheads verify` measures: each run that claims ask for, once, and every claim's verdict."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.recipes._verify_table import judged

from nnheads.errors import BadInput, RunError

if TYPE_CHECKING:
    import xarray as xr
    from nnheads.recipes._study import Study

    from nnheads.claims.claim import Claim, Claims
    from nnheads.runs.folder import Run

RECORDED = ("seed", "dtype", "quantization", "remote", "revision")  # options that change a number
WITHOUT_MODEL = "files"  # in place of the revision, for claims about files alone


@dataclass(frozen=True, eq=False)
class Check:
    """A run, the published claims, and those of them that are measured."""

    study: Study
    run: Run
    published: Claims
    chosen: list[Claim]


def chosen(claims: tuple[Claim, ...], only: str | None) -> list[Claim]:
    """Return the claims that --only names, and those that they require."""
    if only is None:
        return list(claims)
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    wanted = {one.id for one in claims if any(word in text_of(one) for word in words)}
    if not wanted:
        raise BadInput(f"--only {only!r} names no claim; see --list")
    needs = {one.id: one.requires for one in claims}
    while more := {needs[name] for name in wanted} - {"", *wanted}:
        wanted |= more
    return [one for one in claims if one.id in wanted]


def reads_attention(claims: tuple[Claim, ...]) -> bool:
    """Return whether some claims only read attention, which takes a moment."""
    return any(one.how["measure"] == "detect" for one in claims)


def text_of(claim: Claim) -> str:
    """Return what `--only` looks at."""
    return f"{claim.id} {claim.how['measure']}".lower()


def opened(study: Study, published: Claims, chosen: list[Claim]) -> Check:
    """Open the run of these claims; the model is loaded if one of them needs it."""
    from nnheads.claims.measures import NO_MODEL
    from nnheads.runs.folder import Run

    facts = facts_of(study, published, chosen)
    item = item_name(study.claims, study.only)
    if any(claim.how["measure"] not in NO_MODEL for claim in chosen):
        who = {"model": study.identity["model"], "weights": study.identity["commit"]}
        return Check(study, study.open_as({**facts, **who}, item), published, chosen)
    facts |= {"model": study.name.replace("/", "--"), "weights": ""}
    run = Run(
        study.output,
        study.recipe,
        study.name,
        WITHOUT_MODEL,
        facts,
        item=item,
        overwrite=study.overwrite,
    )
    return Check(study, run, published, chosen)


def facts_of(study: Study, published: Claims, chosen: list[Claim]) -> dict[str, Any]:
    """Return what identifies the run, whatever the model is."""
    names = None if study.files is None else sorted(one.name for one in study.files.iterdir())
    options = {name: study.arguments[name] for name in RECORDED}
    return {**options, "claims": digest(published, chosen), "files": names}


def digest(published: Claims, chosen: list[Claim]) -> str:
    """Return what was claimed, in a hash."""
    grids = sorted((name, grid.tolist()) for name, grid in published.grids.items())
    return hashlib.sha256(repr([chosen, grids]).encode()).hexdigest()


def item_name(claims: Path | None, only: str | None) -> str:
    """Return a folder of its own for claims of one's own, and for some of them."""
    from nnheads.runs.folder import item_of

    words = [] if claims is None else [claims.stem]
    return item_of(*words, only or "") if words or only else ""


def compute(check: Check) -> None:
    """Measure, judge, save; every measurement that is done is kept until all are."""

    run, published = check.run, check.published
    table = judged(check.chosen, measurements(check), published.grids)
    table.attrs = {**about(check), "note": published.note}
    run.save(claims=table)
    record = {"model": published.model, "claims": rows_of(table)}
    text = json.dumps(record, indent=1) + "\n"
    run.keep("verify.json", text)
    run.files.append("verify.json")
    run.finish()


def measurements(check: Check) -> dict[str, xr.Dataset | str]:
    """Measure what claims ask for, each once: request (JSON) -> result, or why there is none."""
    from nnheads.claims.measures import Setting
    from nnheads.runs.progress import progress

    study = check.study
    setting = Setting(study.batch_size, study.seed, True, study.files)
    requests = list(dict.fromkeys(one.run for one in check.chosen))
    results = {}
    with progress("runs", len(requests), study.quiet) as advance:
        for text in requests:
            results[text] = measured(check.run, json.loads(text), setting)
            advance(1)
    return results


def measured(run: Run, request: dict[str, Any], setting: Any) -> xr.Dataset | str:
    """Return a measurement, from the run's folder where it is there; or why it cannot be made."""
    from nnheads.claims.measures import Unavailable, measure
    from nnheads.runs import store

    name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
    path = run.parts / f"{name}.nc"
    kept = store.kept(path, name)
    if kept is not None:
        return kept
    try:
        found = measure(run.model, request, setting)
    except Unavailable as error:
        return f"skip: {error}"
    except (BadInput, RunError) as error:
        return f"fail: {error}"
    store.keep(path, found, name)
    return found


def about(check: Check) -> dict[str, Any]:
    """Return what repeats the result, which for claims about files alone is without a model."""
    from datetime import UTC, datetime

    from nnheads.runs.provenance import command, versions

    run, model = check.run, check.published.model
    if run.model is not None:
        return run.about(
            title=f"claims about {model}",
            prompts=run.facts["claims"],
            references="see source of each claim",
            sample_dims="claim",
        )
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = {
        "arguments": dict(run.arguments),
        "source": {"model": model},
        "packages": versions(),
    }
    texts = {name: json.dumps(value, sort_keys=True) for name, value in made.items()}
    return {"title": f"claims about files of {model}", "history": f"{now} {command()}", **texts}


def rows_of(table: xr.Dataset) -> list[dict[str, Any]]:
    """Return a table (claim) as JSON knows it, a dict a claim."""
    return [
        {str(name): plain(table[name].values[row]) for name in table.variables}
        for row in range(table.sizes["claim"])
    ]


def plain(value: Any) -> Any:
    """Return a number or text as JSON knows it; what is not a number is null."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and value != value else value
