"""Folders that pyvene wrote: its numbers are ours, and what is no plain weight or cannot be
honoured is refused.
"""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
import xarray as xr
from data.pyvene.formula import BASE, SOURCE, network
from random_models import words_tokenizer
from safetensors.torch import load_file

from nnheads import interventions as iv
from nnheads.errors import BadInput
from nnheads.interventions.apply import run
from nnheads.interventions.pyvene_folders import read_pyvene
from nnheads.models.families import FAMILIES

DATA = Path(__file__).parent.parent / "data" / "pyvene"
CASES = json.loads((DATA / "cases.json").read_text())
EXPECTED = load_file(DATA / "expected.safetensors")
ONE = {"sources->base": (1, 3)}


@functools.cache
def model(family: str):
    """The model of tests/data/pyvene/make.py: its weights are a formula."""
    from nnsight import TransformersModel

    module = network(family).requires_grad_(False)
    return TransformersModel(module, tokenizer=words_tokenizer(), rename=FAMILIES[family].rename())


def prompts(ids: list[list[int]]) -> xr.Dataset:
    place = ("batch", "position")
    return xr.Dataset({"token": (place, ids), "mask": (place, [[1] * 6] * 2)})


@pytest.mark.parametrize("name", sorted(CASES))
def test_its_numbers_are_ours(name):
    case = CASES[name]
    folder = read_pyvene(DATA / name, model(case["family"]))
    edits = folder.at(case["unit_locations"], case.get("subspaces"))
    result = run(model(case["family"]), edits, prompts(BASE), [prompts(SOURCE)] * edits.sources)
    assert float((result.edited - EXPECTED[name]).abs().max()) < 2e-5 * float(
        EXPECTED[name].abs().max()
    )
    if name == "collect":
        (found,) = result.collected.values()
        torch.testing.assert_close(found, EXPECTED["collect.collected"], atol=1e-5, rtol=1e-5)
    else:
        assert float((result.edited - result.original).abs().max()) > 1e-3


def read(name: str):
    return read_pyvene(DATA / name, model(CASES[name]["family"]))


def test_what_is_read_is_what_was_meant():
    everywhere = read("everywhere").intervention
    assert [(edit.site, edit.layer, edit.at) for edit in everywhere.edits] == [
        ("z", 1, iv.ALL),
        ("z", 0, iv.ALL),
    ]
    assert all(isinstance(edit.do, iv.Add) for edit in everywhere.edits)
    (subtract,) = read("subtract").at({"base": [0, 4]}).edits  # pyvene would take the second alone
    assert (subtract.site, subtract.at, type(subtract.do)) == (
        "resid_pre",
        iv.index(0, 4),
        iv.Subtract,
    )
    (heads,) = read("heads").at(CASES["heads"]["unit_locations"]).edits
    assert heads == iv.Edit(
        "z", iv.Interchange(source_at=iv.index(2, 4)), layer=1, units=(0, 3), at=iv.index(3, 5)
    )
    (collect,) = read("collect").intervention.edits
    assert collect.do == iv.Collect("layer_1_comp_attention_input_unit_pos_nunit_3#0")
    (rotated,) = read("rotated").at(ONE, subspaces=1).edits
    assert isinstance(rotated.do, iv.Rotate)
    assert rotated.do.columns == tuple(range(5, 16))
    (low,) = read("low-rank").at(ONE).edits
    assert isinstance(low.do, iv.LowRank)
    rotation = read("low-rank").intervention.tensors[low.do.rotation]
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3))


def test_sources_are_shared_or_of_each_part():
    assert read("two").intervention.sources == 1
    own = read_pyvene(DATA / "two", model("llama"), shared=False).at(CASES["two"]["unit_locations"])
    assert [edit.do.source for edit in own.edits] == [0, 1]
    assert [edit.do.source_at for edit in own.edits] == [iv.index(0), iv.index(2)]


def test_serial_locations():
    folder = read_pyvene(DATA / "two", model("llama"), shared=False)
    edits = folder.at({"source_0->source_1": (0, 2), "source_1->base": (3, 4)}).edits
    assert [(edit.do.source_at, edit.at) for edit in edits] == [
        (iv.index(0), iv.index(2)),
        (iv.index(3), iv.index(4)),
    ]
    with pytest.raises(BadInput, match="unit_locations have source_0->base"):
        folder.at({"source_0->base": (0, 2)})


@pytest.fixture
def changed(tmp_path):
    """A copy of a folder with another config."""

    def change(name: str, **fields):
        shutil.copytree(DATA / name, tmp_path / name)
        path = tmp_path / name / "config.json"
        config = json.loads(path.read_text())
        whole = {key: value for key, value in fields.items() if not key.isdigit() and key[0] != "_"}
        config.update(whole)
        for place, value in fields.items():
            if place[0] == "_":
                config["representations"][0][int(place[1:])] = value
        path.write_text(json.dumps(config))
        return tmp_path / name

    return change


MODULE = "<class 'pyvene.models.interventions.{}'>"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"intervention_types": [MODULE.format("AutoencoderIntervention")]},
            "type AutoencoderIntervention$",
        ),
        (
            {"intervention_types": [MODULE.format("NoiseIntervention")]},
            r"intervention_type NoiseIntervention \(its numbers are not in the folder\)$",
        ),
        ({"intervention_types": ["<class 'evil.Module'>"]}, "intervention_type Module$"),
        ({"_2": "t"}, "unit t"),
        ({"_2": "h.pos"}, "unit h.pos of component mlp_output"),
        ({"_10": 3}, "moe_key 3$"),
        ({"_1": "router_output"}, "component router_output$"),
        ({"_1": "router_output", "_10": 3}, "moe_key 3; .*component router_output$"),
        ({"representations": [], "intervention_types": [0]}, "is no config of pyvene"),
        (
            {"representations": 3},
            "is no config of pyvene: it has no representations with as many intervention_types$",
        ),
        (
            {"representations": [[0] * 20]},
            "representation .* is not known; expected layer, component",
        ),
        ({"representations": [{"where": 3}]}, "representation {'where': 3} is not known"),
        ({"_0": "one"}, "layer is 'one'; expected int$"),
        ({"_0": 5}, "layer 5 does not exist; this model has layers 0 to 1$"),
        ({"_1": "transformer.h[9].mlp.output"}, None),
        ({"mode": "both"}, "mode 'both' is not known; expected parallel or serial$"),
        (
            {"intervention_dimensions": []},
            r"intervention_dimensions is \[\]; expected a list of 1$",
        ),
        ({"_7": [3]}, r"subspace_partition is \[3\]; expected lists of whole numbers$"),
        ({"_1": "../x.input"}, "component ../x.input$"),
        ({"_1": "../x.input", "sorted_keys": None}, "is no name of an intervention of pyvene$"),
        ({"sorted_keys": ["../other"]}, "'../other' is no name of an intervention of pyvene"),
    ],
)
def test_what_cannot_be_honoured_is_named(changed, fields, says):
    folder = changed("vanilla", **fields)
    with pytest.raises(BadInput, match=says) as refused:
        run(
            model("llama"),
            read_pyvene(folder, model("llama")).intervention,
            prompts(BASE),
            [prompts(SOURCE)],
        )
    assert "\n" not in str(refused.value)


def test_a_smaller_dimension_is_a_choice_of_features(changed):
    (edit,) = read_pyvene(
        changed("vanilla", intervention_dimensions=[5]), model("llama")
    ).intervention.edits
    assert edit.neurons == (0, 1, 2, 3, 4)
    (edit,) = read_pyvene(
        changed("rotated", intervention_dimensions=[5]), model("llama")
    ).intervention.edits
    assert edit.do.columns == (0, 1, 2, 3, 4)


def test_folders_of_older_versions(changed):
    """They have twelve fields, dots in their names, and say of a constant source only that there is
    one.
    """
    folder = changed(
        "set",
        intervention_constant_sources=None,
        sorted_keys=["layer.1.comp.mlp_input.unit.pos.nunit.1#0"],
    )
    config = json.loads((folder / "config.json").read_text())
    config["representations"] = [
        [1, "mlp_input", "pos", 1, None, None, None, None, None, None, None, True]
    ]
    (folder / "config.json").write_text(json.dumps(config))
    (path,) = folder.glob("*.bin")
    path.rename(folder / "intkey_layer.1.comp.mlp_input.unit.pos.nunit.1#0.bin")
    old, new = (read_pyvene(one, model("llama")).at({"base": 4}) for one in (folder, DATA / "set"))
    results = [run(model("llama"), edits, prompts(BASE)).edited for edits in (old, new)]
    assert torch.equal(*results)


def test_what_is_ignored_is_listed(changed):
    cut = changed("heads", intervention_dimensions=[6])
    name = "layer_1_comp_head_attention_value_output_unit_h_pos_nunit_2#0"
    whole = f"{name}: intervention_dimensions 6; whole heads are taken, 8 features"
    assert read_pyvene(cut, model("llama")).ignored == (whole,)
    folder = changed("linked", model_type="<class 'LlamaForCausalLM'>")
    assert read_pyvene(folder, model("llama")).ignored == (
        "model_type \"<class 'LlamaForCausalLM'>\"",
    )
    assert next(iter(read_pyvene(folder, model("llama")).intervention.tensors)) == "link 0 rotation"


class Marks:
    """Unpickling this writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_files_hold_weights_alone(changed, tmp_path):
    folder = changed("low-rank")
    (path,) = folder.glob("*.bin")
    for content, says in (
        (
            {"rotate_layer.weight": Marks(tmp_path / "executed")},
            "cannot be read as weights alone: ",
        ),
        ([torch.eye(3)], "holds something else than named tensors$"),
        ({"mask": torch.eye(3)}, "has no parametrizations.weight.original; it holds nothing$"),
        (
            {"rotate_layer.parametrizations.weight.original": torch.eye(3)},
            "holds no rotation: Error",
        ),
    ):
        torch.save(content, path)
        with pytest.raises(BadInput, match=says) as refused:
            read_pyvene(folder, model("llama"))
        assert "\n" not in str(refused.value)
    path.write_bytes(b"nothing")
    with pytest.raises(BadInput, match="cannot be read as weights alone: "):
        read_pyvene(folder, model("llama"))
    path.unlink()
    with pytest.raises(BadInput, match=r"no file '.*bin'; config.json names it$"):
        read_pyvene(folder, model("llama"))
    assert not (tmp_path / "executed").exists()
    with pytest.raises(BadInput, match=r"is a folder without config.json"):
        read_pyvene(tmp_path, model("llama"))


@pytest.mark.parametrize(
    ("name", "where", "says"),
    [
        (
            "vanilla",
            {"sources->base": ([[[1], [2]]], [[[1], [1]]])},
            "differ from row to row; name a role of the prompts",
        ),
        (
            "vanilla",
            {"sources->base": ([[[1], [1]]] * 2, [[[1], [1]]])},
            "unit_locations name 2 parts; this folder has 1",
        ),
        ("vanilla", 3, "unit_locations are 3; expected a dict such as {'sources->base': ...}"),
        (
            "heads",
            {"sources->base": ([[[[0]] * 2, [[2]] * 2]], [[[[1]] * 2, [[3]] * 2]])},
            "takes other heads of the source",
        ),
    ],
)
def test_locations_that_an_edit_cannot_have(name, where, says):
    with pytest.raises(BadInput, match=says):
        read(name).at(where)


def test_subspaces_that_are_not_there():
    with pytest.raises(BadInput, match=r"subspace 2 of .* does not exist; it has 2$"):
        read("rotated").at(ONE, subspaces=[2])
    with pytest.raises(BadInput, match="has no subspaces to choose from"):
        read("mask").at(ONE, subspaces=[2])
    with pytest.raises(BadInput, match="subspaces name 2 parts; this folder has 1"):
        read("rotated").at(ONE, subspaces=[[[0]], [[0]]])


def test_a_constant_for_each_of_several_heads():
    edits = read("head-constant").at({"sources->base": (None, [[[[1, 3]] * 2, [[2]] * 2]])})
    (edit,) = edits.edits
    assert edit.units == (1, 3)
    assert edits.tensors[edit.do.value].shape == (8,)


def test_outputs_are_those_before_a_norm_that_the_family_puts_behind_them():
    """pyvene names the modules themselves; our sites are what joins the residual stream."""
    from random_models import tiny

    from nnheads.interventions.pyvene_components import everywhere
    from nnheads.interventions.pyvene_weights import Stored

    gemma, _ = tiny("gemma2")
    fields = {"layer": 1, "unit": "pos", "max_number_of_units": 1, "subspace_partition": None}
    stored = Stored("part", "part", {})
    for component, path in (("attention_output", "self_attn"), ("mlp_output", "mlp")):
        part = everywhere(gemma, {**fields, "component": component}, iv.Zero(), stored)
        assert (part.edit.site, part.edit.path) == ("output", f"model.layers.1.{path}")
