"""Loading: what it takes, what it refuses, and how it says so."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import errors as hub
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from random_models import build, words_tokenizer
from transformers import AutoConfig

import nnheads
from nnheads.errors import BadInput, ModelError
from nnheads.interventions import Intervention, generate
from nnheads.interventions.texts import read_texts
from nnheads.models.inputs import inputs
from nnheads.models.load import checkpoint, locate


def test_dtype_is_as_asked(llama_folder):
    for name, dtype in (
        ("auto", torch.float32),
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
    ):
        assert nnheads.load(str(llama_folder), dtype=name)._module.dtype is dtype


def test_attention_implementation_is_as_asked(llama_folder):
    assert nnheads.load(str(llama_folder)).attn_implementation == "sdpa"
    assert (
        nnheads.load(str(llama_folder), attn_implementation="eager").attn_implementation == "eager"
    )


def test_a_remote_model_has_no_weights(llama_folder):
    model = nnheads.load(str(llama_folder), remote="http://127.0.0.1:9")
    assert not model.dispatched and model.device.type == "meta" and model.tokenizer is not None
    assert nnheads.geometry(model) == nnheads.geometry(nnheads.load(str(llama_folder)))


def test_a_rehearsal_has_weights(llama_folder):
    assert nnheads.load(str(llama_folder), remote="local").dispatched


def test_reference_is_the_shipped_model():
    model = nnheads.load()
    assert (
        nnheads.geometry(model).heads == 8
        and model.tokenizer.decode(model.tokenizer("Mary")["input_ids"][-1:]) == "Mary"
    )


def test_devices_are_passed_on(llama_folder):
    assert nnheads.load(str(llama_folder), device_map="cpu").device.type == "cpu"


def raised(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, "a long story\nover several lines")
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            raised(GatedRepoError),
            "the repository is gated; ask for access on its page and set HF_TOKEN",
        ),
        (raised(RepositoryNotFoundError), "no such folder and no such model on the Hub"),
        (raised(RevisionNotFoundError), "the Hub has no such revision"),
        (raised(hub.OfflineModeIsEnabled), "the Hub cannot be reached"),
        (ConnectionResetError("x"), "the Hub cannot be reached"),
        (TimeoutError(), "the Hub cannot be reached"),
        (ValueError("bad config\nmore"), "bad config$"),
    ],
)
def test_every_way_of_failing_is_one_line(error, message, monkeypatch):
    def fail(*_, **__):
        raise OSError("transformers wraps what happened") from error

    monkeypatch.setattr("nnheads.models.load._reach", lambda *_: None)
    monkeypatch.setattr(
        AutoConfig, "from_pretrained", fail if not isinstance(error, ValueError) else direct(error)
    )
    with pytest.raises(ModelError, match=message) as caught:
        nnheads.load("someone/something")
    assert "\n" not in str(caught.value) and "'someone/something'" in str(caught.value)


def direct(error: Exception):
    def fail(*_, **__):
        raise error

    return fail


def test_revisions_of_a_folder_are_folders_inside_it(tmp_path):
    (tmp_path / "step10").mkdir()
    assert checkpoint(str(tmp_path), "step10") == (str(tmp_path / "step10"), None)
    assert checkpoint("owner/name", "step10") == ("owner/name", "step10")
    with pytest.raises(ModelError, match="has no folder 'step20'"):
        checkpoint(str(tmp_path), "step20")


def test_a_name_with_an_owner_is_taken_for_the_hub():
    assert locate("owner/name") == "owner/name"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 2}, r"no place for the weights .*layers\.2.* more"),
        ({"num_hidden_layers": 4}, r"no weights for .*layers\.3.* more"),
        ({"intermediate_size": 24}, r"differ in the size of .*mlp"),
    ],
)
def test_a_checkpoint_that_is_not_its_configurations_is_refused(
    change, message, llama_folder, tmp_path
):
    folder = tmp_path / "model"
    shutil.copytree(llama_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError, match=message):
        nnheads.load(str(folder))


@pytest.mark.parametrize("wrong", ["banana", "LOCAL", "ftp://x", 5, ""])
def test_a_place_that_is_none_is_refused_before_anything_loads(wrong, llama_folder):
    with pytest.raises(BadInput, match="use ndif, local or a URL"):
        nnheads.load(str(llama_folder), remote=wrong)


def test_none_is_here_and_ndif_is_what_true_means(llama_folder):
    from nnheads.remote.place import place_of

    assert place_of(nnheads.load(str(llama_folder), remote=None)).remote is False
    assert place_of(nnheads.load(str(llama_folder), remote="ndif")).remote is True


def test_an_adapter_is_called_one(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"adapter \(LoRA\).*merge_and_unload"):
        nnheads.load(str(tmp_path))


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    build("llama").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"holds no tokenizer; save it"):
        nnheads.load(str(tmp_path))


def test_code_in_a_models_folder_is_never_run(llama_folder, tmp_path, monkeypatch):
    """Nobody is asked y or N, and a family that is known needs none of it."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    folder = tmp_path / "model"
    shutil.copytree(llama_folder, folder)
    for name in ("configuration_own", "modeling_own"):
        (folder / f"{name}.py").write_text("raise SystemExit('run')")
    own = {"AutoConfig": "configuration_own.C", "AutoModelForCausalLM": "modeling_own.M"}
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "auto_map": own}))
    assert nnheads.load(str(folder)).config.model_type == "llama"
    other = {**settings, "auto_map": own, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps(other))
    with pytest.raises(ModelError, match="nnheads runs no code from a model's folder"):
        nnheads.load(str(folder))


@pytest.mark.parametrize("layers", [-1, 0, 10**9])
def test_numbers_of_layers_that_no_model_has_are_refused_at_once(layers, llama_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(llama_folder, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": layers}))
    with pytest.raises(ModelError, match=f"says {layers} layers"):
        nnheads.load(str(folder))


@pytest.mark.parametrize("change", [{"do_layer_norm_before": False}, {"word_embed_proj_dim": 24}])
def test_the_other_form_of_opt_is_refused_by_name(change, tmp_path):
    build("opt", **change).save_pretrained(tmp_path)
    words_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="opt-350m"):
        nnheads.load(str(tmp_path))


def test_a_pad_token_outside_the_vocabulary_changes_nothing(llama_folder):
    """It was added to the tokenizer and the embeddings were not resized: any id does for it."""
    model = nnheads.load(str(llama_folder))
    texts = ["Mary gave the book to", "John and Mary went to the market"]
    prompts = read_texts(model.tokenizer, texts)
    outside = prompts["token"].where(prompts["mask"] == 1, model.config.vocab_size)
    assert (outside != prompts["token"]).any(), "nothing is padded"
    added = prompts.assign(token=outside.astype(prompts["token"].dtype))
    np.testing.assert_array_equal(run_plain(model, added), run_plain(model, prompts))
    written = [generate(model, Intervention(), one, new_tokens=3).ids for one in (prompts, added)]
    np.testing.assert_array_equal(*written)


def run_plain(model, prompts) -> np.ndarray:
    with torch.no_grad(), model.trace(**inputs(model, prompts)):
        logits = model.output.logits[:, -1].save()
    return logits.numpy()
