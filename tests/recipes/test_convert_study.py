"""`nnheads convert` as a user issues it, and lists of other tools where heads are asked for."""

from __future__ import annotations

import functools
import json

import commands
import pytest
from nnheads.recipes import _app as cli

from nnheads.interchange import read_heads
from nnheads.interchange.table import ranking
from nnheads.runs import store

call = functools.partial(commands.issue, "convert")

TRIALS = {"2-4": [1.0, 0.9], "1-0": [0.9, 0.7], "1-1": [0.5], "0-3": [0.0]}


@pytest.fixture
def published(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps(TRIALS))
    return tmp_path / "model.json"


def test_a_file_says_what_it_is(published):
    code, out, _ = call(published, "--licence", "MIT")
    assert code == 0 and out.startswith(
        "retrieval_head: 3 layers of 5 heads, 4 with a score, 3 above zero"
    )
    assert (
        "L2H4    +0.950" in out
        and "licence: MIT" in out
        and "from model.json (retrieval_head), sha256 " in out
    )


def test_a_mask_for_grouped_heads_of_a_model(published, tmp_path):
    mask = tmp_path / "mask"
    code, out, err = call(
        published, "--to", "kv_mask", "-o", mask, "--model", "reference", "--fill", "0"
    )
    assert (code, err) == (0, "") and "88% stream (score of at least 0.5 keep their cache)" in out
    kept = read_heads(mask)
    # heads 2g and 2g+1 of the reference model share key/value head g
    assert [tuple(map(int, place)) for place in zip(*kept["score"].values.nonzero())] == [
        (1, 0),
        (2, 2),
    ]
    config = json.loads((mask / "config.json").read_text())
    assert (config["sink_size"], config["recent_size"], config["model_name"]) == (
        128,
        256,
        "reference",
    )
    assert json.loads(kept.attrs["lineage"])[0]["file"] == "model.json"


def test_a_share_of_heads_streams(published, tmp_path):
    options = ("--shape", "4x8", "--kv-heads", 4, "--fill", 0, "--sparsity", 0.875)
    code, _, _ = call(published, "--to", "kv_mask", "-o", tmp_path / "a.tsv", *options)
    kept = read_heads(tmp_path / "a.tsv")["score"].values
    assert code == 0 and kept.shape == (4, 4) and kept.sum() == 2 and kept[2, 2] == kept[1, 0] == 1


def test_the_strongest_heads_as_a_circuit(published, tmp_path):
    path = tmp_path / "circuit.json"
    assert call(published, "--to", "mib", "-o", path, "--model", "reference", "--top", 2)[0] == 0
    content = json.loads(path.read_text())
    assert content["cfg"] == {
        "n_layers": 4,
        "n_heads": 8,
        "d_model": 128,
        "parallel_attn_mlp": False,
    }
    assert [
        name for name, node in content["nodes"].items() if node["in_graph"] and name[0] == "a"
    ] == [
        "a1.h0",
        "a2.h4",
    ]
    code, _, _ = call(path, "--to", "qrhead_config", "-o", tmp_path / "b.yaml", "--threshold", 0.9)
    assert code == 0 and (tmp_path / "b.yaml").read_text() == 'attn_head_set: "2-4"\n'


def test_a_file_that_is_there_stays_unless_told(published, tmp_path):
    (tmp_path / "a.json").write_text("mine")
    code, _, err = call(published, "--to", "scores", "-o", tmp_path / "a.json")
    assert code == 2 and "exists; use --overwrite, or another --output" in err
    assert (tmp_path / "a.json").read_text() == "mine"
    assert call(published, "--to", "scores", "-o", tmp_path / "a.json", "--overwrite")[0] == 0
    assert ranking(read_heads(tmp_path / "a.json"))[0] == (2, 4)


def test_another_tools_list_can_be_knocked_out(published, tmp_path, capsys):
    arguments = [
        "--from",
        str(published),
        "--top",
        "2",
        "--limit",
        "6",
        "--draws",
        "2",
        "-o",
        str(tmp_path / "out"),
    ]
    with pytest.raises(SystemExit) as stop:
        cli.app(["knockout", *arguments])
    assert (
        stop.value.code == 0
        and "heads L2H4, L1H0 (ranked by score in 'model.json' of ?)" in capsys.readouterr().out
    )
    (folder,) = (tmp_path / "out" / "knockout" / "reference" / "shipped").iterdir()
    assert list(store.load(folder / "curve.nc")["listed"].values) == ["L2H4", "L1H0"]


def test_a_mask_names_a_local_model_without_its_folder(published, tmp_path, llama_folder):
    scores = {f"{layer}-{head}": [0.1 * head] for layer in range(3) for head in range(4)}
    (tmp_path / "mine.json").write_text(json.dumps(scores))
    mask = tmp_path / "mask"
    code, _, err = call(
        tmp_path / "mine.json", "--to", "kv_mask", "-o", mask, "--model", llama_folder
    )
    assert (code, err) == (0, "")
    texts = [path.read_text() for path in mask.rglob("*") if path.suffix in (".json", ".tsv")]
    assert any(llama_folder.name in text for text in texts)
    assert not any(str(llama_folder.parent) in text for text in texts)
