"""What `nnheads steer` reads, and what it says on the terminal."""

from __future__ import annotations

import random
from pathlib import Path

from nnheads.recipes import _options as options

# said of nothing in particular, for models whose own world is the world
NEUTRAL = (
    "The train to the coast leaves at nine and arrives shortly before noon.",
    "She put the keys on the table and opened the window.",
    "Most of the houses in this street were built about a hundred years ago.",
    "To make the dough, mix the flour with water and let it rest for an hour.",
    "The committee will meet again on Thursday to discuss the budget.",
    "A river runs through the valley and turns north behind the hills.",
    "He wrote down the number, closed the notebook and went back to work.",
    "The museum shows paintings, maps and tools from three centuries.",
    "In winter the shop closes at five, in summer it stays open until seven.",
    "The bridge is long enough for two cars and a bicycle side by side.",
    "They planted beans, carrots and onions behind the house.",
    "The report has four chapters and a list of figures at the end.",
)
STATEMENTS, TEXTS, QUESTIONS, FILLER = (
    3,
    32,
    8,
    24,
)  # in a text; of each sort; as prompts; words of a neutral text
ENDS = {"effect": ("_low", "_high"), "random": ("_lowest", "_highest"), "kl": ("_low", "_high")}
WITH_INTERVAL = ("effect", "random")
SHOWN = 3  # prompts whose continuations are printed


def lines_of(path: Path) -> list[str]:
    """One text a line."""
    from nnheads.spans.lines import numbered_lines

    return [line.strip() for _, line in numbered_lines(path, "one text a line")]


def own_world(seed: int) -> dict[str, list[str]]:
    """Texts of the reference model's world: statements that are true, and statements that are
    popular mistakes. The questions asked as prompts stand in none of them."""
    from nnheads.prompts import world

    rng = random.Random(seed)
    disputed = [question for question in world.questions() if not question.truth_is_popular]
    rng.shuffle(disputed)
    asked, told = disputed[:QUESTIONS], disputed[QUESTIONS:]

    def statements(answer: str) -> str:
        text: list[str] = []
        for question in rng.sample(told, STATEMENTS):
            text += [
                *world.question_words(question.relation, question.subject),
                getattr(question, answer),
                ".",
            ]
        return " ".join(text)

    return {
        "toward": [statements("true") for _ in range(TEXTS)],
        "away": [statements("misconception") for _ in range(TEXTS)],
        "prompts": [question.text for question in asked],
        "neutral": [" ".join(world.filler(rng, FILLER)) for _ in range(TEXTS // 2)],
    }


def numbers_in(text: str) -> list[float]:
    """`0,1,2.5` -> [0.0, 1.0, 2.5], in order, with the 0 that all others are compared to."""
    from nnheads.errors import BadInput

    try:
        found = {float(piece) for piece in text.split(",")}
    except ValueError:
        found = set()
    if not found or not all(abs(number) < 1e6 for number in found):
        raise BadInput(f"--strength {text!r} is no list of numbers; write 0,1,2,4,8")
    return sorted({0.0, *found})


def report(run) -> None:
    """Where texts are told apart, effect against fluency, and what is written at each strength."""
    scores, curve = run.load("scores"), run.load("curve")
    if (run.folder / "directions.nc").is_file():
        say_layers(run.load("directions"), curve.attrs["layer"])
    told = (
        f"; of random: lowest and highest of {scores.sizes['draw']} draws"
        if "draw" in scores.sizes
        else ""
    )
    options.say(f"{curve.attrs['steering']}; in nats per token [95% interval{told}]")
    columns = [
        name for name in ("effect", "random", "projection", "kl", "perplexity") if name in curve
    ]
    widths = {name: 24 if name in WITH_INTERVAL else 10 for name in ("strength", *columns)}
    options.say("  " + "  ".join(f"{name:<{width}}" for name, width in widths.items()).rstrip())
    for strength in curve["strength"].values:
        cells = [
            f"{strength:<10g}",
            *(f"{_number(curve.sel(strength=strength), name):<{widths[name]}}" for name in columns),
        ]
        options.say("  " + "  ".join(cells).rstrip())
    for name in columns:
        options.say(f"{name}: {curve[name].attrs['long_name']}")
    for prompt in range(min(SHOWN, scores.sizes["prompt"])):
        one = scores.isel(prompt=prompt)
        options.say(f"{str(one['prompt_text'].values)!r}")
        for strength in scores["strength"].values:
            options.say(f"  {strength:>5g}  {str(one['written'].sel(strength=strength).values)!r}")
    names = ["scores.nc", "curve.nc", "curve.png", "directions.nc", "intervention"]
    for name in names:
        if (run.folder / name).exists():
            options.say(options.shown(run.folder / name))


def say_layers(found, chosen: int) -> None:
    options.say(
        "layer  separability of texts held out [q]   norm of the direction, of the activations"
    )
    for layer in found["layer"].values:
        one = found.sel(layer=layer)
        rest = one["auc"].dims
        auc, q_value = float(one["auc"].max(rest)), float(one["q_value"].min(rest))
        norms = [float((one[name] ** 2).sum(rest) ** 0.5) for name in ("norm", "typical")]
        mark = "  steered" if layer == chosen else ""
        options.say(
            f"  {int(layer):>3}  {auc:.3f} [{q_value:.1e}]   {norms[0]:.3g}, {norms[1]:.3g}{mark}"
        )


def _number(one, name: str) -> str:
    if name in WITH_INTERVAL:
        return options.with_interval(one, name, "+.3f", ENDS[name])
    value = float(one[name])
    return "-" if value != value else format(value, ".2f" if name == "perplexity" else "+.3f")
