"""An edit of head outputs as part of a checkpoint: biases take it in.

    bake(model, change, "folder", prompts)    # loads with plain transformers

Adding v to the head outputs of a layer at every position is adding W_O v behind the projection, so
a bias of W_O v does it in any program that loads the checkpoint. It acts at every position, those
of the prompt too: an edit of written tokens alone cannot be baked. The edit itself, without W_O, is
no bias: it has another basis and often another size.
Source: Li et al. 2023, arXiv 2306.03341.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import xarray as xr

from nnheads.errors import BadInput, RunError, first_line
from nnheads.interventions.apply import run
from nnheads.interventions.model_checks import check_model
from nnheads.interventions.operations import Add, Subtract
from nnheads.interventions.positions import ALL
from nnheads.interventions.schema import Edit, Intervention
from nnheads.models.geometry import geometry, model_spec
from nnheads.models.load import load
from nnheads.models.loading import one_line
from nnheads.truth.baked_checkpoint import biases_of, staged, write
from nnheads.truth.bias_homes import home_of

TOLERANCE = 1e-4  # logits
CARD = """# {name}, with an edit in its biases

{heads} head outputs of {name} are moved by a constant each; the bias of {place} holds what that
adds there. It acts at every position, those of the prompt too. Checked: logits equal those of the
live edit to {difference:.0e}.
Made with nnheads (inference-time intervention: Li et al. 2023, arXiv 2306.03341).
"""


@dataclass(frozen=True)
class Baked:
    """A baked checkpoint.

    difference: by how much its logits differ at most from those of the live edit, at every
    position. moved: how far these lie from the unedited ones. family: that it was saved as.
    """

    folder: Path
    difference: float
    moved: float
    family: str


@dataclass(frozen=True)
class Logits:
    """Of real tokens, [token, vocabulary], float32: of the model as it is, and of its live edit."""

    plain: torch.Tensor
    edited: torch.Tensor


def bake(
    model,
    intervention: Intervention,
    folder: str | Path,
    prompts: xr.Dataset,
    *,
    name: str = "the model",
) -> Baked:
    """Save a model with an edit baked in, once its logits are those of the live edit.

    Args:
        model: loaded here, in float32: the check means nothing in half precision. It is left as it
            is.
        intervention: only adds to, or subtracts from, head outputs at every position.
        folder: does not exist yet, or is empty. It can be loaded with plain transformers.
        prompts: what both are compared on, `token`, `mask` (batch, position).
        name: what the model is called in the checkpoint's README.

    Raises:
        BadInput: an edit that no bias can hold, a family without a bias for one, a folder in use, a
            model of another dtype or without weights.
        RunError: logits that differ by more than TOLERANCE; nothing is written then.

    Source: Li et al. 2023, arXiv 2306.03341.
    """
    folder = Path(folder)
    check(model, intervention, folder)
    home = home_of(model)
    biases = biases_of(model, intervention, home)
    live = _logits(model, intervention, prompts)
    with staged(folder) as stage:
        write(model, home, biases, stage)
        difference = _difference(stage, folder, live, prompts)
        heads = sum(len(edit.units or range(geometry(model).heads)) for edit in intervention.edits)
        card = CARD.format(name=name, heads=heads, place=home.module, difference=difference)
        (stage / "README.md").write_text(card, encoding="utf-8")
    moved = float((live.edited - live.plain).abs().max())
    return Baked(folder, difference, moved, home.config.model_type)


def _logits(model, intervention: Intervention, prompts: xr.Dataset) -> Logits:
    with torch.no_grad():
        live = run(model, intervention, prompts)
    assert live.original is not None and live.edited is not None
    return Logits(_real(live.original, prompts), _real(live.edited, prompts))


def _real(logits: torch.Tensor, prompts: xr.Dataset) -> torch.Tensor:
    """Return logits of real tokens alone, [token, vocabulary]."""
    return logits.float().cpu()[torch.from_numpy(prompts["mask"].values > 0)]


def _difference(stage: Path, folder: Path, live: Logits, prompts: xr.Dataset) -> float:
    """Return by how much the logits of a checkpoint differ at most from those of the live edit.

    Raises:
        RunError: by more than TOLERANCE.
    """
    with one_line(str(folder)):
        again = load(str(stage), dtype="float32")
    with torch.no_grad():
        baked = run(again, Intervention(), prompts, original=False).edited
    assert baked is not None
    difference = float((_real(baked, prompts) - live.edited).abs().max())
    if not difference <= TOLERANCE:
        raise RunError(
            f"the baked checkpoint's logits differ by {difference:.1e} from those of the live"
            f" edit, more than {TOLERANCE:.0e}; it was not kept"
        )
    return difference


def check(model, intervention: Intervention, folder: Path) -> None:
    """Refuse what cannot be baked before anything is computed.

    Raises:
        BadInput: as `bake`.
    """
    weights = next(model._module.parameters())
    if weights.device.type == "meta":
        raise BadInput("a checkpoint is baked where its weights are; load the model without remote")
    if weights.dtype != torch.float32:
        dtype = str(weights.dtype).removeprefix("torch.")
        raise BadInput(f"the model is in {dtype}; load it in float32 to bake it")
    check_model(model, intervention, model_spec(model))
    if not intervention.edits:
        raise BadInput("this intervention has no edits; there is nothing to bake")
    for edit in intervention.edits:
        _check_edit(edit)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists already; name a folder that does not")


def _check_edit(edit: Edit) -> None:
    if edit.site != "z" or not isinstance(edit.do, (Add, Subtract)):
        raise BadInput(
            f"a bias cannot hold {edit.do.name} at {edit.site}; it holds what is added to head"
            " outputs (z)"
        )
    if edit.at != ALL:
        raise BadInput(
            f"an edit at {edit.at.kind} cannot be baked: a bias acts at every position, those"
            " of the prompt too; use scope all"
        )


def push(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a baked checkpoint to the Hub; return the address that it has there.

    The token is huggingface_hub's own (`HF_TOKEN`, or `hf auth login`).

    Raises:
        BadInput: a folder that holds no checkpoint, or a Hub that refuses it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if not (Path(folder) / "config.json").is_file():
        raise BadInput(f"{folder} holds no checkpoint; expected a folder that was baked")
    try:
        HfApi().create_repo(repository, private=private, exist_ok=True)
        return str(HfApi().upload_folder(repo_id=repository, folder_path=folder))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise BadInput(f"cannot push to {repository!r}: {first_line(error)}") from None
