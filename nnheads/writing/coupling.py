"""Does a head write the answer where it attends to it? Attention and write, case by case.

    reduced = coupling(write_coupling(model, nnheads.ioi(model.tokenizer, 100)))
    reduced["slope"], reduced["correlation"]  # (layer, head)

A name mover writes more of the answer in cases in which it attends more to it. Heads whose
attention hardly varies have neither slope nor correlation (NaN).
Source: Wang et al. 2022, arXiv 2211.00593.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float

from nnheads.errors import BadInput
from nnheads.spans.layout import span_dataset
from nnheads.spans.measure import measure
from nnheads.stats import ends, names_of_ends, resamples
from nnheads.writing.logit_attribution import direct_logit_attribution

SOURCE = "Wang et al. 2022, arXiv 2211.00593"
SPREAD = 1e-3  # of attention over cases; below it a slope would blow up noise
VARIES = 1e-20  # what rounding leaves of no variance
HEADS = ("layer", "head")
MEANING = {
    "slope": ("logits written per unit of attention", "logit"),
    "correlation": ("correlation of write and attention", "1"),
}

Cases = Float[np.ndarray, "case head"]
Draws = Float[np.ndarray, "draw head"]


def write_coupling(model, prompts: xr.Dataset, *, role: str = "IO") -> xr.Dataset:
    """Return each head's attention to a role beside what it writes for the answer, in every case.

    Attention goes from the end to the role; what is written counts along W_U[answer] - W_U[wrong],
    as in direct logit attribution.

    Args:
        prompts: pairs with the positions of a role (`role_<name>`), such as `nnheads.ioi` makes.
        role: the token attended to, by default the indirect object.

    Returns:
        (batch, layer, head): `attention`, a share without a unit, and `write`, in logits.

    Raises:
        BadInput: as `direct_logit_attribution`, or a role that the prompts do not have. RunError:
            activations that are not finite.

    Source: Wang et al. 2022, arXiv 2211.00593.

    Example:
        >>> model = nnheads.load()
        >>> cases = nnheads.write_coupling(model, nnheads.ioi(model.tokenizer, 4), role="S2")
        >>> cases["attention"].dims, cases["write"].dims
        (('batch', 'layer', 'head'), ('batch', 'layer', 'head'))
    """
    _check_role(prompts, role)
    written = direct_logit_attribution(model, prompts)["attribution"]
    data = {"attention": _attention_to(model, prompts, role), "write": written}
    return xr.Dataset(data).assign_attrs(role=role)


def _attention_to(model, prompts: xr.Dataset, role: str) -> xr.DataArray:
    """Return the attention from the end of each prompt to a role (batch, layer, head)."""
    key = prompts[f"role_{role}"].values[:, None]
    end = np.full_like(key, prompts.sizes["position"] - 1)
    token, mask = prompts["token"].values, prompts["mask"].values
    spans = span_dataset(token, mask, {role: (end, key, key + 1)})
    mass = measure(model, spans, hit=False)["mass"].isel(kind=0, drop=True)
    meaning = f"attention from END to {role}"
    return mass.drop_vars("batch").assign_attrs(long_name=meaning, source=SOURCE)


def _check_role(prompts: xr.Dataset, role: str) -> None:
    """Refuse a role whose positions the prompts do not have."""
    names = [str(name) for name in prompts.coords]
    known = [name.removeprefix("role_") for name in names if name.startswith("role_")]
    if role not in known:
        raise BadInput(
            f"Not a role of these prompts: {role!r}. Use one of"
            f" {', '.join(known) or 'none: pairs of a file have no roles'}."
        )


def coupling(cases: xr.Dataset, *, seed: int = 0) -> xr.Dataset:
    """Return how what a head writes goes with its attention over cases.

    Args:
        cases: `attention` and `write` (batch, layer, head), as `write_coupling` returns them.
        seed: of the resampled cases.

    Returns:
        (layer, head): `slope` (logits per unit of attention, least squares) and `correlation`
        (Pearson, no unit), each with its percentile bootstrap interval over cases (`_low`,
        `_high`); NaN for heads whose attention varies by less than SPREAD.

    Raises:
        KeyError: a dataset without attention or write.

    Source: Wang et al. 2022, arXiv 2211.00593.

    Example:
        >>> model = nnheads.load()
        >>> cases = nnheads.write_coupling(model, nnheads.ioi(model.tokenizer, 4))
        >>> sorted(nnheads.coupling(cases).data_vars)[:3]
        ['correlation', 'correlation_high', 'correlation_low']
    """
    x, y = (_centred(cases[name]) for name in ("attention", "write"))
    x[:, x.std(0) < SPREAD] = np.nan
    count = len(x)
    values = _line(x, y, np.full((1, count), 1 / count))
    resampled = _line(x, y, resamples(count, seed) / count)
    shape = tuple(cases["attention"].sizes[name] for name in HEADS)
    data: dict[str, tuple] = {}
    for name, value, drawn in zip(MEANING, values, resampled):
        low, high = _ends(drawn, count)
        for key, each in {name: value[0], f"{name}_low": low, f"{name}_high": high}.items():
            data[key] = (HEADS, each.reshape(shape).astype("float32"), _about(name, key))
    index = {name: cases[name] for name in HEADS if name in cases.coords}
    return xr.Dataset(data).assign_coords(index)


def _ends(drawn: Draws, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of an interval [head]; two cases, which lie on a line, have none."""
    if count > 2:
        return ends(drawn, skipna=True)
    unknown = np.full(drawn.shape[1], np.nan)
    return unknown, unknown


def _about(name: str, key: str) -> dict[str, str]:
    """Return the attributes of a statistic, or of an end of its interval."""
    meaning, units = MEANING[name]
    text = meaning if key == name else names_of_ends(meaning)[key.rpartition("_")[2]]
    return {"long_name": text, "units": units, "source": SOURCE}


def _centred(values: xr.DataArray) -> Cases:
    """Return values (batch, layer, head) beyond their mean over cases."""
    cases = values.transpose("batch", *HEADS).values.astype(float)
    flat = cases.reshape(len(cases), -1)
    return flat - flat.mean(0)


def _line(x: Cases, y: Cases, weights: Float[np.ndarray, "draw case"]) -> tuple[Draws, Draws]:
    """Return slope and correlation of y on x under weights of the cases that add up to 1."""
    across = weights @ (x * y) - (weights @ x) * (weights @ y)
    own, other = _variance(x, weights), _variance(y, weights)
    return across / own, across / np.sqrt(own * other)


def _variance(values: Cases, weights: Float[np.ndarray, "draw case"]) -> Draws:
    """Return the variance under weights of the cases; NaN where nothing varies."""
    variance = weights @ (values * values) - (weights @ values) ** 2
    return np.where(variance > VARIES, variance, np.nan)
