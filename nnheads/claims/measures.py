"""What claims are measured with: detectors, patching, knockouts and scores of nnheads, by name.

    measure(model, {"measure": "patch", "limit": 32}, Setting())["effect"]

The options of a measure, and what it returns:

detect       `type` (a head type), `limit`, and options of its prompts such as `length`: what
             `detect` returns
patch        `pairs` [{clean, corrupted, answer, wrong}] or `limit` (drawn sentences), `site`,
             `noising`: `effect` of every head, as a ratio of means; `clean_logit_difference`,
             `corrupted_logit_difference`, `accuracy`
ablate       `pairs` or `limit`, `ablation`, `at`: `logit_difference` without each head and its
             `change`; `base_logit_difference`
path         `limit`, `receivers` (heads), `via` (q, k or v), `at` (a role): `relative` change of
             the logit difference by every head's paths to the receivers (none: the logits) when it
             says what it says of three other names
estimate     `pairs` or `limit`, `method` (atp or atp*): `effect` as gradients estimate it
attribution  `pairs` or `limit`: direct logit `attribution` of every head
copy         `top`: `copy` and `negative` of every head, for names
knockout     `behaviour`, `heads`, `ablation`, `limit`, `length`: `base`, `without`, and `lost`, the
             share lost
truth        `data`, `template`, `limit`: `mc1`, `mc2`, `mc3` of the model as it is
late_edit    `data`, `template`, `limit`, `at`: `moved`, the largest change of an answer's log
             probability by an edit of all head outputs of a layer, at the last position ("last") or
             everywhere ("all")
file         `name`: a list that another tool published, from the folder of --files: `score` of
             every head, `listed`, the share of its heads that it lists
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import xarray as xr

from nnheads.claims import causal_measures, head_measures, truth_measures
from nnheads.claims.setting import Setting, Unavailable
from nnheads.errors import BadInput, NNHeadsError, first_line

__all__ = ["MEASURES", "NO_MODEL", "Setting", "Unavailable", "measure"]

Measure = Callable[..., xr.Dataset]
NO_MODEL = ("file",)
MEASURES: dict[str, Measure] = {
    "detect": head_measures.detected,
    "patch": causal_measures.patch_effects,
    "ablate": causal_measures.ablation_changes,
    "path": causal_measures.path_changes,
    "estimate": causal_measures.estimated_effects,
    "attribution": head_measures.attributions,
    "copy": head_measures.copying,
    "knockout": causal_measures.knockout_loss,
    "truth": truth_measures.multiple_choice,
    "late_edit": truth_measures.late_edit,
    "file": head_measures.published_list,
}
# what an option of a wrong kind raises, wherever it is used first
WRONG_KIND = (TypeError, ValueError, KeyError, AttributeError, OverflowError)


def measure(model, request: Mapping[str, Any], setting: Setting) -> xr.Dataset:
    """Return one measurement, which claims with the same `how` share.

    Args:
        model: None for a measure of NO_MODEL.
        request: `how` of a claim: `measure`, a key of MEASURES, and its options.

    Raises:
        BadInput: a measure or an option that is not known, or a value that the option cannot have.
        Unavailable: what is not here.
    """
    name = request["measure"]
    if name not in MEASURES:
        raise BadInput(f"measure {name!r} is not known; use one of {', '.join(MEASURES)}")
    options = {key: value for key, value in request.items() if key != "measure"}
    _check_options(name, options)
    try:
        return MEASURES[name](model, setting, **options)
    except NNHeadsError:
        raise
    except WRONG_KIND as error:
        raise BadInput(
            f"measure {name} cannot be asked for {options}: {first_line(error)}"
        ) from None


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an option that a measure does not have."""
    parameters = inspect.signature(MEASURES[name]).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return
    known = [one for one in parameters if one not in ("model", "setting")]
    for option in options:
        if option not in known:
            raise BadInput(f"measure {name} knows no {option!r}; it knows {', '.join(known)}")
