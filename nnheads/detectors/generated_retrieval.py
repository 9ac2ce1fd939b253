"""Generated retrieval: retrieval heads by the original rule, while the model writes the answer itself."""

from __future__ import annotations

import numpy as np
import xarray as xr

from nnheads.attention import assemble, measure
from nnheads.generation import generate
from nnheads.prompts.spans import NULL, null_in_rows, span_dataset, stack_spans

STIMULUS = "needle"
HEADLINE = "score"
SOURCE = "Wu et al. 2024, arXiv 2404.15574"
GENERATES = True  # its spans are only known once the model has written
KIND = "generated_retrieval"
EXTRA_TOKENS = 4  # written beyond the answer's length, for models that begin with something else


def generated_retrieval(model, prompts: xr.Dataset, *, remote: bool | str = False) -> xr.Dataset:
    """A head copies at a step if its strongest key lies in the needle and holds the very token that is written.

    The model answers greedily; its own answer is then read in one forward, which gives each step the same rows as
    the step itself had.

    Args:
        prompts: a needle in a haystack (`prompts.needle`); the answer at the end is cut off.

    Returns:
        float32 (batch, layer, head): `score` (headline), copies over the needle's length, above 1 if a token is
        copied twice; `score_once`, share of the needle's different tokens that were copied, in [0, 1]; `mass`, `hit`,
        `above`, `uniform`, `null` on the copied tokens (0 where nothing of the needle was written). Coordinates
        (batch): `recall`, share of the needle's different tokens in the answer, and `answered`, 1 where that is over
        a half: the original counts only those.

    Misleads: on prompts that were not answered (`answered` 0), where nothing can be copied.
    Source: Wu et al. 2024, arXiv 2404.15574.
    """
    steps = prompts.sizes["step"]
    asked = prompts.isel(position=slice(None, -steps))
    written = generate(model, asked, steps + EXTRA_TOKENS, remote=remote)
    needle = prompts.isel(span=prompts["kind"].values == "needle")
    start, stop = needle["key_start"].values[:, 0], needle["key_stop"].values[:, 0]
    extended = _with_answer(model, asked, written, start, stop)
    scores = measure(model, extended, remote=remote)
    return _score(scores, extended, prompts)


def _with_answer(model, asked: xr.Dataset, written: np.ndarray, start: np.ndarray, stop: np.ndarray) -> xr.Dataset:
    """The prompts with what the model wrote, and a span for each needle token that a step repeats."""
    token, length = asked["token"].values, asked.sizes["position"]
    copies, each = [], [[] for _ in range(int((stop - start).max()))]
    recall = np.zeros(len(token), np.float32)
    for case, (low, high) in enumerate(zip(start, stop)):
        own = list(dict.fromkeys(token[case, low:high].tolist()))
        spans = [
            (length - 1 + step, place, place + 1, own.index(int(word)))
            for step, word in enumerate(written[case])
            for place in range(low, high)
            if token[case, place] == word
        ]
        recall[case] = len({which for *_, which in spans}) / len(own)
        copies.append([span[:3] for span in spans])
        for which, rows in enumerate(each):
            rows.append([span[:3] for span in spans if span[3] == which])
    still = np.zeros(len(token), int)
    spans = {KIND: stack_spans(copies, still)}
    padding = length - asked["mask"].values.sum(1)
    spans[f"{KIND}{NULL}"] = null_in_rows(spans[KIND], padding, np.random.default_rng(0))
    spans |= {f"{KIND}@{which}": stack_spans(rows, still) for which, rows in enumerate(each)}
    anchor = np.full((len(token), 1), length - 1)  # there is always something to measure
    spans["anchor"] = (anchor, anchor, anchor + 1)
    pad = model.tokenizer.pad_token_id or 0
    token = np.concatenate([token, np.where(written < 0, pad, written)], 1)
    mask = np.concatenate([asked["mask"].values, np.ones_like(written)], 1)
    # each case's padding is on the left, so that what is written stands at the same positions in all
    dataset = span_dataset(token, mask, spans)
    return dataset.assign_coords(recall=("batch", recall), answered=("batch", (recall > 0.5).astype("int8")))


def _score(scores: xr.Dataset, extended: xr.Dataset, prompts: xr.Dataset) -> xr.Dataset:
    needle = prompts.isel(span=prompts["kind"].values == "needle")
    length = (needle["key_stop"] - needle["key_start"]).isel(span=0, drop=True).values
    count = (extended["query"].values[:, extended["kind"].values == KIND] >= 0).sum(1)
    own = assemble(scores, KIND, (), SOURCE).fillna(0.0)
    per = xr.DataArray((count / length).astype("float32"), dims="batch")
    once = (scores["hit"].sel(kind=[k for k in scores["kind"].values if str(k).startswith(f"{KIND}@")]) > 0).sum("kind")
    different = [len(set(row[low:high])) for row, low, high in zip(
        prompts["token"].values, needle["key_start"].values[:, 0], needle["key_stop"].values[:, 0]
    )]  # fmt: skip
    own["score"] = (own["hit"] * per).assign_attrs(
        long_name="copies over the needle's length", units="1", source=SOURCE
    )
    own["score_once"] = (once / xr.DataArray(different, dims="batch")).assign_attrs(
        long_name="share of the needle's tokens copied", units="1", source=SOURCE
    )
    kept = {name: prompts[name] for name in prompts.coords if prompts[name].dims == ("batch",)}
    return own.drop_vars("by_step", errors="ignore").astype("float32").assign_coords(kept)
