"""Head outputs at the last token against plain hooks, on every family; kept, taken up again, and on
disk.
"""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from random_models import placed, tiny

from nnheads.errors import BadInput, RunError
from nnheads.truth import activations
from nnheads.truth.activations import last_outputs


@pytest.fixture
def prompts(padded) -> xr.Dataset:
    """Three rows, the second padded, with a coordinate."""
    ids, mask, _ = padded
    place = ("batch", "position")
    rows = {
        "token": (place, ids.numpy().astype("int32")),
        "mask": (place, mask.numpy().astype("int8")),
    }
    return xr.Dataset(rows, {"question": ("batch", [4, 5]), "batch": [3, 9]}).isel(batch=[0, 1, 0])


def plain(model_type: str, prompts: xr.Dataset) -> torch.Tensor:
    _, module = tiny(model_type)
    ids, mask = (torch.from_numpy(prompts[name].values).long() for name in ("token", "mask"))
    given = oracle.fed(model_type, ids, mask)
    return torch.stack(
        [oracle.value_at(module, model_type, given, layer, "z")[:, -1] for layer in range(3)], 1
    )


def test_outputs_equal_plain_hooks(model_type, prompts):
    z = last_outputs(tiny(model_type)[0], prompts, batch_size=2)
    assert z.dims == ("batch", "layer", "head", "dim") and z.dtype == np.float32
    assert z["question"].values.tolist() == [4, 5, 4] and z["head"].values.tolist() == [0, 1, 2, 3]
    expected = plain(model_type, prompts)
    np.testing.assert_allclose(z.values.reshape(3, 3, -1), expected, atol=1e-5)


def test_a_padded_row_equals_it_alone(prompts):
    model, _ = tiny("llama")
    alone = last_outputs(model, prompts.isel(batch=[1], position=slice(4, None)))
    np.testing.assert_allclose(last_outputs(model, prompts)[[1]].values, alone.values, atol=1e-5)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
def test_rehearsed_remotely(model_type, prompts):
    model, _ = tiny(model_type)
    np.testing.assert_allclose(
        placed("local", last_outputs)(model, prompts), last_outputs(model, prompts), atol=1e-6
    )


def test_no_padding_is_run_that_a_batch_does_not_need(prompts, monkeypatch):
    seen, real = [], activations.read_last
    monkeypatch.setattr(
        activations,
        "read_last",
        lambda model, part: seen.append(part["mask"].values) or real(model, part),
    )
    last_outputs(tiny("llama")[0], prompts, batch_size=1)
    lengths = sorted(prompts["mask"].values.sum(1).tolist(), reverse=True)
    assert [mask.shape[1] for mask in seen] == lengths and len(set(lengths)) > 1


def test_finished_batches_are_kept_and_taken_up(prompts, tmp_path, monkeypatch):
    model, _ = tiny("llama")
    whole, real, calls = last_outputs(model, prompts, batch_size=1), activations.read_last, []

    def fails_at_the_second(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(activations, "read_last", fails_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        last_outputs(model, prompts, batch_size=1, parts=tmp_path)
    again = last_outputs(model, prompts, batch_size=1, parts=tmp_path)
    assert len(calls) == 4  # the first was not read again
    xr.testing.assert_identical(again, whole)
    last_outputs(model, prompts, batch_size=1, parts=tmp_path)
    assert len(calls) == 4


def test_batches_whose_values_are_gone_are_read_again(prompts, tmp_path):
    model, _ = tiny("llama")
    whole = last_outputs(model, prompts, parts=tmp_path)
    values = next(tmp_path.rglob("z.npy"))
    values.unlink()
    xr.testing.assert_identical(last_outputs(model, prompts, parts=tmp_path), whole)
    values.write_bytes(values.read_bytes()[:200])
    xr.testing.assert_identical(last_outputs(model, prompts, parts=tmp_path), whole)


def test_much_is_not_held_in_memory(prompts, monkeypatch):
    model, _ = tiny("llama")
    whole = last_outputs(model, prompts)
    monkeypatch.setattr(activations, "KEPT_BYTES", 100)
    z = last_outputs(model, prompts)
    base = z.values
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    xr.testing.assert_identical(z, whole)


def test_what_cannot_be_read_is_refused(prompts, tmp_path, monkeypatch):
    model, _ = tiny("llama")
    turned = prompts.copy(deep=True)
    turned["mask"] = prompts["mask"][:, ::-1]
    with pytest.raises(BadInput, match="a row ends in padding"):
        last_outputs(model, turned)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        last_outputs(model, prompts, parts=tmp_path / "file")
    monkeypatch.setattr(
        activations,
        "read_z",
        lambda layer, heads: layer.attention.projection.input.unsqueeze(2) * torch.nan,
    )
    with pytest.raises(RunError, match="the heads' outputs are not finite"):
        last_outputs(model, prompts)
