"""Write a checkpoint whose biases hold an edit: what the edit adds, and the files."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float

from nnheads.errors import RunError
from nnheads.interventions.operations import Add, Subtract
from nnheads.interventions.schema import Edit, Intervention
from nnheads.models.families import family
from nnheads.models.geometry import Geometry, geometry
from nnheads.models.loading import whole_checkpoint
from nnheads.runs.store import writing
from nnheads.truth.bias_homes import Home

Biases = dict[str, torch.Tensor]


class Offset(NamedTuple):
    """What is added to a layer's head outputs, v, and behind its projection, W_O v, in float64."""

    value: Float[torch.Tensor, " head*dim"]
    behind: Float[torch.Tensor, " d_model"]


def biases_of(model, intervention: Intervention, home: Home) -> Biases:
    """Return what is added to the biases of a checkpoint, by their names in it."""
    layers = family(model).layers
    return {
        f"{layers}.{layer}.{home.module}.bias": (offset.value if home.of_values else offset.behind)
        for layer, offset in offsets(model, intervention).items()
    }


def offsets(model, intervention: Intervention) -> dict[int, Offset]:
    """Return what the edits add in each layer."""
    sizes = geometry(model)
    moved: dict[int, torch.Tensor] = {}
    for edit in intervention.edits:
        assert edit.layer is not None
        v = moved.setdefault(
            edit.layer, torch.zeros(sizes.heads, sizes.head_dim, dtype=torch.float64)
        )
        _add(v, edit, intervention, sizes)
    result = {}
    for layer, v in moved.items():
        projection = model.layers[layer].attention.projection._module
        result[layer] = Offset(v.flatten(), through(projection, v.flatten()))
    return result


def _add(
    v: Float[torch.Tensor, "head dim"], edit: Edit, intervention: Intervention, sizes: Geometry
) -> None:
    """Add what one edit adds to the head outputs of its layer."""
    assert isinstance(edit.do, (Add, Subtract))
    value = edit.do.value
    tensor = intervention.tensors[value] if isinstance(value, str) else torch.tensor(value)
    units = list(range(sizes.heads) if edit.units is None else edit.units)
    neurons = list(range(sizes.head_dim) if edit.neurons is None else edit.neurons)
    sign = 1.0 if isinstance(edit.do, Add) else -1.0
    block = sign * edit.do.scale * tensor.detach().cpu().double()
    block = block.expand(len(units) * len(neurons)).reshape(len(units), len(neurons))
    v[torch.tensor(units)[:, None], torch.tensor(neurons)] += block


def through(
    projection: torch.nn.Module, v: Float[torch.Tensor, " head*dim"]
) -> Float[torch.Tensor, " d_model"]:
    """Return W_O v without the bias: a Linear holds [out, in], GPT-2's Conv1D [in, out]."""
    weight = projection.get_parameter("weight").detach().cpu().double()
    return v @ weight if hasattr(projection, "nx") else weight @ v


def write(model, home: Home, biases: Biases, folder: Path) -> None:
    """Save the model under a configuration with these biases added to its own.

    Only the biases are new tensors.

    Raises:
        RunError: other tensors that the checkpoint would need or lack.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(home.config)
    shell.load_state_dict(_state(model, shell, biases), assign=True)
    shell.tie_weights()
    shell.generation_config = model._module.generation_config
    with writing(folder), whole_checkpoint(str(folder)):  # which keeps transformers' bars to itself
        shell.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)


def _state(model, shell: torch.nn.Module, biases: Biases) -> dict[str, torch.Tensor]:
    """Return the tensors of the checkpoint."""
    state, wanted = dict(model._module.state_dict()), shell.state_dict()
    absent = [name for name in wanted if name not in state]
    _check_names(absent, set(state) - set(wanted), set(biases) - set(wanted))
    state |= {name: torch.zeros(wanted[name].shape) for name in absent}
    for name, value in biases.items():
        state[name] = (state[name].detach().cpu().double() + value).float()
    return state


def _check_names(absent: list[str], left_over: set[str], homeless: set[str]) -> None:
    odd = [name for name in (*absent, *left_over) if not name.endswith(".bias")]
    odd += homeless
    if odd:
        raise RunError(
            "the baked checkpoint would need weights that the model does not have, or lack some:"
            f" {odd[0]}"
        )


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Open a folder under another name, which gets its own once all is well or else vanishes."""
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield stage
        with writing(folder):
            stage.chmod(0o755)
            stage.replace(folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
