"""Models of families that no table has: loaded, read, swapped, edited and saved like any other."""

from __future__ import annotations

import commands
import numpy as np
import pytest
import torch
from random_models import VOCABULARY, words_tokenizer

import nnheads
from nnheads.errors import BadInput, ModelError
from nnheads.interventions import ALL, Edit, Intervention, Zero
from nnheads.interventions.apply import run
from nnheads.interventions.files import load as load_edit
from nnheads.interventions.files import save as save_edit
from nnheads.models.families import FAMILIES, family
from nnheads.models.geometry import geometry
from nnheads.models.proven import usual
from nnheads.models.small import small
from nnheads.prompts.repeated import repeated
from nnheads.spans.measure import measure
from nnheads.truth.bias_homes import home_of

DERIVED = ("olmo3", "glm4", "deepseek_v3", "ministral3", "gemma3")  # the last one is a wrapper


@pytest.fixture(scope="module", params=DERIVED)
def folder(request, tmp_path_factory):
    """A random model of a family as a user would have it on disk."""
    from transformers import AutoModelForCausalLM

    config = small(usual(request.param))
    config.get_text_config().vocab_size = VOCABULARY
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)
    place = tmp_path_factory.mktemp(request.param)
    module.save_pretrained(place)
    words_tokenizer().save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("NNHEADS_CACHE", str(tmp_path_factory.mktemp("cache")))
        return nnheads.load(str(folder))


@pytest.fixture(scope="module")
def prompts(model):
    return nnheads.ioi(model.tokenizer, n=2, seed=0)


def plain_logits(model, prompts, token: str, layer: int, change=None):
    """The logits at the end, and z of a layer, of the model itself with a plain hook."""
    mask = torch.from_numpy(prompts["mask"].values).long()
    ids = torch.from_numpy(prompts[token].values).long() * mask
    given = {"input_ids": ids, "attention_mask": mask}
    given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    row, seen = family(model), []

    def hook(_, arguments):
        seen.append(arguments[0].clone())
        return None if change is None else (change(arguments[0].clone()), *arguments[1:])

    part = model._module.get_submodule(f"{row.layers}.{layer}.{row.projection}")
    handle = part.register_forward_pre_hook(hook)
    try:
        with torch.no_grad():
            return model._module(**given, use_cache=False).logits[:, -1], seen[0]
    finally:
        handle.remove()


def test_swapped_heads_are_what_plain_hooks_say(model, prompts):
    assert model.config.model_type not in FAMILIES, "or this says nothing"
    sizes = geometry(model)
    scores = nnheads.patch(model, prompts)
    for layer in (0, sizes.layers - 1):
        _, clean = plain_logits(model, prompts, "token", layer)
        for head in range(sizes.heads):
            own = slice(head * sizes.head_dim, (head + 1) * sizes.head_dim)

            def swap(z, own=own, clean=clean):
                z[..., own] = clean[..., own]
                return z

            logits, _ = plain_logits(model, prompts, "corrupted", layer, swap)
            rows = torch.arange(2)
            answer, wrong = (torch.from_numpy(prompts[one].values) for one in ("answer", "wrong"))
            expected = logits[rows, answer] - logits[rows, wrong]
            found = scores["logit_difference"].sel(layer=layer, head=head).values
            np.testing.assert_allclose(found, expected.numpy(), atol=2e-4 * abs(expected).max())


def test_attention_to_spans_is_that_of_eager_patterns(model):
    spans = repeated(model.tokenizer, 2, length=8, seed=1)
    found = measure(model, spans)["mass"]
    usual_way = model._module.config._attn_implementation
    model._module.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            ids = torch.from_numpy(spans["token"].values).long()
            patterns = model._module(ids, use_cache=False, output_attentions=True).attentions
    finally:
        model._module.set_attn_implementation(usual_way)
    kind = str(found["kind"].values[0])
    own = spans.isel(span=spans["kind"].values == kind)
    bounds = [own[name].values for name in ("query", "key_start", "key_stop")]
    for layer, pattern in enumerate(patterns):
        for case in range(2):
            each = [
                pattern[case, :, q, first:stop].sum(-1)
                for q, first, stop in zip(*(one[case] for one in bounds))
                if q >= 0
            ]
            expected = torch.stack(each).mean(0).numpy()
            mass = found.sel(kind=kind).isel(batch=case, layer=layer)
            np.testing.assert_allclose(mass, expected, atol=1e-4)


def test_what_heads_write_adds_up_to_the_logits(model, prompts):
    scores = nnheads.direct_logit_attribution(model, prompts)
    total = scores["attribution"].sum(("layer", "head"))
    total = total + scores["component_attribution"].sum("component")
    np.testing.assert_allclose(total, scores["logit_difference"], rtol=1e-3, atol=1e-3)


def test_an_intervention_is_saved_and_acts_as_a_hook_does(model, prompts, tmp_path):
    own = geometry(model).head_dim
    edit = Intervention(Edit("z", Zero(), layer=1, units=(0,), at=ALL))
    save_edit(edit, tmp_path / "edit")
    edited = run(model, load_edit(tmp_path / "edit"), prompts).edited[:, -1]

    def silent(z):
        z[..., :own] = 0
        return z

    expected, _ = plain_logits(model, prompts, "token", 1, silent)
    torch.testing.assert_close(edited, expected, atol=1e-3, rtol=1e-4)


def test_what_has_no_place_for_an_edit_is_refused_by_name(model):
    with pytest.raises(BadInput, match=f"family '{model.config.model_type}' has no bias"):
        home_of(model)


def test_composition_through_normed_values_is_refused(model):
    if model.config.model_type == "deepseek_v3":
        with pytest.raises(BadInput, match="norms what its values are made of"):
            nnheads.composition_scores(model, "v")
    else:
        assert np.isfinite(nnheads.composition_scores(model, "v")["composition"]).all()


def test_commands_take_it(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("NNHEADS_CACHE", str(tmp_path / "cache"))
    out = ("-q", "--output", str(tmp_path / "out"))
    said = commands.command("detect", "previous_token", folder, "-n", "2", *out)
    assert "previous_token: " in said and " heads beyond chance" in said
    heads = ("--heads", "0.0,1.1", "-n", "2", "--draws", "1", "--length", "8")
    said = commands.command("knockout", folder, *heads, *out)
    assert "heads L0H0, L1H1 (named)" in said


def test_a_model_that_does_not_hold_is_refused_with_the_failing_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NNHEADS_CACHE", str(tmp_path / "cache"))
    small(usual("granite_swa")).save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError, match=r"'granite_swa'.*cannot be derived.*rows computed again"):
        nnheads.load(str(tmp_path / "model"))
