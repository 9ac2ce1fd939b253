"""Baking: on every family the checkpoint gives the live edit's logits, in plain transformers, or it
is refused.
"""

from __future__ import annotations

from operator import attrgetter

import numpy as np
import pytest
import torch
import xarray as xr
from oracle import fed
from random_models import VOCABULARY, build, tiny, words_tokenizer

from nnheads import interventions as iv
from nnheads.errors import BadInput, RunError
from nnheads.models.families import FAMILIES
from nnheads.models.geometry import geometry
from nnheads.truth import baked_checkpoint
from nnheads.truth.bake import Baked, bake, push
from nnheads.truth.bias_homes import ALWAYS, AS_LLAMA, BESIDE, SWITCHES, VALUES

NO_PLACE = {
    "mixtral": "in any configuration",
    "phi3": "in any configuration",
    **dict.fromkeys(VALUES, "and its heads share values, so that these cannot hold it either"),
    "mistral": "and its sliding window keeps it from being saved as Llama",
}


def prompts() -> xr.Dataset:
    generator = np.random.default_rng(3)
    token, mask = generator.integers(4, VOCABULARY, (2, 9)), np.ones((2, 9), np.int8)
    mask[1, :4] = 0
    return xr.Dataset(
        {"token": (("batch", "position"), token), "mask": (("batch", "position"), mask)},
        {"batch": [0, 1]},
    )


def moves(model, seed: int = 0, **options) -> iv.Intervention:
    """Two heads of one layer and one of another."""
    generator = torch.Generator().manual_seed(seed)
    dim = geometry(model).head_dim
    tensors = {
        "first": torch.randn(2 * dim, generator=generator),
        "last": torch.randn(dim, generator=generator),
    }
    return iv.Intervention(
        iv.Edit("z", iv.Add("first", scale=0.7), layer=0, units=(1, 3), **options),
        iv.Edit("z", iv.Subtract("last", scale=0.4), layer=2, units=(2,), **options),
        tensors=tensors,
    )


def hooked_logits(module, model_type: str, edit: iv.Intervention, given: dict) -> torch.Tensor:
    """Logits of a run whose head outputs are moved by plain hooks."""
    row, handles = FAMILIES[model_type], []
    for one in edit.edits:
        projection = attrgetter(row.projection)(attrgetter(row.layers)(module)[one.layer])
        sign = one.do.scale * (1 if isinstance(one.do, iv.Add) else -1)
        value = sign * edit.tensors[one.do.value].reshape(len(one.units), -1)

        def before(_, arguments, units=one.units, value=value):
            z = arguments[0].unflatten(-1, (4, -1)).clone()
            z[:, :, list(units)] += value
            return (z.flatten(-2),)

        handles.append(projection.register_forward_pre_hook(before))
    with torch.no_grad():
        logits = module(**given, use_cache=False).logits
    for handle in handles:
        handle.remove()
    return logits


def test_every_family_is_known_to_baking():
    known = {*ALWAYS, *SWITCHES, *BESIDE, *VALUES, *AS_LLAMA, *NO_PLACE}
    assert known == set(FAMILIES)


@pytest.mark.parametrize("model_type", sorted({*ALWAYS, *SWITCHES, *BESIDE, "qwen2"}))
def test_plain_transformers_gives_the_edited_logits(model_type, tmp_path):
    from transformers import AutoModelForCausalLM

    model, module = tiny(model_type)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    edit, asked = moves(model), prompts()
    done = bake(model, edit, tmp_path / "baked", asked)
    assert done.difference <= 1e-4 and done.moved > 0.05
    given = fed(
        model_type,
        torch.from_numpy(asked["token"].values),
        torch.from_numpy(asked["mask"].values).long(),
    )
    eager = {} if FAMILIES[model_type].interface else {"attn_implementation": "eager"}
    plain = AutoModelForCausalLM.from_pretrained(
        tmp_path / "baked", dtype=torch.float32, **eager
    ).eval()
    with torch.no_grad():
        logits = plain(**given, use_cache=False).logits
    real = given["attention_mask"].bool()
    wanted = hooked_logits(module, model_type, edit, given)
    assert torch.allclose(logits[real], wanted[real], atol=1e-4)
    after = module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), (
        "the model itself is left alone"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["baked"]
    assert "3 head outputs of the model" in (tmp_path / "baked" / "README.md").read_text()


@pytest.mark.parametrize("model_type", NO_PLACE)
def test_families_without_a_place_are_refused_by_name(model_type, tmp_path):
    model, _ = tiny(model_type)
    wanted = (
        f"family '{model_type}' has no bias at its attention output projection"
        f" {NO_PLACE[model_type]}; share the"
    )
    with pytest.raises(BadInput, match=wanted):
        bake(model, moves(model), tmp_path / "baked", prompts())
    assert not list(tmp_path.iterdir())


def wrapped(model_type: str, **changes):
    from nnsight import TransformersModel

    module = build(model_type, **changes)
    return TransformersModel(
        module, tokenizer=words_tokenizer(), rename=FAMILIES[model_type].rename()
    )


def test_a_mistral_without_window_is_saved_as_llama(tmp_path):
    model = wrapped("mistral", sliding_window=None)
    done = bake(model, moves(model), tmp_path / "baked", prompts())
    assert done.family == "llama" and done.difference <= 1e-4 < done.moved


@pytest.mark.parametrize("model_type", VALUES)
def test_values_of_one_head_each_can_hold_the_edit(model_type, tmp_path):
    model = wrapped(model_type, num_key_value_heads=4)
    done = bake(model, moves(model), tmp_path / "baked", prompts())
    assert done.family == model_type and done.difference <= 1e-4 < done.moved
    assert "the bias of self_attn.v_proj holds" in (tmp_path / "baked" / "README.md").read_text()


def test_a_qwen2_with_window_is_refused(tmp_path):
    model = wrapped("qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1)
    with pytest.raises(BadInput, match="sliding window keeps it from being saved as Llama"):
        bake(model, moves(model), tmp_path / "baked", prompts())


def test_a_bias_without_w_o_fails_the_check(tmp_path, monkeypatch):
    model = wrapped(
        "llama", head_dim=12
    )  # as many features as the residual stream, or it could not even be tried
    monkeypatch.setattr(baked_checkpoint, "through", lambda projection, v: v)
    with pytest.raises(
        RunError,
        match=r"logits differ by .* from those of the live edit, more than 1e-04",
    ):
        bake(model, moves(model), tmp_path / "baked", prompts())
    assert not list(tmp_path.iterdir())


def test_a_bias_that_was_there_stays_in_the_sum(tmp_path):
    model, module = tiny("gpt2")
    bake(model, moves(model), tmp_path / "baked", prompts())
    from safetensors.torch import load_file

    old, new = module.state_dict(), load_file(tmp_path / "baked" / "model.safetensors")
    name = "transformer.h.{}.attn.c_proj.bias"
    assert torch.equal(old[name.format(1)], new[name.format(1)]), (
        "a layer without edit keeps its bias"
    )
    z = torch.zeros(4, 12)
    z[[1, 3]] = 0.7 * moves(model).tensors["first"].reshape(2, 12)
    weight = old["transformer.h.0.attn.c_proj.weight"]
    assert torch.allclose(
        new[name.format(0)], old[name.format(0)] + z.flatten() @ weight, atol=1e-5
    )


def test_a_constant_and_single_features_are_added_where_they_belong(tmp_path):
    model, _ = tiny("llama")
    edit = iv.Intervention(
        iv.Edit("z", iv.Add(0.5, scale=2.0), layer=1),
        iv.Edit("z", iv.Add(1.0), layer=1, units=(0,), neurons=(3, 5)),
    )
    assert bake(model, edit, tmp_path / "baked", prompts()).difference <= 1e-4


@pytest.mark.parametrize("at", [iv.ANSWER, iv.DECODE, iv.index(-1)])
def test_an_edit_of_some_positions_cannot_be_baked(at, tmp_path):
    model, _ = tiny("llama")
    with pytest.raises(
        BadInput, match=f"an edit at {at.kind} cannot be baked: a bias acts at every position"
    ):
        bake(model, moves(model, at=at), tmp_path / "baked", prompts())


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (iv.Intervention(), "has no edits; there is nothing to bake"),
        (iv.Intervention(iv.Edit("z", iv.Scale(0.5), layer=0)), "a bias cannot hold scale at z"),
        (
            iv.Intervention(iv.Edit("resid_post", iv.Add(1.0), layer=0)),
            "a bias cannot hold add at resid_post",
        ),
        (iv.Intervention(iv.Edit("z", iv.Add(1.0), layer=9)), "layer 9 does not exist"),
    ],
)
def test_what_no_bias_can_hold_is_refused(edit, said, tmp_path):
    with pytest.raises(BadInput, match=said):
        bake(tiny("llama")[0], edit, tmp_path / "baked", prompts())


def test_a_folder_in_use_and_other_dtypes_are_refused(tmp_path):
    from nnheads.models.load import load

    model, _ = tiny("llama")
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(BadInput, match="exists already; name a folder that does not"):
            bake(model, moves(model), place, prompts())
    half = wrapped("llama")
    half._module.bfloat16()
    with pytest.raises(BadInput, match="the model is in bfloat16"):
        bake(half, moves(half), tmp_path / "baked", prompts())
    lazy = load("reference", remote="http://127.0.0.1:1")
    with pytest.raises(BadInput, match="load the model without remote"):
        bake(
            lazy,
            iv.Intervention(iv.Edit("z", iv.Add(1.0), layer=0, at=iv.ALL)),
            tmp_path / "baked",
            prompts(),
        )


def test_pushing_uploads_the_folder_and_says_in_one_line_why_not(tmp_path, monkeypatch):
    import huggingface_hub

    model, _ = tiny("llama")
    done = bake(model, moves(model), tmp_path / "baked", prompts())
    assert isinstance(done, Baked)
    calls = []

    class Hub:
        def create_repo(self, repository, **options):
            calls.append((repository, options["private"]))

        def upload_folder(self, *, repo_id, folder_path):
            calls.append(folder_path)
            return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert push(done.folder, "me/baked", private=True) == "https://huggingface.co/me/baked"
    assert calls == [("me/baked", True), done.folder]
    monkeypatch.setattr(
        Hub, "upload_folder", lambda *_, **__: (_ for _ in ()).throw(OSError("no network\nat all"))
    )
    with pytest.raises(BadInput, match=r"cannot push to 'me/baked': no network"):
        push(done.folder, "me/baked")
    with pytest.raises(BadInput, match="holds no checkpoint"):
        push(tmp_path, "me/baked")
