"""`nnheads detect truthfulness`: options, folders, and what is said of changed questions."""

from __future__ import annotations

import csv
import json

import pytest
from nnheads.recipes import _app as cli

from nnheads.runs import store


def command(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.app(list(arguments))
    assert stop.value.code == code


@pytest.fixture
def table(tmp_path):
    """Twelve questions in the words of the tests' tokenizer, one of them twice."""
    places = "park market library museum beach hotel farm airport".split()
    path = tmp_path / "TruthfulQA.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers"]
        )
        for number in [*range(12), 3]:
            true, other, false = (places[(number * step) % 8] for step in (1, 3, 5))
            writer.writerow(
                [
                    "places",
                    f"what is the code of {number} ?",
                    true,
                    f"{true}; {other}",
                    f"{false}; park of {number}",
                ]
            )
    return path


def run_folder(output, model: str, revision: str):
    return output / "detect" / model / revision / "truthfulness"


def test_the_reference_model(tmp_path, capsys):
    command("detect", "truthfulness", "--output", str(tmp_path), "--num-heads", "5", "--top", "3")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("truthfulness: ") and said[0].endswith(
        "heads beyond chance (*); correct [95% interval]; 200 questions"
    )
    assert len(said) == 5 and "+1.000" in said[1] and said[1].endswith("*")
    folder = run_folder(tmp_path, "reference", "shipped")
    heads, scores = store.load(folder / "heads.nc"), store.load(folder / "scores.nc")
    assert (
        int(heads["chosen"].sum()) == 5
        and heads.sizes["fold"] == 2
        and scores.sizes["batch"] == 400
    )
    arguments = json.loads((folder / "run.json").read_text())["arguments"]
    chosen = {
        "num_fold": 2,
        "num_heads": 5,
        "val_ratio": 0.2,
        "fold_seed": 42,
        "seed": 0,
        "data": None,
    }
    assert arguments.items() >= chosen.items()
    assert (folder / "heads.png").stat().st_size > 2000 and not (folder.parent / "parts").exists()
    command(
        "detect",
        "truthfulness",
        "--output",
        str(tmp_path),
        "--num-heads",
        "5",
        "--seed",
        "1",
        code=2,
    )
    assert "fold_seed 42 there, 1 here" in capsys.readouterr().err


def test_a_table_of_ones_own(tmp_path, table, llama_folder, capsys):
    options = [
        "--output",
        str(tmp_path / "out"),
        "--template",
        "{question} {answer}",
        "--data",
        str(table),
    ]
    command(
        "detect",
        "truthfulness",
        str(llama_folder),
        *options,
        "--num-fold",
        "3",
        "--val-ratio",
        "0.3",
    )
    said = capsys.readouterr().out
    assert "questions that came twice, merged: 1" in said
    heads = store.load(run_folder(tmp_path / "out", "tiny-llama", "local") / "heads.nc")
    assert heads.sizes["fold"] == 3 and heads.attrs["template"] == "{question} {answer}"
    assert json.loads(heads.attrs["dropped"])["questions that came twice, merged"] == 1


def test_all_types_go_without_it_where_it_has_no_data(tmp_path, llama_folder, capsys):
    options = [
        "--limit",
        "2",
        "--length",
        "6",
        "--lengths",
        "60",
        "--steps",
        "4",
        "--output",
        str(tmp_path),
    ]
    command("detect", "all", str(llama_folder), *options)
    assert "truthfulness: left out; it needs --data" in capsys.readouterr().out
    assert not run_folder(tmp_path, "tiny-llama", "local").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["induction", "--num-fold", "3"],
            "--num-fold is for truthfulness; 'induction' is another type",
        ),
        (["induction", "--data", "x.csv"], "--data is for truthfulness"),
        (["truthfulness", "--data", "x.csv"], "no file 'x.csv'; expected a TruthfulQA CSV"),
        (["truthfulness", "--num-fold", "1"], "1 folds leave no question to test on"),
        (["truthfulness", "--num-heads", "0"], "0 heads cannot be chosen"),
        (
            ["truthfulness", "--limit", "2"],
            "2 questions leave none to train on or to validate in a fold",
        ),
        (["all", "--limit", "1"], "truthfulness: 1 questions cannot be cut into 2 folds; --limit"),
        (["truthfulness", "--lengths", "60"], "--lengths is for retrieval types"),
        (["truthfulness", "--template", "{answer}"], "must hold {question} and after it {answer}"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, message, tmp_path, capsys):
    command("detect", *arguments, "--output", str(tmp_path), code=2)
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and not list(tmp_path.iterdir())
