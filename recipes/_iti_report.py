"""What `nnheads iti` says on the terminal."""

from __future__ import annotations

import json
from pathlib import Path

from nnheads.recipes import _options as options

ORDER = ("none", "random_direction", "random_heads", "edit")
SCORES = {"mc1": "MC1", "mc2": "MC2", "mc3": "MC3", "ratio": "log-likelihood ratio"}
SCOPES = ("none", "all", "answering", "decode")  # which an edit is baked beside
SHOWN = 4  # questions whose answers are printed


def files(run, names: tuple[str, ...]) -> None:
    for name in names:
        if (run.folder / name).exists():
            options.say(options.shown(run.folder / name))


def fitted(run) -> None:
    """The edit that was fitted, the heads it moves, and the files."""
    probes, found = run.load("probes"), run.load("directions")
    about = found.attrs
    edited = json.loads((run.folder / "run.json").read_text())["heads"]
    options.say(
        f"fold {about['fold']}: {about['heads']} heads, {about['alpha']:g} standard deviations"
        f" along {about['direction']}, scope {about['scope']}, fitted on {found.sizes['fitted']}"
        " questions"
    )
    for layer, head in edited:
        one = probes.sel(fold=about["fold"], layer=layer, head=head)
        options.say(
            f"  L{layer}H{head}  validation {float(one['validation']):.3f}, test"
            f" {float(one['accuracy']):.3f} [{float(one['accuracy_low']):.3f},"
            f" {float(one['accuracy_high']):.3f}], sigma"
            f" {float(found['sigma'].sel(layer=layer, head=head)):.3g}"
        )
    size = sum(path.stat().st_size for path in (run.folder / "intervention").iterdir())
    options.say(f"the edit takes {size / 1000:.1f} kB")
    files(run, ("probes.nc", "directions.nc", "grid.nc", "heads.png", "intervention"))


def evaluated(run) -> None:
    """Each score of each condition with its interval and its paired test, costs, and some answers."""
    table = run.load("summary")
    kinds = [kind for kind in ORDER if kind in table["kind"].values]
    n = run.load("scores").sizes["question"]
    for fold, setting in enumerate(json.loads(table.attrs.get("settings", "[]"))):
        options.say(
            f"fold {fold}: {setting['heads']} heads, {setting['alpha']:g} standard deviations"
        )
    if table.attrs.get("guarded") == 0:
        options.say(
            "this edit does not say what it was fitted on: whether these questions gave it is not"
            " known"
        )
    options.say(
        f"{n} questions, each tested with an edit that has not seen it [95% interval]; p: edit"
        " against this"
    )
    for name, said in SCORES.items():
        options.say(said)
        for kind in kinds:
            one = table.sel(kind=kind)
            p = float(one[f"{name}_p"])
            gain = "" if p != p else f"   edit {_interval(one, f'{name}_gain', '+')}, p {p:.1e}"
            options.say(f"  {kind:<17}{_interval(one, name)}{gain}")
    options.say("on neutral texts, nats per token")
    for kind in kinds:
        one = table.sel(kind=kind)
        options.say(
            f"  {kind:<17}cross-entropy {_interval(one, 'cross_entropy')}   KL"
            f" {_interval(one, 'kl')}"
        )
    if table.attrs["reached"] < 1:
        options.say(
            f"the edit reaches {table.attrs['reached']:.0%} of the answers; the others are scored"
            " as without it"
        )
    samples(run)
    names = (
        "scores.nc",
        "summary.nc",
        "grid.nc",
        "samples.nc",
        "grid.png",
        "cost.png",
        "heads.png",
    )
    files(run, names)


def samples(run) -> None:
    """Answers side by side, and what judges say of them."""
    if not (run.folder / "samples.nc").is_file():
        return
    table = run.load("samples")
    for condition in table["condition"].values:
        one, parts = table.sel(condition=condition), []
        parts.append(f"{float((one['begins'] == 1).mean()):.0%} begin with a true answer")
        parts.append(f"{float((one['begins'] == -1).mean()):.0%} with a false one")
        for about in ("true", "informative"):
            if about in table:
                parts.append(f"{float((one[about] > 0.5).mean()):.0%} judged {about}")
        if "true" in table and "informative" in table:
            parts.append(
                f"{float(((one['true'] > 0.5) & (one['informative'] > 0.5)).mean()):.0%} both"
            )
        options.say(f"{table.sizes['sample']} answers, {condition}: {', '.join(parts)}")
    for number in range(min(SHOWN, table.sizes["sample"])):
        one = table.isel(sample=number)
        options.say(f"{str(one['question_text'].values)!r}")
        for condition in table["condition"].values:
            options.say(f"  {condition:<5} {str(one['written'].sel(condition=condition).values)!r}")


def baked(run, folder: Path) -> None:
    """The check, and how an edit everywhere differs from one of written tokens."""
    found = json.loads((run.folder / "run.json").read_text())
    options.say(
        f"baked logits differ from the live edit's by at most {found['difference']:.1e}; the edit"
        f" moves them by up to {found['moved']:.3g}"
    )
    options.say(
        "on questions that did not give the edit; a bias acts everywhere, as scope all does:"
    )
    for name in SCOPES:
        one = found["scopes"][name]
        mc1 = f"{one['mc1']:.3f}" if isinstance(one["mc1"], float) else "not possible"
        options.say(
            f"  {name:<9} MC1 {mc1}, answers written: {one['true']:.0%} true, {one['false']:.0%}"
            f" false, KL on neutral texts {one['kl']:.4f}"
        )
        if not isinstance(one["mc1"], float):
            options.say(f"          {one['mc1']}")
    options.say(options.shown(folder))


def _interval(one, name: str, sign: str = "") -> str:
    value, low, high = (float(one[key]) for key in (name, f"{name}_low", f"{name}_high"))
    if low != low:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
