"""Weights in fewer bits, and models spread over devices: what is passed on, what is refused, and
the same numbers.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from nnheads.recipes import _app as cli
from nnheads.recipes import command, recipes
from nnsight import TransformersModel
from random_models import build, words_tokenizer

import nnheads
from nnheads.errors import ModelError
from nnheads.models.families import FAMILIES
from nnheads.models.geometry import model_spec
from nnheads.models.inputs import inputs
from nnheads.runs.provenance import model_identity, precision

FOUR = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "load_in_8bit": False,
    "bnb_4bit_quant_type": "nf4",
}
PARTS = (
    "model.embed_tokens",
    "model.layers.0",
    "model.layers.1",
    "model.layers.2",
    "model.norm",
    "lm_head",
)
WITHOUT = {"report", "verify"}  # have --dtype, and no --quantization yet


class Packed(torch.nn.Module):
    """A linear layer as bitsandbytes leaves it: `in_features`, and a weight that is no matrix of
    the layer's shape.
    """

    def __init__(self, linear: torch.nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.abs().amax(1, keepdim=True) / 127
        packed = (linear.weight / scale).round().to(torch.int8).reshape(-1, 1)
        self.weight = torch.nn.Parameter(packed, requires_grad=False)
        self.register_buffer("scale", scale)

    def matrix(self) -> torch.Tensor:
        return self.weight.reshape(self.out_features, self.in_features) * self.scale

    def forward(self, x):
        return torch.nn.functional.linear(x, self.matrix().to(x.dtype))


def packed_and_plain():
    """A Llama with packed layers, and one whose ordinary layers hold what the packed ones stand
    for.
    """
    packed, plain = build("llama"), build("llama")
    for name, module in list(packed.named_modules()):
        if isinstance(module, torch.nn.Linear) and "layers" in name:
            parent, _, own = name.rpartition(".")
            replaced = Packed(module)
            setattr(packed.get_submodule(parent), own, replaced)
            plain.get_submodule(name).weight = torch.nn.Parameter(
                replaced.matrix(), requires_grad=False
            )
    rename = FAMILIES["llama"].rename()
    return [
        TransformersModel(one, tokenizer=words_tokenizer(), rename=rename)
        for one in (packed, plain)
    ]


def numbers(model) -> dict[str, np.ndarray]:
    """Reading, swapping, gradients and writing: all that touches a model's modules."""
    from nnheads.patching.attribution import attribute

    prompts = nnheads.ioi(model.tokenizer, n=3)
    return {
        "mass": nnheads.detect(model, "induction", n=3, length=12)["mass"].values,
        "effect": nnheads.patch(model, prompts)["effect"].values,
        "estimate": attribute(model, prompts)["estimate"].values,
        "copy": nnheads.copy_scores(model, ["Mary", "John", "Anna", "Paul"])["copy"].values,
    }


def test_packed_projections_are_read_as_what_they_stand_for():
    packed, plain = packed_and_plain()
    assert packed.layers[0].attention.projection._module.weight.shape == (48 * 64, 1)
    assert nnheads.geometry(packed) == nnheads.geometry(plain) and model_spec(packed) == model_spec(
        plain
    )
    there = numbers(plain)
    for name, values in numbers(packed).items():
        assert np.isfinite(values).any()
        np.testing.assert_allclose(values, there[name], atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "3bit"}, "quantization '3bit' is not known; use one of 4bit, 8bit"),
        (
            {"quantization": "4bit", "remote": "http://127.0.0.1:9"},
            "4bit is not possible on a server, which decides",
        ),
        (
            {"quantization": "8bit", "dtype": "float32"},
            "8bit computes in float16, not in float32; leave --dtype out",
        ),
        ({"quantization": "4bit", "dtype": "int4"}, "dtype 'int4' is not known"),
    ],
)
def test_what_cannot_be_is_refused(options, message, llama_folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    with pytest.raises(ModelError, match=message):
        nnheads.load(str(llama_folder), **options)


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_without_bitsandbytes_one_line_says_what_to_install(
    quantization, monkeypatch, tmp_path, capsys
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name)
    )
    with pytest.raises(SystemExit) as ended:
        cli.app(["ioi", "--quantization", quantization, "-o", str(tmp_path)])
    assert ended.value.code == 2
    said = (
        f"error: quantization {quantization} needs bitsandbytes; pip install 'nnheads[quantized]'\n"
    )
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("options", "passed"),
    [
        ({"quantization": "4bit"}, {"dtype": "4bit"}),
        (
            {"quantization": "4bit", "dtype": "float32"},
            {"dtype": "4bit", "compute_dtype": "float32"},
        ),
        ({"quantization": "8bit"}, {"dtype": "8bit"}),
        ({"dtype": "bfloat16"}, {"dtype": "bfloat16"}),
        ({"device_map": "auto"}, {"dtype": "auto", "device_map": "auto"}),
    ],
)
def test_the_loader_is_told_how_weights_are_held(options, passed, llama_folder, monkeypatch):
    def loader(*_, **given):
        keys = ("dtype", "compute_dtype", "device_map")
        assert {key: given[key] for key in keys if key in given} == passed
        raise KeyError("reached")

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr("nnsight.TransformersModel", loader)
    with pytest.raises(ModelError, match="reached"):
        nnheads.load(str(llama_folder), **options)


@pytest.mark.parametrize(
    ("quantized", "said"),
    [
        (None, "bfloat16"),
        (FOUR, "bfloat16, weights 4bit nf4"),
        ({**FOUR, "load_in_4bit": False, "load_in_8bit": True}, "bfloat16, weights 8bit"),
        ({"quant_method": "gptq", "bits": 4}, "bfloat16, weights gptq"),
    ],
)
def test_results_say_how_weights_were_held(quantized, said):
    class Config:
        dtype = torch.bfloat16
        quantization_config = quantized

    assert precision(Config) == said


def test_a_run_with_other_weights_is_not_taken_up(llama_folder, tmp_path, monkeypatch, capsys):
    def issue(*options: str) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.app(["match", "the book", str(llama_folder), "-o", str(tmp_path), *options])
        return ended.value.code

    monkeypatch.setattr("nnheads.models.load.held_as", lambda dtype, *_: {"dtype": dtype})
    assert issue() == 0 and issue() == 0
    assert issue("--quantization", "4bit") == 2
    assert "holds another run (quantization None there, '4bit' here)" in capsys.readouterr().err


def test_every_recipe_that_takes_a_dtype_takes_a_quantization():
    options = {}
    for name in recipes():
        found = command(name)
        for one in getattr(found, "commands", {"": found}).values():
            options.setdefault(name, []).append({parameter.name for parameter in one.params})
    lacking = {
        name
        for name, each in options.items()
        if any("dtype" in o and "quantization" not in o for o in each)
    }
    assert lacking <= WITHOUT and {"ioi", "drift"} <= set(options) - lacking


@pytest.mark.parametrize(
    "device_map",
    ["auto", "cpu", {"": "cpu"}, {name: "disk" if name.endswith("1") else "cpu" for name in PARTS}],
    ids=["auto", "cpu", "dict", "disk"],
)
def test_where_layers_are_changes_no_number(device_map, llama_folder):
    model = nnheads.load(str(llama_folder), device_map=device_map)
    where = model.layers[1].attention.projection._module.weight.device.type
    assert where == ("meta" if isinstance(device_map, dict) and len(device_map) > 1 else "cpu")
    here = numbers(nnheads.load(str(llama_folder)))
    for name, values in numbers(model).items():
        np.testing.assert_array_equal(values, here[name], err_msg=name)


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_weights_of_bitsandbytes_for_real(quantization):
    pytest.importorskip("bitsandbytes", reason="no bitsandbytes: pip install 'nnheads[quantized]'")
    model = nnheads.load("reference", quantization=quantization)
    projection = model.layers[1].attention.projection._module
    assert projection.weight.dtype is {"4bit": torch.uint8, "8bit": torch.int8}[quantization]
    assert nnheads.geometry(model) == nnheads.geometry(nnheads.load("reference"))
    said = {"4bit": "bfloat16, weights 4bit nf4", "8bit": "float16, weights 8bit"}[quantization]
    assert model_identity(model, "reference")["dtype"] == said
    prompts = nnheads.ioi(model.tokenizer, n=3)
    found = (
        nnheads.patch(model, prompts, layers=[1])["logit_difference"].sel(layer=1, head=0).values
    )
    clean, corrupted = (inputs(model, prompts, name) for name in ("token", "corrupted"))
    read: list[torch.Tensor] = []
    hook = projection.register_forward_pre_hook(lambda _, given: read.append(given[0].clone()))
    intact = [differences(model, prompts, fed) for fed in (clean, corrupted)]
    hook.remove()
    swapped = read[1].clone()
    swapped[..., :32] = read[0][..., :32]  # head 0 of 8 in the clean run
    hook = projection.register_forward_pre_hook(lambda *_: (swapped,))
    moved = differences(model, prompts, corrupted)
    hook.remove()
    assert np.abs(moved - intact[1]).max() > 0.5
    np.testing.assert_allclose(found, moved, atol=0.02 * np.abs(intact).max())


def differences(model, prompts, fed: dict) -> np.ndarray:
    """Right minus wrong answer's logit at the end."""
    with torch.no_grad():
        logits = model._module(**fed).logits[:, -1].float().numpy()
    rows = np.arange(len(logits))
    return logits[rows, prompts["answer"].values] - logits[rows, prompts["wrong"].values]


def test_gradients_through_packed_weights_on_a_cpu_are_refused(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("nnheads.models.load.held_as", lambda dtype, *_: {"dtype": dtype})
    with pytest.raises(SystemExit) as ended:
        cli.app(["attribute", "--quantization", "4bit", "-o", str(tmp_path)])
    assert ended.value.code == 2
    said = (
        "error: bitsandbytes has no gradients on a CPU; use a GPU (--device-map), or drop"
        " --quantization\n"
    )
    assert capsys.readouterr().err == said and not list(tmp_path.iterdir())
