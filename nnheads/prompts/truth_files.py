"""The published forms of TruthfulQA and of sets like it, as plain records.

CSV: a header with Question, Best Answer, Correct Answers, Incorrect Answers and perhaps Category;
    answers are separated
by semicolons. The first version (817 questions) and the second (790, with a column Best Incorrect
Answer) differ only
in columns that are not needed. mc_task.json: a list of {question, mc1_targets, mc2_targets}, each
    from answer to 0 or
1; the oldest has mc0_targets besides. JSON lines: one question each, in either form. Hub: rows of
either form.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path

from nnheads.errors import BadInput, first_line
from nnheads.prompts.questions import Question
from nnheads.spans.lines import numbered_lines

COLUMNS = ("Question", "Best Answer", "Correct Answers", "Incorrect Answers")
SEPARATOR = ";"
FORMS = "a TruthfulQA CSV, mc_task.json, JSON lines, a Hub data set owner/name, or reference"
TRUE, FALSE, BEST = (
    ("true", "correct_answers"),
    ("false", "incorrect_answers"),
    ("best", "best_answer"),
)
# names under which other programs know the two configurations of the set on the Hub
SHORT = {
    "tqa_mc2": "truthfulqa/truthful_qa:multiple_choice",
    "tqa_gen": "truthfulqa/truthful_qa:generation",
}


def records_of(source: str | Path) -> list[Question]:
    """What a source says, as it says it: answers may be empty, or come twice.

    Raises BadInput that names the row.
    """
    path, name = Path(source), SHORT.get(str(source), str(source))
    if path.is_file():
        return _table(path) if path.suffix.lower() == ".csv" else _json(path)
    if re.fullmatch(r"[\w.-]+/[\w.-]+(:[\w.-]+)?", name) and path.suffix.lower() not in {
        ".csv",
        ".json",
        ".jsonl",
    }:
        return _hub(*name.partition(":")[::2])
    raise BadInput(f"no file {str(source)!r}; expected {FORMS}")


def _table(path: Path) -> list[Question]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not a text file in UTF-8") from None
    reader, found = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True), []
    try:
        names = [name.strip() for name in reader.fieldnames or []]
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
            found.append(
                Question(question.strip(), _split(true), _split(false), best.strip(), category)
            )
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    return found


def _split(answers: str) -> tuple[str, ...]:
    """Answers of one cell; what follows the last separator may be nothing."""
    pieces = [piece.strip() for piece in answers.split(SEPARATOR)]
    return tuple(pieces if pieces[-1] else pieces[:-1])


def _json(path: Path) -> list[Question]:
    lines = numbered_lines(path, FORMS)
    if lines[0][1].lstrip().startswith("["):
        try:
            records = json.loads("\n".join(line for _, line in lines))
        except (ValueError, RecursionError):
            raise BadInput(f"{path} is not JSON, but begins as a list does") from None
        return [record_of(one, f"{path}, entry {number}") for number, one in enumerate(records, 1)]
    found = []
    for place, line in lines:
        try:
            found.append(record_of(json.loads(line), place))
        except (json.JSONDecodeError, RecursionError):
            raise BadInput(
                f"{place}: not JSON; expected an object with question, true, false, best"
            ) from None
    return found


def record_of(record, place: str) -> Question:
    """One question of a JSON file or the Hub; `place` says where it stands."""
    if not isinstance(record, dict):
        raise BadInput(f"{place}: expected an object with question, true, false, best")
    question = _text(place, "question", record.get("question"))
    category = record.get("category") or ""
    if "mc2_targets" in record or "mc1_targets" in record:
        judged = _judged(place, record, "mc2_targets" if "mc2_targets" in record else "mc1_targets")
        best = [text for text, value in _judged(place, record, "mc1_targets").items() if value]
        true, false = (
            tuple(text for text, value in judged.items() if value == wanted) for wanted in (1, 0)
        )
        return Question(question, true, false, best[0] if best else "", str(category))
    true, false = (_answers(place, record, names) for names in (TRUE, FALSE))
    best_name = next((name for name in BEST if record.get(name)), None)
    best_text = _text(place, best_name, record[best_name]) if best_name else ""
    return Question(question, true, false, best_text, str(category))


def _judged(place: str, record: dict, name: str) -> dict[str, int]:
    """Answer -> 1 or 0, from {answer: 0 or 1} or {"choices": [...], "labels": [...]}."""
    targets = record.get(name) or {}
    if (
        isinstance(targets, dict)
        and set(targets) == {"choices", "labels"}
        and isinstance(targets["choices"], list)
    ):
        choices, labels = targets["choices"], targets["labels"]
        if not isinstance(labels, list) or len(choices) != len(labels):
            raise BadInput(f"{place}: {name!r} needs as many labels as choices")
        targets = {_text(place, name, text): label for text, label in zip(choices, labels)}
    if not isinstance(targets, dict) or any(value not in (0, 1) for value in targets.values()):
        raise BadInput(f"{place}: {name!r} must say 0 or 1 for each answer")
    return {str(text): int(value) for text, value in targets.items()}


def _answers(place: str, record: dict, names: tuple[str, ...]) -> tuple[str, ...]:
    name = next((name for name in names if name in record), None)
    if name is None:
        raise BadInput(
            f"{place}: {names[0]!r} (or {names[1]!r}) is missing; expected a list of answers"
        )
    answers = record[name]
    if not isinstance(answers, list) or not all(isinstance(text, str) for text in answers):
        raise BadInput(f"{place}: {name!r} must be a list of texts")
    return tuple(_encodable(place, name, text) for text in answers)


def _text(place: str, name: str, text) -> str:
    if not isinstance(text, str) or not text.strip():
        raise BadInput(f"{place}: {name!r} is missing or empty")
    return _encodable(place, name, text).strip()


def _encodable(place: str, name: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{place}: {name!r} holds half a character (a lone surrogate)") from None
    return text


def _hub(name: str, configuration: str) -> list[Question]:
    """Rows of a Hub data set: its configuration `multiple_choice` if it has one, unless another is
    named.
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
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"data set {name!r} cannot be read: {first_line(error)}") from None
    split = "validation" if "validation" in splits else next(iter(splits))
    return rows_of(splits[split], f"{name}:{chosen}, {split}")


def rows_of(rows: Iterable[dict], place: str) -> list[Question]:
    """Rows of a table, by number from 0 as the Hub shows them."""
    return [record_of(dict(row), f"{place} row {number}") for number, row in enumerate(rows)]
