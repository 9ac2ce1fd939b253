"""Draw and print what `nnheads circuit` found."""

from __future__ import annotations

from nnheads.recipes._terminal import (
    FEW,
    say,
    say_files,
    say_heads,
    say_values,
    say_word_form,
    with_interval,
)

FILES = ("scores.nc", "circuit.nc", "heads.nc", "curve.png", "curve_log.png")


def draw(run, circuit) -> None:
    """Draw the curve, over the share of heads and its logarithm, with the circuit as a point.

    A share that is less than one head is no circuit and is not drawn.
    """
    from nnheads import plot

    words = "share of the model's heads, in the order of the ranking"
    share = circuit["size"].assign_attrs(long_name=words)
    names = ("curve", "curve_low", "curve_high")
    some = circuit["heads"].values > 0
    curve = tuple(circuit[name].assign_coords(size=share)[some] for name in names)
    inside = size_of(circuit)
    point = (inside / int(circuit.attrs["heads_of_model"]), float(circuit["recovered"]))
    for name, suffix in (("curve", ""), ("curve_log", "_log")):
        cpr, cmd = (float(circuit[f"{area}{suffix}"]) for area in ("cpr", "cmd"))
        figure = plot.curves(
            {"first heads of the ranking": curve},
            title=f"What circuits recover, by size: CPR {cpr:.3f}, CMD {cmd:.3f}",
            points={f"the circuit, {inside} heads": point},
            log=bool(suffix),
            note=plot.note(circuit, int(circuit.attrs["cases"])),
        )
        run.picture(name, figure)


def size_of(circuit) -> int:
    """Return how many heads the circuit has."""
    return len(str(circuit.attrs["circuit"]).split())


def report(run) -> None:
    """Print what the circuit keeps, what it lacks, each head's part, and where the files are."""
    circuit, heads = run.load("circuit"), run.load("heads")
    say_word_form(circuit.attrs)
    say_faithfulness(circuit, heads)
    say_completeness(circuit)
    say_minimality(heads, size_of(circuit))
    recovered = with_interval(circuit, "recovered")
    say(f"recovered (F(C)-F(none))/(F(M)-F(none)), which the curves draw: {recovered}")
    say(f"curve over the share of heads: {areas(circuit, '')}")
    say(f"  over its logarithm, of length 1: {areas(circuit, '_log')}")
    say_files(run, *FILES)


def areas(circuit, end: str) -> str:
    """Return the areas below the curve and between it and the model."""
    return f"CPR {with_interval(circuit, f'cpr{end}')}, CMD {with_interval(circuit, f'cmd{end}')}"


def say_faithfulness(circuit, heads) -> None:
    """Print F of the model, the circuit, no head and random circuits, and who works against it."""
    inside = size_of(circuit)
    say_size(circuit, inside)
    against = opponents(heads)
    if against:
        say(f"  against the answer, by the ranking: {', '.join(against)}")
    if "helpers" in circuit:
        helpers = with_interval(circuit, "helpers")
        say(f"  the {inside} heads that help most (--signed): {helpers}")
    say_random(circuit["random"], inside, float(circuit["faithfulness"]))


def say_random(values, inside: int, faithfulness: float) -> None:
    """Print the faithfulness of random circuits of the same size, and whether it is as high."""
    mean, highest, draws = float(values.mean()), float(values.max()), values.size
    sizes = f"F(C)/F(M) mean {mean:.3f}, highest {highest:.3f} ({draws} draws)"
    more = ": random circuits do as well" if highest >= faithfulness else ""
    say(f"  random circuits of {inside} heads: {sizes}{more}")


def say_size(circuit, inside: int) -> None:
    """Print how large the circuit is, and F of the model, the circuit and no head."""
    names = ("model", "circuit", "empty", "faithfulness", "gap")
    model, own, empty, faithfulness, gap = (with_interval(circuit, name) for name in names)
    total, cases = circuit.attrs["heads_of_model"], circuit.attrs["cases"]
    few = "; these are few: intervals over them are rough (--limit)" if int(cases) < FEW else ""
    say(f"circuit: {inside} of {total} heads, {cases} prompts{few}")
    say(f"mean logit difference: model {model}, circuit {own}, no head {empty}")
    open_ = " (below 0: which is larger is open)" if float(circuit["gap_low"]) < 0 else ""
    say(f"faithfulness F(C)/F(M): {faithfulness}; |F(M) - F(C)|: {gap}{open_}")


def opponents(heads) -> list[str]:
    """Return the circuit's heads that work against the answer, beyond chance where it is known."""
    from nnheads.models.names import head_name

    highest = heads.get("ranking_high", heads["ranking"])
    below = (heads["in_circuit"] == 1) & (highest < 0)
    places = zip(*below.transpose("layer", "head").values.nonzero())
    return [head_name(int(layer), int(head)) for layer, head in places]


def say_completeness(circuit) -> None:
    """Print the subset K whose removal shows most that the circuit lacks."""
    worst = int(circuit["incompleteness"].values.argmax())
    value = with_interval(circuit.isel(cut=worst), "incompleteness")
    say(
        f"incompleteness |F(M without K) - F(C without K)|, in logits, 0 where the circuit lacks"
        f" nothing; largest of {circuit.sizes['cut']} subsets K: {value}"
    )
    say(f"  K = {circuit['cut_heads'].values[worst]} ({circuit['cut_kind'].values[worst]})")


def say_minimality(heads, inside: int) -> None:
    """Print how much each head of the circuit adds to it."""
    from nnheads import stats

    best = stats.top_heads(heads, "minimality", inside)
    title = "minimality of each head, relative to F(M)"
    if best[0]["low"] == best[0]["low"]:
        below = any(head["low"] < 0 for head in best)
        way = "; an end below 0 leaves open which way the head changes it" if below else ""
        say_heads(f"{title} [95% interval{way}]:", best)
    else:
        say(f"{title} [no interval: one prompt]:")
        say_values(best)
