"""Lists of heads in the formats of other tools: made here as those tools write them, read, written,
and read again.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from headruns import detected, planted
from hypothesis import given
from hypothesis import strategies as st
from random_models import tiny

from nnheads.errors import BadInput
from nnheads.interchange import read_heads, write_heads
from nnheads.interchange.formats import ENDINGS, FORMATS
from nnheads.interchange.masks import kv_mask
from nnheads.interchange.table import KV, fitted, labelled, listed, ranking
from nnheads.runs import store

GATES = (
    "8.593750000000000000e-01\t-9.250640869140625000e-05\n"
    "1.000000000000000000e+00\t3.398437500000000000e-01\n"
)
CONFIG = {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}
CIRCUIT = {
    "cfg": CONFIG,
    "nodes": {
        "input": {"in_graph": True},
        "a0.h0": {"in_graph": False, "score": 0.25},
        "a0.h1": {"in_graph": True, "score": 0.5},
        "m0": {"in_graph": True},
        "a1.h0": {"in_graph": True, "score": -2.0},
        "a1.h1": {"in_graph": False, "score": 0.0},
        "m1": {"in_graph": False},
        "logits": {"in_graph": True},
    },
    "edges": {
        "input->a0.h1<q>": {"score": 0.125, "in_graph": True},
        "a0.h1->a1.h0<v>": {"score": -0.75, "in_graph": True},
        "a0.h1->m1": {"score": 0.5, "in_graph": False},
        "a1.h0->logits": {"score": 1.5, "in_graph": True},
    },
}


def put(path: Path, content) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def scores_of(heads) -> dict:
    return {
        (int(place[0]), int(place[1])): round(float(value), 6)
        for place, value in np.ndenumerate(heads["score"].values)
        if not np.isnan(value)
    }


def pyvene_folder(folder: Path) -> Path:
    part = [None] * 10
    config = {
        "representations": [[1, "head_attention_value_output", "h.pos", 2, *part]],
        "sorted_keys": ["any"],
    }
    folder.mkdir()
    put(folder / "config.json", config)
    put(folder / "unit_locations.json", {"sources->base": [None, [[[[3, 0]], [[5]]]]]})
    return folder


WRITTEN = {
    "trials of Retrieval_Head": (
        "a.json",
        {"0-1": [0.5, 1.0], "2-0": [0.25], "1-1": []},
        {(0, 1): 0.75, (2, 0): 0.25},
    ),
    "scores of Head_interpret": ("a.json", {"1-2": 0.5, "0-0": 0}, {(1, 2): 0.5, (0, 0): 0.0}),
    "records of Head_interpret": ("a.json", [{"layer": 1, "head": 2, "score": 0.5}], {(1, 2): 0.5}),
    "scores of QRHead": ("a.json", [["13-1", 0.25], ["2-0", 0.5]], {(13, 1): 0.25, (2, 0): 0.5}),
    "tuples of function_vectors": (
        "a.txt",
        "[(14, 1, 0.0391),\n (11, 2, 0.0225)]",
        {(14, 1): 0.0391, (11, 2): 0.0225},
    ),
    "lists of function_vectors": (
        "a.json",
        [[14, 1, 0.5], [0, 0, -1e-3]],
        {(14, 1): 0.5, (0, 0): -0.001},
    ),
    "an ending that says nothing": ("heads", {"1-2": 0.5}, {(1, 2): 0.5}),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_text_of_other_tools(tmp_path, name):
    file, content, expected = WRITTEN[name]
    assert scores_of(read_heads(put(tmp_path / file, content))) == expected


def test_single_trials_are_kept(tmp_path):
    heads = read_heads(put(tmp_path / "a.json", {"0-1": [0.5, 1.0], "2-0": [0.25], "1-1": []}))
    assert heads["trials"].values.tolist() == [[0, 2], [0, 0], [1, 0]]
    assert heads["trial_score"].values[0, 1].tolist() == [0.5, 1.0] and np.isnan(
        heads["trial_score"].values[2, 0, 1]
    )


def test_single_prompts_of_a_run_are_trials_of_other_tools(tmp_path):
    run = detected(tmp_path, "retrieval", planted(2, 3, (1, 2)), cases=5)
    cases = store.load(run / "scores.nc")["mass"]
    heads = read_heads(run)
    np.testing.assert_array_equal(heads["trial_score"][1, 2], cases[:, 1, 2])
    written = json.loads(
        write_heads(heads, tmp_path / "a.json", format="retrieval_head").read_text()
    )
    assert {name: len(trials) for name, trials in written.items()} == {
        f"{i}-{j}": 5 for i in range(2) for j in range(3)
    }
    back = read_heads(tmp_path / "a.json")
    np.testing.assert_allclose(back["score"], heads["score"], atol=1e-6)
    assert "trials" not in read_heads(run, statistic="excess"), (
        "no variable of single prompts has that name"
    )


def test_prompts_that_do_not_count_are_no_trials_and_ratios_have_none(tmp_path):
    run = detected(tmp_path, "retrieval", planted(2, 3, (1, 2)), cases=6)
    cases, heads = (store.load(run / f"{name}.nc") for name in ("scores", "heads"))
    counted = cases.assign_coords(answered=("batch", [1, 0, 1, 1, 0, 1])).assign_attrs(
        counts="answered"
    )
    store.save(run / "scores.nc", counted)
    assert "trials" not in read_heads(run), "the mean of those that count is another"
    heads["mass"] = counted["mass"][[0, 2, 3, 5]].mean("batch")
    store.save(run / "heads.nc", heads)
    assert read_heads(run)["trials"].values.tolist() == [[4] * 3] * 2


def test_order_is_kept_where_it_means_something(tmp_path):
    config = 'attn_head_set: "13-18,8-11,2-1" # top3\nmodel_base_class: "Llama"\n'
    heads = read_heads(put(tmp_path / "a.yaml", config))
    assert (
        ranking(heads) == [(13, 18), (8, 11), (2, 1)]
        and heads["score"].sum() == 3
        and heads["score"][0, 0] == 0
    )
    np.save(tmp_path / "fold.npy", np.array([[3, 0], [0, 1]]))
    fold = read_heads(tmp_path / "fold.npy")
    assert ranking(fold) == [(3, 0), (0, 1)] and fold.attrs["source_format"] == "fold"
    np.save(tmp_path / "rows.npy", np.array([[1, 0, 0.9], [0, 1, 0.9], [2, 2, 0.2]]))
    rows = read_heads(tmp_path / "rows.npy")
    assert ranking(rows) == [(1, 0), (0, 1), (2, 2)] and np.isnan(rows["score"][0, 0])


def test_tensors(tmp_path):
    torch.save(torch.arange(6.0).reshape(2, 3), tmp_path / "grid.pt")
    assert read_heads(tmp_path / "grid.pt")["score"].values.tolist() == [[0, 1, 2], [3, 4, 5]]
    effects = torch.zeros(4, 2, 3, 2)
    effects[0, 1, 2, -1], effects[:, 0, 0, 0] = 2.0, 9.0
    torch.save(effects, tmp_path / "effect.pt")
    heads = read_heads(tmp_path / "effect.pt")
    assert (
        float(heads["score"][1, 2]) == 0.5
        and float(heads["score"][0, 0]) == 0
        and heads.sizes["trial"] == 4
    )
    torch.save(
        torch.ones(2, 3, dtype=torch.bfloat16),
        tmp_path / "old.pt",
        _use_new_zipfile_serialization=False,
    )
    assert read_heads(tmp_path / "old.pt")["score"].sum() == 6


def test_gates_of_duo_attention_with_and_without_their_config(tmp_path):
    heads = read_heads(put(tmp_path / "full_attention_heads.tsv", GATES))
    assert heads["score"].dims == ("layer", KV) and float(heads["score"][0, 0]) == 0.859375
    assert float(heads["score"][0, 1]) < 0 and "sink_size" not in heads.attrs
    put(
        tmp_path / "config.json",
        {"sink_size": 64, "recent_size": 256, "model_name": "/data/models/Llama"},
    )
    found = read_heads(tmp_path)
    assert (
        found.attrs["sink_size"] == 64 and found.attrs["model"] == "Llama" and found.equals(heads)
    )


def test_a_circuit_is_its_heads_and_everything_else(tmp_path):
    heads = read_heads(put(tmp_path / "a.json", CIRCUIT))
    assert heads["in_circuit"].values.tolist() == [[0, 1], [1, 0]]
    assert heads["score"].values.tolist() == [[0.25, 0.5], [-2.0, 0.0]]
    path = write_heads(heads, tmp_path / "b.json", format="mib")
    assert json.loads(path.read_text()) == CIRCUIT
    bare = {
        **CIRCUIT,
        "nodes": {name: {"in_graph": node["in_graph"]} for name, node in CIRCUIT["nodes"].items()},
    }
    strongest = read_heads(put(tmp_path / "c.json", bare))["score"].values
    np.testing.assert_array_equal(strongest, [[np.nan, 0.75], [1.5, np.nan]])


def test_a_circuit_from_a_list_joins_all_parts_that_it_keeps(tmp_path):
    heads = fitted(listed([(0, 1), (1, 0)]), 2, 2).assign_attrs(
        cfg=json.dumps(CONFIG), covers="every head"
    )
    heads["in_circuit"] = heads["score"].astype("int8")
    content = json.loads(write_heads(heads, tmp_path / "a.json", format="mib").read_text())
    assert {name for name, node in content["nodes"].items() if not node["in_graph"]} == {
        "a0.h0",
        "a1.h1",
    }
    into = {"input", "a0.h1", "m0"}
    expected = {f"input->a0.h1<{part}>" for part in "qkv"} | {
        f"{one}->a1.h0<{part}>" for one in into for part in "qkv"
    }
    expected |= {"input->m0", "a0.h1->m0"} | {f"{one}->m1" for one in (*into, "a1.h0")}
    assert set(content["edges"]) == expected | {f"{one}->logits" for one in (*into, "a1.h0", "m1")}
    again = read_heads(tmp_path / "a.json")
    assert again["in_circuit"].equals(heads["in_circuit"])
    heads.attrs["cfg"] = json.dumps({**CONFIG, "parallel_attn_mlp": True})
    parallel = json.loads(write_heads(heads, tmp_path / "b.json", format="mib").read_text())[
        "edges"
    ]
    assert expected - set(parallel) == {"a0.h1->m0", "a1.h0->m1"}


def test_a_circuit_that_was_saved_for_torch(tmp_path):
    names = ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1"]
    graph = {
        "cfg": CONFIG,
        "src_nodes": names,
        "dst_nodes": ["a0.h0<q>", "logits"],
        "edges_scores": torch.arange(14.0).reshape(7, 2) - 9,
        "edges_in_graph": torch.ones(7, 2, dtype=torch.bool),
        "nodes_in_graph": torch.tensor([1, 0, 1, 1, 1, 0, 1], dtype=torch.bool),
    }
    torch.save(graph, tmp_path / "a.pt")
    heads = read_heads(tmp_path / "a.pt")
    assert heads["score"].values.tolist() == [[7, 5], [1, 2]] and heads[
        "in_circuit"
    ].values.tolist() == [
        [0, 1],
        [1, 0],
    ]
    assert heads.attrs["not_read"] == "edges" and heads.attrs["source_format"] == "mib"
    torch.save({**graph, "nodes_scores": torch.arange(7.0)}, tmp_path / "b.pt")
    assert read_heads(tmp_path / "b.pt")["score"].values.tolist() == [[1, 2], [4, 5]]
    torch.save({**graph, "src_nodes": names[1:]}, tmp_path / "c.pt")
    with pytest.raises(BadInput, match="its tensors have other nodes than src_nodes"):
        read_heads(tmp_path / "c.pt")


def test_an_intervention_of_ours_names_its_heads(tmp_path):
    from nnheads.interventions import Edit, Intervention, Zero
    from nnheads.interventions.files import load, save

    write_heads(listed([(2, 1), (0, 3), (2, 0)]), tmp_path / "a", format="intervention")
    assert [(edit.layer, edit.units) for edit in load(tmp_path / "a").edits] == [
        (2, (1, 0)),
        (0, (3,)),
    ]
    assert ranking(read_heads(tmp_path / "a")) == [(2, 1), (2, 0), (0, 3)]
    save(Intervention(Edit("mlp_out", Zero(), layer=0)), tmp_path / "b")
    with pytest.raises(BadInput, match="it edits more than outputs of heads"):
        read_heads(tmp_path / "b")


def test_a_pyvene_folder_with_its_locations(tmp_path):
    heads = read_heads(pyvene_folder(tmp_path / "a"))
    assert ranking(heads) == [(1, 3), (1, 0)] and heads.attrs["source_format"] == "pyvene"


def test_constant_values_of_pyvene_name_the_heads_that_they_move():
    folder = Path(__file__).parent.parent / "data" / "pyvene" / "everywhere"
    heads = read_heads(folder, heads=4)
    value = torch.load(
        folder / "intkey_layer_1_comp_attention_value_output_unit_pos_nunit_1#0.bin",
        weights_only=True,
    )
    norms = value["source_representation"].reshape(4, -1).norm(dim=1).numpy()
    np.testing.assert_allclose(np.nan_to_num(heads["score"].values[1]), norms, rtol=1e-6)
    with pytest.raises(BadInput, match="say how many heads a layer has"):
        read_heads(folder)
    with pytest.raises(BadInput, match="a value of 16 features is not one of 3 heads"):
        read_heads(folder, heads=3)


def test_what_is_written_for_pyvene_is_an_intervention_on_those_heads(tmp_path):
    from nnheads.interventions import Zero
    from nnheads.interventions.pyvene_folders import read_pyvene

    model, _ = tiny("llama")
    heads = fitted(listed([(2, 1), (0, 3), (2, 0)]), 3, 4)
    folder = write_heads(heads, tmp_path / "a", format="pyvene")
    locations = json.loads((folder / "unit_locations.json").read_text())
    edits = read_pyvene(folder, model).at(locations).edits
    assert {(edit.layer, edit.units) for edit in edits} == {(2, (1, 0)), (0, (3,))}
    assert all(isinstance(edit.do, Zero) and edit.site == "z" for edit in edits)
    assert set(ranking(read_heads(folder))) == {(2, 1), (0, 3), (2, 0)}
    with pytest.raises(BadInput, match="exists; name another folder, or remove it"):
        write_heads(heads, folder, format="pyvene")


KEEPS = {
    "scores": {"score"},
    "retrieval_head": {"score", "trials", "trial_score"},
    "records": {"score"},
    "qrhead": {"score", "rank"},
    "qrhead_config": {"rank"},
    "function_vectors": {"score", "rank"},
    "array": {"score", "rank"},
    "fold": {"rank"},
    "tensor": {"score"},
    "indirect_effect": {"score", "trials", "trial_score"},
    "pyvene": set(),
    "intervention": set(),
    "mib": {"score", "in_circuit"},
    "nnheads": {"score", "rank"},
    "netcdf": {"score", "rank", "trials", "trial_score", "in_circuit"},
}


def everything(kind: str) -> xr.Dataset:
    """Scores with all that some format keeps, every head scored."""
    generator = np.random.default_rng(0)
    trials = generator.normal(size=(3, 2, 4)).astype("float32")
    heads = labelled(trials.mean(-1)).assign_attrs(
        licence="MIT", model="owner/name", cfg=json.dumps({**CONFIG, "n_layers": 3})
    )
    heads["trials"] = (("layer", "head"), np.full((3, 2), 4, "int32"))
    heads["trial_score"] = (("layer", "head", "trial"), trials)
    order = np.argsort(np.argsort(-heads["score"].values, axis=None)).reshape(3, 2)
    heads["rank"] = (("layer", "head"), order.astype("float32"))
    heads["in_circuit"] = (heads["score"] > 0).astype("int8")
    return heads


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "duo_attention"])
def test_round_trips(tmp_path, kind):
    heads, path = everything(kind), tmp_path / f"a{ENDINGS.get(kind, '')}"
    assert write_heads(heads, path, format=kind) == path
    again = read_heads(path)
    assert again.attrs["source_format"] == kind and again.attrs["licence"] == "MIT"
    for name in KEEPS[kind]:
        np.testing.assert_allclose(again[name].values, heads[name].values, rtol=1e-6, err_msg=name)
    assert set(ranking(again)) == set(ranking(heads))
    if kind not in ("pyvene", "mib", "intervention"):
        assert ranking(again) == ranking(heads)
    twice = tmp_path / f"b{ENDINGS.get(kind, '')}"
    last = read_heads(write_heads(again, twice, format=kind))
    assert all(last[name].equals(again[name]) for name in again.data_vars)
    assert [one["format"] for one in json.loads(last.attrs["lineage"])] == [kind, kind]


@pytest.mark.parametrize("where", ["a.tsv", "folder"])
def test_gates_make_a_round_trip(tmp_path, where):
    heads = read_heads(put(tmp_path / "full_attention_heads.tsv", GATES)).assign_attrs(
        sink_size=64, licence="MIT"
    )
    again = read_heads(write_heads(heads, tmp_path / where, format="duo_attention"))
    assert again["score"].equals(heads["score"]) and again.attrs["licence"] == "MIT"
    assert again.attrs["sink_size"] == 64


def test_provenance_of_another_file_is_left_aside(tmp_path):
    path = write_heads(everything("scores"), tmp_path / "a.json", format="scores")
    path.write_text(path.read_text() + " ")
    heads = read_heads(path)
    assert (
        "licence" not in heads.attrs
        and "is of another version of this file" in heads.attrs["provenance_note"]
    )
    put(tmp_path / "a.json.provenance.json", "[]")
    assert "is no record of provenance" in read_heads(path).attrs["provenance_note"]


def test_runs_of_our_own_are_lists_of_heads(tmp_path):
    values = xr.DataArray(np.eye(2, 3), {"layer": [1, 2], "head": range(3)}, ("layer", "head"))
    table = xr.Dataset({"mass": values, "flag": values.astype("int8")}).assign_attrs(
        headline="mass", model="m"
    )
    store.save(tmp_path / "heads.nc", table)
    heads = read_heads(tmp_path)
    assert (
        heads["score"].shape == (3, 3)
        and np.isnan(heads["score"][0, 0])
        and float(heads["score"][1, 0]) == 1
    )
    assert heads.attrs["statistic"] == "mass" and heads.attrs["model"] == "m"
    with pytest.raises(BadInput, match=r"has no 'hit' by layer and head"):
        read_heads(tmp_path, statistic="hit")
    with pytest.raises(BadInput, match="--statistic is for runs of nnheads"):
        read_heads(put(tmp_path / "a.json", {"1-1": 1}), statistic="mass")


def test_masks_keep_a_group_if_one_of_its_heads_is_wanted():
    heads = labelled(np.array([[0.1, 0.9, 0.2, 0.3], [0.6, 0.0, 0.0, 0.5]]))
    assert kv_mask(heads, 2)["score"].values.tolist() == [[1, 0], [1, 1]]
    assert kv_mask(heads, 2, threshold=0.55)["score"].values.tolist() == [[1, 0], [1, 0]]
    assert kv_mask(heads, 1, threshold=0.7)["score"].values.tolist() == [[1], [0]]
    half = kv_mask(heads, 4, sparsity=0.75)
    assert (
        half["score"].values.tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]
        and half.attrs["sparsity"] == 0.75
    )
    assert (
        kv_mask(heads, 2, sparsity=0.0)["score"].sum() == 4
        and kv_mask(heads, 2, sparsity=1.0)["score"].sum() == 0
    )
    gates = labelled(np.array([[-1e-4, 1.2]]), unit=KV)
    assert kv_mask(gates, 2)["score"].values.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kv_heads": 3}, "4 heads do not share 3 key/value heads evenly; is --kv-heads right"),
        ({"kv_heads": 0}, "do not share 0 key/value heads"),
        ({"kv_heads": 2, "sparsity": 1.5}, "--sparsity 1.5 is not possible; it is a share"),
        ({"kv_heads": 2, "threshold": float("nan")}, "--threshold nan is not possible"),
        ({"kv_heads": 2, "threshold": 0.5, "sparsity": 0.5}, "exclude each other"),
    ],
)
def test_masks_that_cannot_be_made(options, message):
    with pytest.raises(BadInput, match=message):
        kv_mask(labelled(np.zeros((2, 4))), **options)


def test_part_of_a_table_is_not_written_as_the_whole(tmp_path):
    part = listed([(0, 1)], [0.5])
    with pytest.raises(BadInput, match="does not say how many there are"):
        write_heads(part, tmp_path / "a.pt", format="tensor")
    with pytest.raises(
        BadInput, match="3 heads have no score, and tensor needs one for every head"
    ):
        write_heads(fitted(part, 2, 2), tmp_path / "a.pt", format="tensor")
    filled = fitted(part, 2, 2, fill=0.0)
    assert read_heads(write_heads(filled, tmp_path / "a.pt", format="tensor"))[
        "score"
    ].values.tolist() == [
        [0, 0.5],
        [0, 0],
    ]
    with pytest.raises(BadInput, match="the list is of 1 layers of 2 heads"):
        fitted(part, 1, 1)
    with pytest.raises(BadInput, match="the list is of 2 layers of 2 heads"):
        fitted(filled, 3, 2)


@pytest.mark.parametrize(
    ("format", "name", "message"),
    [
        ("pickle", "a", "format 'pickle' is not known; use one of retrieval_head"),
        ("scores", "a.txt", r"a\.txt does not end in \.json, as files of scores do"),
        (
            "duo_attention",
            "a.tsv",
            "has a gate for every key/value head; give --kv-heads or --model",
        ),
        ("mib", "a.json", r"says how wide its model is \(d_model\); give --model"),
    ],
)
def test_what_cannot_be_written(tmp_path, format, name, message):
    with pytest.raises(BadInput, match=message):
        write_heads(listed([(0, 1)], [0.5]), tmp_path / name, format=format)
    assert not list(tmp_path.iterdir())


def test_key_value_heads_are_no_query_heads(tmp_path):
    gates = read_heads(put(tmp_path / "a.tsv", GATES))
    with pytest.raises(BadInput, match="scores lists query heads, and these are key/value heads"):
        write_heads(gates, tmp_path / "a.json", format="scores")
    with pytest.raises(BadInput, match="these are key/value heads"):
        ranking(gates)


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


ONE = b'{"cfg": {"n_layers": 1, "n_heads": 1}, '
BROKEN = [
    (b"{", "holds no list of heads: Expecting"),
    (b"", "it is empty"),
    (b'{"x": 1}', "'x' is not layer-head"),
    (b"[]", "no heads in it"),
    (b"{}", "no heads in it"),
    (b'[{"layer": 1}]', "'head' is missing"),
    (b"3", "its format is not known"),
    (b'{"1-1": 1, "1-1": 2}', "'1-1' is in it twice"),
    (b'{"1-1": 1, "01-1": 2}', "a head is in it twice"),
    (b'{"999999-0": 1}', "layer or head 999999 is more than any model has"),
    (b'{"1-1": Infinity}', "infinite scores"),
    (b'{"1-1": 1e300}', "infinite scores"),
    (b'{"1-1": "high"}', "'high' is no score"),
    (b'{"1-1": true}', "True is no score"),
    (b'{"1-1": [1, null]}', "None is no score"),
    (b'[["1-1", 1], ["1-1", 2]]', "head 1-1 is in it twice"),
    (b"[[1, 1.5, 2]]", "1.5 is no layer or head"),
    (b"[[-1, 1, 2]]", "negative layer or head"),
    (b"[[1, 1, 2], [1, 2]]", "some heads have a score and some have none"),
    (b"[1, 2]", "expected entries of layer, head and score"),
    (b"1\t2\n3\n", "different numbers of columns"),
    (b"1\tnan\n", "a gate is no number"),
    (b"layer,head\n1,2\n", "its format is not known; expected one of retrieval_head"),
    (b"\xff\xfe\x00", "neither text in UTF-8 nor a format that is known"),
    (b"[" * 100_000, "nested too deeply|Expecting|holds no list"),
    (b"PK\x03\x04junk", "holds no list of heads"),
    (b"\x89HDFjunk", "cannot be read as netCDF"),
    (b"\x93NUMPYjunk", "holds no list of heads"),
    (b'{"format": "nnheads heads", "version": 9}', "version 9 is not known; this nnheads reads 1"),
    (b'{"format": "nnheads heads", "version": 1}', "'unit' is missing"),
    (b'{"representations": []}', "no representations in it"),
    (
        b'{"representations": [[1, "head_attention_value_output"]]}',
        "pyvene names heads when it runs",
    ),
    (
        b'{"representations": [[1, "attention_value_output"]], "sorted_keys": ["../x"]}',
        "is no name of an intervention",
    ),
    (b'{"cfg": {}, "nodes": {}, "edges": {}}', "'n_layers' is missing"),
    (ONE + b'"nodes": {"a7.h0": {"in_graph": true}}, "edges": {}}', "'a7.h0' is no node"),
    (ONE + b'"nodes": {"m0": {"in_graph": 1}}, "edges": {}}', "does not say whether it is"),
    (
        b'{"cfg": {"n_layers": 1, "n_heads": 1}, "nodes": {}, "edges": {"m0": {}}}',
        "'m0' is no edge",
    ),
    (
        b'{"cfg": {"n_layers": 100000000, "n_heads": 1}, "nodes": {}, "edges": {}}',
        "more than any model has",
    ),
    (pickle.dumps(Hostile()), "something else than a tensor, which is not run"),
]


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_broken_and_hostile_files_are_one_line(tmp_path, number):
    content, message = BROKEN[number]
    path = put(tmp_path / "broken", content)
    with pytest.raises(BadInput, match=message) as raised:
        read_heads(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_hostile_pickles_inside_valid_containers_are_refused(tmp_path):
    torch.save({"x": Hostile()}, tmp_path / "a.pt")
    torch.save({"x": torch.ones(2)}, tmp_path / "b.pt")
    torch.save(torch.ones(2, dtype=torch.complex64), tmp_path / "c.pt")
    np.save(tmp_path / "a.npy", np.array([Hostile()], dtype=object), allow_pickle=True)
    np.save(tmp_path / "b.npy", np.zeros((2, 4)))
    for name, message in {
        "a.pt": "not run",
        "b.pt": "expected one tensor",
        "c.pt": "expected one tensor",
        "a.npy": "holds no list",
        "b.npy": r"got float64 of shape \(2, 4\)",
    }.items():
        with pytest.raises(BadInput, match=message):
            read_heads(tmp_path / name)


def test_nothing_to_read(tmp_path):
    with pytest.raises(BadInput, match=r"no file .*expected a list of heads or a run's folder"):
        read_heads(tmp_path / "none")
    with pytest.raises(
        BadInput, match=r"without any of full_attention_heads\.tsv, heads\.nc, intervention\.json"
    ):
        read_heads(tmp_path)


def read_or_refused(path: Path) -> None:
    try:
        heads = read_heads(path)
    except BadInput as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        assert (
            set(heads["score"].dims) <= {"layer", "head", KV} and not np.isinf(heads["score"]).any()
        )


@given(
    content=st.binary(max_size=200),
    start=st.sampled_from([b"", b"{", b"[", b"[[", b"PK\x03\x04", b"\x80", b"\x93NUMPY"]),
)
def test_any_bytes_are_read_or_refused(content, start, tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "a.json"
    read_or_refused(put(path, start + content))


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-3, 2000)
    | st.floats()
    | st.sampled_from(["1-2", "a0.h1", "m0", "", "x"])
)
NAMES = st.sampled_from(
    [
        "1-2",
        "0-0",
        "cfg",
        "nodes",
        "edges",
        "n_layers",
        "n_heads",
        "a0.h1",
        "input->m0",
        "in_graph",
        "score",
        "layer",
        "head",
        "format",
        "version",
        "unit",
        "layers",
        "heads",
        "scores",
        "attributes",
        "representations",
        "sorted_keys",
    ]
)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5)
)


@given(content=JSON)
def test_any_json_is_read_or_refused(content, tmp_path_factory):
    read_or_refused(put(tmp_path_factory.mktemp("json") / "a.json", json.dumps(content)))


@given(
    scores=st.dictionaries(
        st.tuples(st.integers(0, 40), st.integers(0, 40)),
        st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
        min_size=1,
        max_size=12,
    ),
    kind=st.sampled_from(
        ["scores", "records", "qrhead", "function_vectors", "array", "nnheads", "netcdf"]
    ),
)
def test_any_scores_make_a_round_trip(scores, kind, tmp_path_factory):
    heads = listed(list(scores), scores.values())
    path = tmp_path_factory.mktemp("trip") / f"a{ENDINGS[kind]}"
    again = read_heads(write_heads(heads, path, format=kind))
    assert again["score"].equals(heads["score"])
