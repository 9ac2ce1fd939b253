"""What cannot be meant is refused when it is written down."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnheads import interventions as iv
from nnheads.errors import BadInput
from nnheads.interventions.files import load, save
from nnheads.interventions.operation import Operation
from nnheads.interventions.operations import FromSource
from nnheads.interventions.positions import At


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: iv.Edit("nowhere", iv.Zero(), layer=0),
            "site 'nowhere' is not known; use one of resid_pre, attn_in, q, k",
        ),
        (
            lambda: iv.Edit("z", iv.Zero()),
            "site z takes a layer and no path, got layer None and path None",
        ),
        (
            lambda: iv.Edit("z", iv.Zero(), layer=0, path="a"),
            "site z takes a layer and no path, got layer 0 and path 'a'",
        ),
        (
            lambda: iv.Edit("input", iv.Zero(), layer=0),
            "site input takes a path and no layer, got layer 0 and path None",
        ),
        (
            lambda: iv.Edit("output", iv.Zero()),
            "site output takes a path and no layer, got layer None and path None",
        ),
        (
            lambda: iv.Edit("output", iv.Zero(), path="a..b"),
            "path 'a..b' is not possible; expected names with dots",
        ),
        (
            lambda: iv.Edit("output", iv.Zero(), path=3),
            "path 3 is not possible; expected names with dots",
        ),
        (
            lambda: iv.Edit("z", iv.Zero(), layer=-1),
            "layer -1 is not possible; layers count from 0",
        ),
        (
            lambda: iv.Edit("z", iv.Zero(), layer=True),
            "layer True is not possible; layers count from 0",
        ),
        (
            lambda: iv.Edit("z", "zero", layer=0),
            "'zero' is no operation; use one of zero, set, mean",
        ),
        (lambda: iv.Edit("z", Operation(), layer=0), r"Operation\(\) is no operation; use one of"),
        (
            lambda: iv.Edit("z", FromSource(), layer=0),
            r"FromSource\(.*\) is no operation; use one of",
        ),
        (
            lambda: iv.Edit("z", iv.Zero(), layer=0, at=3),
            "3 are no positions; use ALL, PROMPT, ANSWER, ANSWERING, DECODE, index",
        ),
        (
            lambda: iv.Edit("z", iv.Zero(), layer=0, units=()),
            r"units \(\) are not possible; name each once, from 0, or leave",
        ),
        (
            lambda: iv.Edit("z", iv.Zero(), layer=0, units=(1, 1)),
            r"units \(1, 1\) are not possible; name each once",
        ),
        (
            lambda: iv.Edit("z", iv.Zero(), layer=0, units=3),
            "units 3 are not possible; name each once",
        ),
        (
            lambda: iv.Edit("z", iv.Zero(), layer=0, neurons=(-1,)),
            r"neurons \(-1,\) are not possible; name each once",
        ),
        (
            lambda: iv.Edit("mlp_out", iv.Zero(), layer=0, units=(1,)),
            "site mlp_out has no heads; leave units out, or use one",
        ),
        (
            lambda: iv.Edit("pattern", iv.Zero(), layer=0, neurons=(1,)),
            "an attention pattern has keys and no neurons; leave",
        ),
        (
            lambda: At("somewhere"),
            "position 'somewhere' is not known; use one of all, index, slice, role",
        ),
        (lambda: At("all", (1,)), r"position 'all' cannot be \(1,\); it means every position"),
        (lambda: iv.index(), r"position 'index' cannot be \(\); it means these positions, counted"),
        (lambda: iv.index(1.5), r"position 'index' cannot be \(1.5,\); it means these positions"),
        (
            lambda: iv.span("a", None),
            r"position 'slice' cannot be \('a', None\); it means from one position to before",
        ),
        (lambda: At("slice", (1,)), r"position 'slice' cannot be \(1,\); it means"),
        (
            lambda: iv.role(3),
            r"position 'role' cannot be \(3,\); it means where the prompts have this role",
        ),
        (lambda: iv.steps(-1), "step -1 is not possible; steps count from 0"),
        (
            lambda: iv.Scale(torch.ones(3)),
            r"factor of scale is a Tensor; expected a number",
        ),
        (lambda: iv.Add("v", scale="big"), "scale of add is 'big'; expected a number"),
        (lambda: iv.Scale(True), "factor of scale is True; expected a number"),
        (lambda: iv.Mean(3.0), "value of mean is 3.0; expected text"),
        (lambda: iv.Noise(seed=0.5), "seed of noise is 0.5; expected a whole number"),
        (lambda: iv.Interchange(source=-1), "source -1 is not possible; sources count from 0"),
        (
            lambda: iv.Interchange(source_at=3),
            "source_at of interchange is 3; expected positions or None",
        ),
        (
            lambda: iv.Rotate(columns=()),
            r"columns of rotate is \(\); expected a tuple of whole numbers or None",
        ),
        (lambda: iv.Mask(temperature=0), "temperature 0 of mask is not possible"),
        (
            lambda: iv.Mask(rotation=2),
            "rotation of mask is 2; expected the name of a tensor or None",
        ),
        (
            lambda: iv.Function("somewhere"),
            "function of function is 'somewhere'; expected a function or its import path",
        ),
        (
            lambda: iv.Combine(),
            "function of combine is ''; expected a function or its import path, such as",
        ),
    ],
)
def test_edits_that_no_model_could_have(make, says):
    with pytest.raises(BadInput, match=f"^{says}") as refused:
        make()
    assert "\n" not in str(refused.value)


def whole(*operations: Operation, mode: str = "parallel", **tensors) -> iv.Intervention:
    return iv.Intervention(
        *(iv.Edit("resid_pre", do, layer=0) for do in operations), tensors=tensors, mode=mode
    )


SQUARE, TALL = torch.eye(4), torch.eye(4)[:, :2]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: whole(mode="both"), "mode 'both' is not known; use parallel or serial"),
        (
            lambda: iv.Intervention(iv.Zero()),
            r"Zero\(\) is no Edit; an intervention is made of them",
        ),
        (lambda: whole(v=[1.0]), "tensor 'v' is a list; expected a torch.Tensor"),
        (lambda: whole(iv.Set("v"), w=SQUARE), "set needs a tensor 'v'.* w"),
        (lambda: whole(iv.Rotate()), "rotate needs a tensor 'rotation'.* none"),
        (
            lambda: whole(iv.Interchange(source=1)),
            r"sources \[1\] leave numbers out; count them from 0",
        ),
        (
            lambda: whole(iv.Collect(key="a"), iv.Collect(key="a")),
            "'a' is collected twice; give each collection a key of its own",
        ),
        (
            lambda: whole(iv.Rotate(), rotation=torch.ones(4)),
            r"rotation 'rotation' has shape \(4,\); expected \[feature,",
        ),
        (
            lambda: whole(iv.PCA(), rotation=TALL.T),
            r"rotation 'rotation' has shape \(2, 4\); expected \[feature, direction",
        ),
        (
            lambda: whole(iv.LowRank(), rotation=SQUARE),
            "rotation 'rotation' has as many directions as features; low rank",
        ),
        (
            lambda: whole(iv.Rotate(columns=(2,)), rotation=TALL),
            "direction 2 does not exist; 'rotation' has 2",
        ),
        (
            lambda: whole(iv.Rotate(columns=(-1,)), rotation=TALL),
            "direction -1 does not exist; 'rotation' has 2",
        ),
        (
            lambda: whole(iv.Boundless(), rotation=SQUARE, boundary=torch.ones(2)),
            r"boundary 'boundary' has shape \(2,\)",
        ),
        (
            lambda: whole(iv.Mask(), mask=SQUARE),
            r"mask 'mask' has shape \(4, 4\); expected a number for each feature",
        ),
        (
            lambda: whole(iv.Mask(rotation="r"), mask=torch.ones(4), r=TALL),
            "mask 'mask' has 4 numbers; 'r' has 2 directions",
        ),
    ],
)
def test_interventions_that_do_not_hold_together(make, says):
    with pytest.raises(BadInput, match=f"^{says}"):
        make()


def test_interventions_can_be_compared():
    one, same = (whole(iv.Set("v"), v=torch.tensor([1.0, 2.0])) for _ in range(2))
    assert one == same
    assert one != whole(iv.Set("v"), v=torch.tensor([1.0, 3.0]))
    assert one != whole(iv.Set("v"), v=torch.tensor([1.0, 2.0]).double())
    assert one != whole(iv.Set("v"), v=torch.tensor([1.0, 2.0]), mode="serial")
    assert one != "an intervention"
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_lists_are_taken_as_tuples_and_sources_are_counted():
    edit = iv.Edit("z", iv.Rotate(columns=[0, 1]), layer=2, units=[3], neurons=range(2))
    assert (edit.units, edit.neurons, edit.do.columns, edit.at) == ((3,), (0, 1), (0, 1), iv.ALL)
    several = whole(iv.Interchange(), iv.AddSource(source=1), iv.Interchange(source=1), iv.Zero())
    assert several.sources == 2


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32])
def test_whole_numbers_of_any_kind_are_kept_as_plain_ones(kind, tmp_path):
    """Layers and heads that come out of an array or a dataset."""
    units, neurons = (kind(0), kind(3)), (kind(4),)
    edit = iv.Edit(
        "z",
        iv.Add("v", scale=kind(2)),
        layer=kind(1),
        units=units,
        neurons=neurons,
        at=iv.index(kind(2)),
    )
    assert edit == iv.Edit(
        "z", iv.Add("v", scale=2), layer=1, units=(0, 3), neurons=(4,), at=iv.index(2)
    )
    source = iv.Rotate(source=kind(0), source_at=iv.span(kind(1), None), columns=(kind(0), kind(1)))
    held = [
        edit.layer,
        *edit.units,
        *edit.neurons,
        *edit.at.values,
        *iv.steps(kind(0)).values,
        edit.do.scale,
    ]
    held += [
        source.source,
        *source.source_at.values[:1],
        *source.columns,
        iv.Noise(seed=kind(5)).seed,
    ]
    assert {type(one) for one in held} == {int}
    found = iv.Intervention(edit, tensors={"v": torch.ones(2)})
    assert load(save(found, tmp_path / "edit")) == found


def test_an_array_is_a_choice_of_units_and_truth_values_are_no_numbers():
    assert iv.Edit("z", iv.Zero(), layer=0, units=np.array([1, 2])).units == (1, 2)
    for wrong in (np.bool_(True), np.float64(1), np.array([1, 2])):
        with pytest.raises(BadInput, match="is not possible; layers count from 0"):
            iv.Edit("z", iv.Zero(), layer=wrong)
    with pytest.raises(BadInput, match="are not possible; name each once"):
        iv.Edit("z", iv.Zero(), layer=0, units=np.array([[1, 2]]))


def test_numbers_of_any_kind_are_strengths():
    assert (
        iv.Add("v", scale=np.float32(0.5)) == iv.Add("v", scale=0.5)
        and type(iv.Scale(np.float32(0.5)).factor) is float
    )


def test_tensors_may_stand_in_an_operation_and_are_named_by_where_it_acts():
    vector = torch.arange(48.0)
    edits = [
        iv.Edit("resid_post", iv.Add(vector), layer=1),
        iv.Edit("resid_post", iv.Add(vector), layer=2),
    ]
    given = iv.Intervention(*edits)
    assert list(given.tensors) == ["add_resid_post_1"], "one tensor has one name"
    assert [edit.do.value for edit in given.edits] == ["add_resid_post_1"] * 2
    by_name = iv.Intervention(
        *(iv.Edit("resid_post", iv.Add("add_resid_post_1"), layer=layer) for layer in (1, 2)),
        tensors={"add_resid_post_1": vector},
    )
    assert given == by_name


@pytest.mark.parametrize(
    "value", [torch.ones(3), np.ones(3), [1, 2, 3], (1.0, 2.0, 3.0), torch.ones(1, 3)]
)
def test_every_form_of_a_tensor_will_do(value):
    (name,) = iv.Intervention(iv.Edit("mlp_out", iv.Set(value), layer=0)).tensors
    assert name == "set_mlp_out_0"


@pytest.mark.parametrize("value", [None, [], ["a"], {}, object()])
def test_what_is_no_tensor_is_refused(value):
    with pytest.raises(BadInput, match="expected a number, a tensor, or the name of one"):
        iv.Set(value)


def test_what_is_collected_without_a_key_is_named_by_site_and_layer():
    one = iv.Intervention(iv.Edit("z", iv.Collect(), layer=3))
    assert one.edits[0].do.key == "collected"
    several = [iv.Edit("z", iv.Collect(), layer=3), iv.Edit("z", iv.Collect(), layer=4)]
    ends = [
        iv.Edit("z", iv.Collect(), layer=4, at=iv.index(-1)),
        iv.Edit("q", iv.Collect(key="own"), layer=0),
    ]
    keys = [edit.do.key for edit in iv.Intervention(*several, *ends).edits]
    assert keys == ["z_3", "z_4", "z_4_2", "own"]
    with pytest.raises(BadInput, match="collected twice"):
        iv.Intervention(*(iv.Edit("z", iv.Collect(key="own"), layer=layer) for layer in (0, 1)))
