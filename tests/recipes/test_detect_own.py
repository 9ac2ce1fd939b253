"""`nnheads detect` with spans and needles of one's own, over a grid of lengths and depths."""

from __future__ import annotations

import json
import shutil

import pytest
from commands import command
from nnheads.recipes import _app as cli
from nnheads.recipes._grid import ONLY_NEEDLES, lengths, options_of

from nnheads.runs import store

NEEDLES = {"Mary": "green", "John": "red blue black", "Anna": "white grey"}


@pytest.fixture
def needles(tmp_path):
    path = tmp_path / "needles.jsonl"
    with path.open("w") as file:
        for name, answer in NEEDLES.items():
            fact, question = f"the code of {name} is {answer} .", f"what is the code of {name} ?"
            file.write(json.dumps({"needle": fact, "question": question, "answer": answer}) + "\n")
    return path


@pytest.fixture
def spans(tmp_path):
    path = tmp_path / "spans.jsonl"
    with path.open("w") as file:
        for name in (*NEEDLES, "Peter"):
            own = [
                {"kind": "giver", "query": "to", "key": name},
                {"kind": "thing", "query": "to", "key": "book"},
            ]
            file.write(json.dumps({"text": f"{name} gave the book to", "spans": own}) + "\n")
    return path


def test_each_kind_of_span_has_a_folder_of_its_own(spans, tmp_path, capsys):
    command("detect", "spans", "--spans", spans, "-o", tmp_path / "out")
    folder = tmp_path / "out" / "detect" / "reference" / "shipped" / "spans"
    said = capsys.readouterr().out
    for kind in ("giver", "thing"):
        heads, scores = (store.load(folder / kind / f"{name}.nc") for name in ("heads", "scores"))
        assert scores.sizes["batch"] == 4 and heads["flag"].dims == ("layer", "head")
        assert (
            heads.attrs["title"] == f"{kind} heads"
            and json.loads(heads.attrs["arguments"])["type"] == kind
        )
        assert (folder / kind / "heads.png").stat().st_size > 2000 and f"{kind}: " in said
        assert not (folder / kind / "accuracy.png").exists()
    assert (folder / "all.png").exists() and not (folder.parent / "parts").exists()


def test_the_same_spans_again_compute_nothing_and_changed_ones_are_refused(
    spans, tmp_path, monkeypatch, capsys
):
    from nnheads.spans import measure as attention

    command("detect", "spans", "--spans", spans, "-o", tmp_path / "out")
    first = capsys.readouterr().out
    monkeypatch.setattr(attention, "measure_spans", lambda *_, **__: pytest.fail("measured again"))
    command("detect", "spans", "--spans", spans, "-o", tmp_path / "out")
    assert capsys.readouterr().out == first
    spans.write_text(spans.read_text().replace("Peter", "Sarah"))
    with pytest.raises(SystemExit) as stop:
        cli.app(["detect", "spans", "--spans", str(spans), "-o", str(tmp_path / "out")])
    assert stop.value.code == 2 and "holds another run (prompts_sha256" in capsys.readouterr().err


def test_only_as_many_lines_as_asked_for(spans, tmp_path):
    command("detect", "spans", "--spans", spans, "-n", 2, "-o", tmp_path)
    folder = tmp_path / "detect" / "reference" / "shipped" / "spans" / "giver"
    assert store.load(folder / "scores.nc").sizes["batch"] == 2


def test_a_single_prompt_has_no_interval_and_says_so(spans, tmp_path, capsys):
    command("detect", "spans", "--spans", spans, "-n", 1, "--top", 2, "-o", tmp_path)
    said = capsys.readouterr().out
    title = "giver: 0 of 32 heads beyond chance (*); mass [no interval: one prompt]"
    assert f"{title}; few: neither a flag nor its absence says much\n  L" in said
    assert "nan" not in said and said.count("  L") == 4


def test_only_prompts_that_were_answered_count_and_the_number_is_told(needles, tmp_path, capsys):
    fact, question = (
        "the code of Mary is green .",
        "the cat is here . is the",
    )  # nobody is asked about
    other = {"needle": fact, "question": question, "answer": "green"}
    needles.write_text(needles.read_text() + json.dumps(other) + "\n")
    command(
        "detect",
        "generated_retrieval",
        "--needles",
        needles,
        "--lengths",
        "60",
        "-n",
        40,
        "-o",
        tmp_path,
    )
    folder = tmp_path / "detect" / "reference" / "shipped" / "generated_retrieval"
    scores, heads = (store.load(folder / f"{name}.nc") for name in ("scores", "heads"))
    counted = scores["answered"].values == 1
    assert scores.sizes["batch"] == 40 and 30 <= counted.sum() < 40
    assert (heads.attrs["cases"], heads.attrs["cases_counted"]) == (40, counted.sum())
    assert abs(heads["score"] - scores["score"].values[counted].mean(0)).max() < 1e-5
    assert (
        f"score [95% interval]; {counted.sum()} of 40 prompts answered\n" in capsys.readouterr().out
    )


def test_where_nothing_was_answered_a_line_says_so(llama_folder, tmp_path, capsys):
    options = ["--lengths", "60", "-n", 4]
    command("detect", "generated_retrieval", llama_folder, *options, "-o", tmp_path)
    said = capsys.readouterr().out
    assert (
        said
        == "generated_retrieval: none of 4 prompts was answered, so no head has a score (try other"
        " --lengths)\n"
    )
    folder = tmp_path / "detect" / "tiny-llama" / "local" / "generated_retrieval"
    heads, scores = (store.load(folder / f"{name}.nc") for name in ("heads", "scores"))
    assert (
        heads["score"].isnull().all()
        and heads["p_value"].isnull().all()
        and not heads["flag"].any()
    )
    assert scores.sizes["batch"] == 4 and heads.attrs["cases_counted"] == 0
    assert (folder / "heads.png").stat().st_size > 2000


def test_a_revision_without_answers_has_no_value(llama_folder, tmp_path, capsys):
    for step in ("step1", "step2"):
        shutil.copytree(llama_folder, tmp_path / "run" / step)
    options = ["--revision", "step1,step2", "--lengths", "60", "-n", 2, "-o", tmp_path / "out"]
    command("detect", "generated_retrieval", tmp_path / "run", *options)
    assert "step1            no value\n" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["retrieval", "generated_retrieval"])
def test_a_grid_of_needles_with_its_map_of_answers(kind, needles, tmp_path):
    grid = [
        "--s-len",
        60,
        "--e-len",
        100,
        "--context-lengths-num-intervals",
        2,
        "--document-depth-percent-intervals",
        3,
    ]
    command("detect", kind, "--needles", needles, *grid, "-n", 18, "-o", tmp_path)
    folder = tmp_path / "detect" / "reference" / "shipped" / kind
    scores = store.load(folder / "scores.nc")
    cells = list(zip(scores["length"].values.tolist(), scores["depth_asked"].values.tolist()))
    assert sorted(cells) == sorted(
        [(length, depth) for length in (60, 100) for depth in (0.0, 0.5, 1.0)] * 3
    )
    assert (folder / "accuracy.png").stat().st_size > 2000
    heads = store.load(folder / "heads.nc")
    best = heads[heads.attrs["headline"]].values
    assert best.max() > 0.9 and heads["flag"].values[best == best.max()].all()


def test_a_refused_grid_leaves_nothing_in_the_way(tmp_path, capsys):
    for wrong in (["--lengths", "12"], ["--s-len", "60", "--e-len", "9999"]):
        with pytest.raises(SystemExit) as stop:
            cli.app(["detect", "retrieval", *wrong, "-n", "2", "-o", str(tmp_path)])
        assert stop.value.code == 2 and not list(tmp_path.iterdir())
    capsys.readouterr()
    command("detect", "retrieval", "--lengths", "60", "-n", 2, "-o", tmp_path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [128, 256]),
        ({"lengths": "60,80-82"}, [60, 80, 81, 82]),
        (
            {"s_len": 1000, "e_len": 5000, "context_lengths_num_intervals": 5},
            [1000, 2000, 3000, 4000, 5000],
        ),
        ({"context_lengths_num_intervals": 3}, [128, 192, 256]),
        ({"s_len": 100, "e_len": 102}, [100, 101, 102]),
        ({"s_len": 50, "context_lengths_num_intervals": 1}, [50]),
    ],
)
def test_lengths_are_a_list_or_run_from_the_shortest_to_the_longest(given, expected):
    assert lengths(dict.fromkeys(ONLY_NEEDLES) | given) == expected


def test_depths_run_from_start_to_end():
    nothing = dict.fromkeys(ONLY_NEEDLES) | {"head_type": "retrieval"}
    assert options_of(nothing, True)["depths"] is None
    for count, expected in ((1, [0.0]), (2, [0.0, 1.0]), (5, [0.0, 0.25, 0.5, 0.75, 1.0])):
        assert (
            options_of(nothing | {"document_depth_percent_intervals": count}, True)["depths"]
            == expected
        )


def test_own_spans_over_checkpoints_become_a_dimension(llama_folder, spans, tmp_path, capsys):
    for step in ("step1", "step2"):
        shutil.copytree(llama_folder, tmp_path / "run" / step)
    command(
        "detect",
        "spans",
        tmp_path / "run",
        "--spans",
        spans,
        "--revision",
        "step1,step2",
        "-o",
        tmp_path / "out",
    )
    folder = tmp_path / "out" / "detect" / "run" / "revisions" / "spans" / "giver"
    assert list(store.load(folder / "heads.nc")["revision"].values) == ["step1", "step2"]
    assert (
        folder / "emergence.png"
    ).exists() and "giver: strongest head by revision" in capsys.readouterr().out
