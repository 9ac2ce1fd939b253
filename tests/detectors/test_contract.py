"""What every head type promises, whoever wrote it: shape, type, attributes, laws.

Found by file name.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import xarray as xr
from conftest import placed, tiny, words_tokenizer

from nnheads.detectors._detect import STIMULI, detector, types
from nnheads.errors import BadInput
from nnheads.runs import store

# A type that learns needs all prompts at once: `test_truthfulness.py` holds it to the same.
TYPES = [name for name in types() if not hasattr(detector(name), "LEARNS")]
# the tiny models read at most 128 tokens
SMALL: dict = {
    "repeated": {"length": 6},
    "needle": {"lengths": [60, 80]},
    "iteration": {"steps": 4},
}


@functools.cache
def stimulus(name: str, n: int = 3) -> xr.Dataset:
    options = SMALL.get(detector(name).STIMULUS, {})
    return STIMULI[detector(name).STIMULUS](words_tokenizer(), n, seed=1, **options)


def run(name: str, model_type: str, prompts=None, **options) -> xr.Dataset:
    model, _ = tiny(model_type)
    return getattr(detector(name), name)(
        model, stimulus(name) if prompts is None else prompts, **options
    )


@pytest.mark.parametrize("name", TYPES)
def test_a_file_says_what_its_head_type_is(name):
    module = detector(name)
    assert module.SOURCE and module.HEADLINE and module.STIMULUS in STIMULI and types()[name]
    for part in ("Returns", "Misleads", "Source"):
        assert part in getattr(module, name).__doc__, f"{name}: the docstring lacks {part}"


@pytest.mark.parametrize("name", TYPES)
def test_scores_keep_the_contract_on_every_architecture(name, model_type, tmp_path):
    scores = run(name, model_type)
    assert detector(name).HEADLINE in scores
    for variable in scores.data_vars.values():
        assert variable.dims[:3] == ("batch", "layer", "head") and variable.shape[:3] == (3, 3, 4)
        # an example with fewer steps than others has no value at the last ones
        known = variable if variable.name != "by_step" else variable[:, :, :, :3]
        assert variable.dtype == np.float32 and np.isfinite(known).all()
        assert variable.attrs["long_name"] and variable.attrs["units"] and variable.attrs["source"]
    for bounded in ("mass", "hit", "above"):
        assert float(scores[bounded].min()) >= 0 and float(scores[bounded].max()) <= 1 + 1e-5
    back = store.load(store.save(tmp_path / "scores.nc", scores))
    xr.testing.assert_identical(
        back[list(scores.data_vars)], scores.assign_attrs(back.attrs)[list(scores.data_vars)]
    )


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
def test_rehearsed_remotely_gives_the_same_scores(name, model_type):
    xr.testing.assert_allclose(
        run(name, model_type), placed("local", run)(name, model_type), atol=1e-6
    )


@pytest.mark.parametrize("name", TYPES)
def test_one_example_alone_equals_it_in_a_batch(name):
    alone = run(name, "llama", stimulus(name).isel(batch=[1]))
    xr.testing.assert_allclose(alone, run(name, "llama").isel(batch=[1]), atol=1e-5)


@pytest.mark.parametrize("name", TYPES)
def test_slices_concatenate_to_the_whole(name):
    parts = [
        run(name, "llama", stimulus(name).isel(batch=one)) for one in (slice(0, 1), slice(1, 3))
    ]
    xr.testing.assert_allclose(xr.concat(parts, "batch"), run(name, "llama"), atol=1e-5)


@pytest.mark.parametrize("name", TYPES)
def test_prompts_are_the_same_for_the_same_seed(name):
    build, options = STIMULI[detector(name).STIMULUS], SMALL.get(detector(name).STIMULUS, {})
    first, again, other = (build(words_tokenizer(), 3, seed=seed, **options) for seed in (1, 1, 2))
    xr.testing.assert_identical(first, again)
    assert not np.array_equal(first["token"], other["token"])


@pytest.mark.parametrize("name", TYPES)
def test_no_prompts_are_refused(name):
    with pytest.raises(BadInput, match="at least 1"):
        STIMULI[detector(name).STIMULUS](words_tokenizer(), 0)
