"""The published forms of TruthfulQA and of sets like it, as plain records.

    records = records_of("TruthfulQA.csv")   # or mc_task.json, JSON lines, "owner/name" on the Hub

CSV: a header with Question, Best Answer, Correct Answers, Incorrect Answers and perhaps Category;
answers are separated by semicolons. The first version (817 questions) and the second (790, with a
column Best Incorrect Answer) differ only in columns that are not needed.
mc_task.json: a list of {question, mc1_targets, mc2_targets}, each from answer to 0 or 1; the oldest
has mc0_targets besides.
JSON lines: one question each, in either form. Hub: rows of either form.

A row that does not fit is refused with BadInput, which names it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from nnheads.errors import BadInput, first_line, no_file
from nnheads.prompts.checks import encodable, text_field
from nnheads.prompts.questions import Question
from nnheads.spans.lines import numbered_lines

COLUMNS = ("Question", "Best Answer", "Correct Answers", "Incorrect Answers")
SEPARATOR = ";"
FORMS = "a TruthfulQA CSV, mc_task.json, JSON lines, a Hub data set owner/name, or reference"
EXPECTED = "expected an object with question, true, false, best"
TRUE = ("true", "correct_answers")
FALSE = ("false", "incorrect_answers")
BEST = ("best", "best_answer")
# names under which other programs know the two configurations of the set on the Hub
SHORT = {
    "tqa_mc2": "truthfulqa/truthful_qa:multiple_choice",
    "tqa_gen": "truthfulqa/truthful_qa:generation",
}
ON_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
SUFFIXES = {".csv", ".json", ".jsonl"}


def records_of(source: str | Path) -> list[Question]:
    """Return what a source says, as it says it: answers may be empty, or come twice.

    Raises BadInput that names the row.
    """
    path, name = Path(source), SHORT.get(str(source), str(source))
    if path.is_file():
        return _table(path) if path.suffix.lower() == ".csv" else _json(path)
    if ON_HUB.fullmatch(name) and path.suffix.lower() not in SUFFIXES:
        return _hub(*name.partition(":")[::2])
    raise BadInput(f"{no_file(source)}; expected {FORMS}")


def _table(path: Path) -> list[Question]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not a text file in UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        return list(_rows(reader, path))
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _rows(reader: csv.DictReader, path: Path) -> Iterator[Question]:
    """Yield the questions of a table; its header may have blanks around names."""
    names = [name.strip() for name in reader.fieldnames or []]
    if not names:
        raise BadInput(f"{path} is empty; expected {FORMS}")
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise BadInput(
            f"{path}, line 1: the header names no {missing[0]!r}; expected {', '.join(COLUMNS)}"
        )
    reader.fieldnames = names
    for row in reader:
        question, best, true, false = (row.get(name) or "" for name in COLUMNS)
        if not question.strip():
            raise BadInput(f"{path}, line {reader.line_num}: the question is empty")
        category = (row.get("Category") or "").strip()
        yield Question(question.strip(), _split(true), _split(false), best.strip(), category)


def _split(answers: str) -> tuple[str, ...]:
    """Return the answers of one cell; what follows the last separator may be nothing."""
    pieces = [piece.strip() for piece in answers.split(SEPARATOR)]
    return tuple(pieces if pieces[-1] else pieces[:-1])


def _json(path: Path) -> list[Question]:
    lines = numbered_lines(path, FORMS)
    if lines[0][1].lstrip().startswith("["):
        return _list(path, "\n".join(line for _, line in lines))
    return [record_of(_object(where, line), where) for where, line in lines]


def _list(path: Path, text: str) -> list[Question]:
    try:
        records = json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput(f"{path} is not JSON, but begins as a list does") from None
    return [record_of(one, f"{path}, entry {number}") for number, one in enumerate(records, 1)]


def _object(where: str, line: str) -> object:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise BadInput(f"{where}: not JSON; {EXPECTED}") from None


def record_of(record: object, where: str) -> Question:
    """Return one question of a JSON file or the Hub; `where` says where it stands."""
    if not isinstance(record, dict):
        raise BadInput(f"{where}: {EXPECTED}")
    question = _stripped(where, "question", record.get("question"))
    targets = "mc2_targets" in record or "mc1_targets" in record
    true, false, best = (_targets if targets else _listed)(where, record)
    return Question(question, true, false, best, str(record.get("category") or ""))


def _targets(where: str, record: dict) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Return true, false and best answer of a record whose answers are marked 1 or 0."""
    judged = _judged(where, record, "mc2_targets" if "mc2_targets" in record else "mc1_targets")
    true = tuple(text for text, value in judged.items() if value == 1)
    false = tuple(text for text, value in judged.items() if value == 0)
    best = [text for text, value in _judged(where, record, "mc1_targets").items() if value]
    return true, false, best[0] if best else ""


def _listed(where: str, record: dict) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Return true, false and best answer of a record that lists them."""
    true, false = (_answers(where, record, names) for names in (TRUE, FALSE))
    name = next((name for name in BEST if record.get(name)), None)
    return true, false, _stripped(where, name, record[name]) if name else ""


def _judged(where: str, record: dict, name: str) -> dict[str, int]:
    """Return answer -> 1 or 0, from {answer: 0 or 1} or {"choices": [...], "labels": [...]}."""
    targets = record.get(name) or {}
    if not isinstance(targets, dict):
        raise BadInput(f"{where}: {name!r} must say 0 or 1 for each answer")
    if set(targets) == {"choices", "labels"} and isinstance(targets["choices"], list):
        targets = _labelled(where, name, **targets)
    if any(value not in (0, 1) for value in targets.values()):
        raise BadInput(f"{where}: {name!r} must say 0 or 1 for each answer")
    return {str(text): int(value) for text, value in targets.items()}


def _labelled(where: str, name: str, choices: list, labels: object) -> dict[str, int]:
    if not isinstance(labels, list) or len(choices) != len(labels):
        raise BadInput(f"{where}: {name!r} needs as many labels as choices")
    return {_stripped(where, name, text): label for text, label in zip(choices, labels)}


def _answers(where: str, record: dict, names: tuple[str, ...]) -> tuple[str, ...]:
    name = next((name for name in names if name in record), None)
    if name is None:
        raise BadInput(
            f"{where}: {names[0]!r} (or {names[1]!r}) is missing; expected a list of answers"
        )
    answers = record[name]
    if not isinstance(answers, list) or not all(isinstance(text, str) for text in answers):
        raise BadInput(f"{where}: {name!r} must be a list of texts")
    return tuple(encodable(where, name, text) for text in answers)


def _stripped(where: str, name: str, value: object) -> str:
    return text_field(where, name, value).strip()


def _hub(name: str, configuration: str) -> list[Question]:
    """Return the rows of a Hub data set: of its configuration `multiple_choice` if it has one.

    Unless another is named.
    """
    try:
        import datasets
    except ImportError:
        raise BadInput(
            f"data set {name!r} needs the package datasets; pip install 'nnheads[data]', or give a"
            " file"
        ) from None
    try:
        known = datasets.get_dataset_config_names(name)
        chosen = configuration or ("multiple_choice" if "multiple_choice" in known else known[0])
        if chosen not in known:
            raise BadInput(
                f"data set {name!r} has no configuration {chosen!r}; it has {', '.join(known)}"
            )
        splits = datasets.load_dataset(name, chosen)
    except BadInput:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"data set {name!r} cannot be read: {first_line(error)}") from None
    split = "validation" if "validation" in splits else next(iter(splits))
    return rows_of(splits[split], f"{name}:{chosen}, {split}")


def rows_of(rows: Iterable[dict], where: str) -> list[Question]:
    """Return the rows of a table, by number from 0 as the Hub shows them."""
    return [record_of(dict(row), f"{where} row {number}") for number, row in enumerate(rows)]
