"""Does a model show what has been published about it?

Claims, measured again: pass, warn or fail.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from nnheads.recipes import _options as options

from nnheads.errors import BadInput

WORDS = ("pass", "warn", "FAIL", "skip")


def main(
    model: options.Model = "reference",
    claims: Annotated[
        Path | None, typer.Option(help="A file of claims; default: the one that ships for MODEL.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Only claims with one of these words in id or measure: copy,9.9,detect."),
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Folder of published files that some claims are about."),
    ] = None,
    listing: Annotated[
        bool, typer.Option("--list", help="Say what is claimed, and measure nothing.")
    ] = False,
    batch_size: options.BatchSize = 8,
    seed: options.Seed = 0,
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
    """Does a model show what has been published about it?

    Each claim has a source, a published number and a tolerance; negative claims say that something
    is not so. Claims
    that ask for the same run share it. They are data: --claims takes a file of your own. Writes
        claims.nc (claim) and
    verify.json. Exit code 1 if a claim fails; claims whose files or data are not here, or that
    require another one that does not pass, are skipped, and said to be.
    """
    arguments = dict(locals())
    from nnheads.claims.claim_files import claims_of, read_claims
    from nnheads.claims.measures import NO_MODEL
    from nnheads.runs.folder import Run
    from nnheads.runs.provenance import model_identity

    options.positive(batch_size=batch_size)
    given = claims_of(model) if claims is None else read_claims(claims)
    asked = chosen(given.claims, only)
    if listing:
        say_list(given, asked)
        return
    where = options.remote_of(remote)
    if files is not None and not files.is_dir():
        raise BadInput(f"no folder {str(files)!r}; --files names one with published files")
    loaded, identity = None, {"model": model.replace("/", "--"), "revision": "files", "commit": ""}
    if any(claim.how["measure"] not in NO_MODEL for claim in asked):
        loaded = options.load(model, revision, dtype, device_map, where, quantization)
        identity = model_identity(loaded, model)
    facts = {key: arguments[key] for key in ("seed", "dtype", "quantization", "remote", "revision")}
    facts |= {
        "model": identity["model"],
        "weights": identity["commit"],
        "claims": digest(given, asked),
    }
    facts |= {"files": None if files is None else sorted(one.name for one in files.iterdir())}
    run = Run(
        output,
        "verify",
        model,
        identity["revision"],
        facts,
        item=item(claims, only),
        overwrite=overwrite,
    )
    if loaded is not None:
        run.jobs_of(loaded)
    if not run.complete:
        compute(run, loaded, given, asked, arguments)
    report(run)


def chosen(claims: tuple, only: str | None) -> list:
    """The claims that --only names, and those that they require."""
    if only is None:
        return list(claims)
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    found = [
        one
        for one in claims
        if any(word in f"{one.id} {one.how['measure']}".lower() for word in words)
    ]
    if not found:
        raise BadInput(f"--only {only!r} names no claim; see --list")
    wanted, needs = {one.id for one in found}, {one.id: one.requires for one in claims}
    while more := {needs[name] for name in wanted} - {"", *wanted}:
        wanted |= more
    return [one for one in claims if one.id in wanted]


def digest(given, asked: list) -> str:
    """What was claimed, in a hash."""
    import hashlib

    text = repr([asked, sorted((name, grid.tolist()) for name, grid in given.grids.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def item(claims: Path | None, only: str | None) -> str:
    """A folder of its own for claims of one's own, and for some of them."""
    from nnheads.runs.folder import item_of

    words = [] if claims is None else [claims.stem]
    return item_of(*words, only or "") if words or only else ""


def say_list(given, asked: list) -> None:
    from nnheads.claims.claim import KINDS

    options.say(
        f"{len(asked)} claims about {given.model}" + (f": {given.note}" if given.note else "")
    )
    for one in asked:
        sign = "not so: " if one.negative else ""
        told = (
            f"{one.how['measure']}; requires {one.requires}" if one.requires else one.how["measure"]
        )
        options.say(f"  {one.id}: {sign}{one.claim} ({KINDS[one.kind]} {one.published:g}; {told})")
        options.say(f"    {one.source}")


def compute(run, model, given, asked: list, arguments: dict) -> None:
    """Measure, judge, save; every finished run is kept until all are."""
    import xarray as xr

    from nnheads.claims.measures import Setting
    from nnheads.runs import batches, store

    setting = Setting(arguments["batch_size"], arguments["seed"], True, arguments["files"])
    runs = list(dict.fromkeys(one.run for one in asked))
    found: dict[str, xr.Dataset | str] = {}
    with batches.progress("runs", len(runs), arguments["quiet"]) as advance:
        for text in runs:
            found[text] = one_run(run, model, json.loads(text), setting)
            advance(1)
    table = judged(asked, found, given.grids)
    table.attrs = {**origin(run, model, given, arguments), "note": given.note}
    run.save(claims=table)
    rows = [
        {name: plain(table[name].values[place]) for name in table.variables}
        for place in range(len(asked))
    ]
    text = json.dumps({"model": given.model, "claims": rows}, indent=1) + "\n"
    store.write(run.folder / "verify.json", lambda path: path.write_text(text))
    run.files.append("verify.json")
    run.finish()


def one_run(run, model, how: dict, setting):
    """A measurement, from the run's folder where it is there; or why it cannot be made."""
    import hashlib

    from nnheads.claims.measures import Unavailable, measure
    from nnheads.errors import RunError
    from nnheads.runs import store

    keep = (
        run.parts
        / f"{hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:16]}.nc"
    )
    if keep.exists():
        return store.load(keep)
    try:
        found = measure(model, how, setting)
    except Unavailable as error:
        return f"skip: {error}"
    except (BadInput, RunError) as error:
        return f"fail: {error}"
    store.save(keep, found)
    return found


def judged(asked: list, found: dict, grids: dict):
    """Every claim with its number and its verdict."""
    import numpy as np
    import xarray as xr

    from nnheads.claims.values import value_of
    from nnheads.claims.verdicts import FAIL, SKIP, VERDICTS, unmet, verdict

    measured, verdicts, reasons = [], [], []
    for claim in asked:
        own, value, reason = found[claim.run], float("nan"), ""
        if isinstance(own, str):
            word, _, reason = own.partition(": ")
            verdicts.append(SKIP if word == SKIP else FAIL)
        else:
            try:
                value = value_of(claim, own, grids)
                reason = "" if np.isfinite(value) else "not a number"
            except BadInput as error:
                reason = str(error)
            verdicts.append(verdict(claim, value))
        measured.append(value)
        reasons.append(reason)
    claims, words = {one.id: one for one in asked}, dict(zip([one.id for one in asked], verdicts))
    for place, claim in enumerate(asked):
        if why := unmet(claim, claims, words):
            verdicts[place], reasons[place] = SKIP, why
    numbers = {
        "measured": (measured, "the number that was measured"),
        "published": ([one.published for one in asked], "the number that was published"),
        "tolerance": ([one.tolerance for one in asked], "how far off passes"),
        "warn": ([one.warn for one in asked], "how far off is only a warning"),
    }
    table = xr.Dataset(
        {
            name: (
                "claim",
                np.array(values, "float32"),
                {"long_name": text, "units": "1", "source": "see source"},
            )
            for name, (values, text) in numbers.items()
        }
    )
    codes = np.array([VERDICTS.index(one) for one in verdicts], "int8")
    meaning = {
        "flag_values": np.arange(len(VERDICTS), dtype="int8"),
        "flag_meanings": " ".join(VERDICTS),
    }
    table["verdict"] = (
        "claim",
        codes,
        {"long_name": "verdict", "units": "1", "source": "nnheads", **meaning},
    )
    table["negative"] = (
        "claim",
        np.array([one.negative for one in asked], "int8"),
        {"long_name": "a negative claim", "units": "1", "source": "see source"},
    )
    texts = {
        "claim": [one.id for one in asked],
        "said": [one.claim for one in asked],
        "reason": reasons,
        "source": [one.source for one in asked],
        "kind": [one.kind for one in asked],
        "requires": [one.requires for one in asked],
    }
    return table.assign_coords(
        {name: ("claim", np.array(values, dtype=str)) for name, values in texts.items()}
    )


def origin(run, model, given, arguments: dict) -> dict:
    """Provenance, which for claims about files alone is without a model."""
    from datetime import UTC, datetime

    from nnheads.runs.provenance import command, provenance, versions

    facts = dict(run.arguments)
    if model is not None:
        return provenance(
            title=f"claims about {given.model}",
            model=model,
            name=arguments["model"],
            prompts=facts["claims"],
            arguments=facts,
            references="see source of each claim",
            sample_dims="claim",
        )
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"title": f"claims about files of {given.model}", "history": f"{now} {command()}"}
    made = {"arguments": facts, "source": {"model": given.model}, "packages": versions()}
    return about | {name: json.dumps(value, sort_keys=True) for name, value in made.items()}


def plain(value):
    """A number or text as JSON knows it; what is not a number is null."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and value != value else value


def report(run) -> None:
    """The table, and in the exit code whether a claim fails."""
    from nnheads.claims.claim import KINDS
    from nnheads.claims.verdicts import FAIL, VERDICTS
    from nnheads.errors import RunError

    table = run.load("claims")
    width = max(len(str(name)) for name in table["said"].values)
    verdicts = [VERDICTS[code] for code in table["verdict"].values]
    options.say(f"      {'claim':<{width + 5}}  measured  published  source")
    for place, word in enumerate(verdicts):
        one = table.isel(claim=place)
        shown = (
            "      -"
            if float(one["measured"]) != float(one["measured"])
            else f"{float(one['measured']):7.3f}"
        )
        sign = KINDS[str(one["kind"].values)]
        said = f"{'not: ' if int(one['negative']) else ''}{one['said'].values}"
        options.say(
            f"{WORDS[VERDICTS.index(word)]}  {said:<{width + 5}} {shown:>8}  {sign:<2}"
            f" {float(one['published']):<7.4g}  {one['source'].values}"
        )
        if str(one["reason"].values):
            options.say(f"      {one['reason'].values}")
    counts = {word: verdicts.count(word) for word in VERDICTS if word in verdicts}
    options.say(", ".join(f"{count} {word}" for word, count in counts.items()))
    for name in ("claims.nc", "verify.json"):
        options.say(options.shown(run.folder / name))
    if FAIL in counts:
        raise RunError(f"{counts[FAIL]} of {len(verdicts)} claims fail")
