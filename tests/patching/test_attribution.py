"""Estimates from gradients against plain PyTorch autograd on every family, and numbers known by
hand.
"""

from __future__ import annotations

import contextlib
from operator import attrgetter

import numpy as np
import oracle
import pytest
import torch
import xarray as xr
from nnsight import TransformersModel
from random_models import APART, build, placed, tiny, words_tokenizer
from swaps import ANSWERS, pairs, runs

from nnheads.errors import BadInput, RunError
from nnheads.models.families import FAMILIES
from nnheads.patching.attribution import attribute
from nnheads.patching.patch import patch
from nnheads.patching.prepared import units
from nnheads.trace.session import remote_of

HOOKED = ("z", "attn_out", "mlp_out", "resid_pre")


def logit_difference(module, given: dict) -> torch.Tensor:
    own = module(**given, use_cache=False).logits[:, -1].float().gather(-1, ANSWERS)
    return own[:, 0] - own[:, 1]


@contextlib.contextmanager
def seen(model_type: str, layer: int, site: str, change):
    """A plain run with `change(value)` of one site, whichever way it is reached."""
    if site in HOOKED:
        with oracle.hooked(tiny(model_type)[1], model_type, layer, site, change):
            yield tiny(model_type)[1]
        return
    module = tiny(model_type, "eager")[1]

    def at_kernel(q, k, v):
        return tuple(change(x) if name == site else x for name, x in zip("qkv", (q, k, v)))

    options = {"reweigh": change} if site == "pattern" else {"change": at_kernel}
    with oracle.kernel(module, model_type, layer, **options):
        yield module


def plain_value(model_type: str, given: dict, layer: int, site: str) -> torch.Tensor:
    kept = []
    with (
        torch.no_grad(),
        seen(model_type, layer, site, lambda value: kept.append(value.clone()) or value) as module,
    ):
        module(**given, use_cache=False)
    return kept[0]


def plain_gradient(
    model_type: str, given: dict, layer: int, site: str, metric=logit_difference
) -> torch.Tensor:
    """The metric's gradient at a site: its value put in as a leaf."""
    leaves = []

    def leaf(value):
        leaves.append(value.detach().clone().requires_grad_(True))
        return leaves[0].clone()  # models may add to it in place

    with seen(model_type, layer, site, leaf) as module:
        total = metric(module, given).sum()
    if not total.requires_grad:  # cut off from the end
        return torch.zeros_like(leaves[0])
    return torch.autograd.grad(total, leaves[0])[0]


def by_unit(values: torch.Tensor, model_type: str, site: str) -> torch.Tensor:
    """Numbers per element -> [case, unit, position], summed over the width and over copies of a key
    or value.
    """
    if site == "z":
        return values.reshape(2, 9, 4, -1).sum(-1).transpose(1, 2)
    if site in ("q", "k", "v"):
        return values.sum(-1).unflatten(1, (units(tiny(model_type)[0], site), -1)).sum(2)
    return values.reshape(2, 9, -1).sum(-1).unsqueeze(1)


def first_order(model_type: str, prompts: xr.Dataset, layer: int, site: str) -> torch.Tensor:
    base, source = runs(model_type, prompts)
    moved = plain_value(model_type, source, layer, site) - plain_value(
        model_type, base, layer, site
    )
    return by_unit(moved * plain_gradient(model_type, base, layer, site), model_type, site)


def close(found: xr.DataArray, expected: torch.Tensor, prompts: xr.Dataset) -> None:
    """Found (batch[, unit], position) and expected [case, unit, position], at positions that are no
    padding.
    """
    expected = torch.where(
        torch.from_numpy(prompts["mask"].values)[:, None].bool(), expected, torch.nan
    )
    scale = max(1.0, float(expected.nan_to_num().abs().max()))
    np.testing.assert_allclose(
        found.values.reshape(expected.shape), expected.detach(), atol=1e-5 * scale
    )


@pytest.mark.parametrize("model_type", APART)
@pytest.mark.parametrize("site", [*HOOKED, "q", "k", "v"])
def test_attribution_patching_equals_plain_autograd(model_type, site, padded):
    prompts = pairs(padded)
    scores = attribute(tiny(model_type)[0], prompts, method="atp", site=site, by_position=True)
    whole = attribute(tiny(model_type)[0], prompts, method="atp", site=site)
    np.testing.assert_allclose(whole["estimate"], scores["estimate"].sum("position"), atol=2e-5)
    np.testing.assert_allclose(whole["size"], abs(whole["estimate"]))
    for layer in (0, 2):
        expected = first_order(model_type, prompts, layer, site)
        close(scores["estimate"].sel(layer=layer), expected, prompts)
        assert float(expected.abs().max()) > 1e-4, "a gradient of zero would prove nothing"


def rows_changed(
    model_type: str, prompts: xr.Dataset, layer: int, site: str, places=(None,)
) -> list[torch.Tensor]:
    """Change of the attention weights [case, head, query, key] if the donor's q or k takes the
    base's place: at each of `places`, a position or None for all.
    """
    base, source = runs(model_type, prompts)
    given, weights = plain_value(model_type, source, layer, site), []
    module = tiny(model_type, "eager")[1]
    look = lambda value: weights.append(value.clone()) or value  # noqa: E731
    for place in places:

        def swap(q, k, v, place=place):
            own = {"q": q, "k": k}[site]
            where = (
                torch.arange(own.shape[2]) == place if place is not None else torch.tensor([True])
            )
            new = torch.where(where[:, None], given, own)
            return (new, k, v) if site == "q" else (q, new, v)

        with torch.no_grad(), oracle.kernel(module, model_type, layer, swap, look):
            module(**base, use_cache=False)
    before = plain_value(model_type, base, layer, "pattern")
    return [own - before for own in weights]


@pytest.mark.parametrize("model_type", APART)
def test_queries_are_estimated_by_the_attention_that_they_cause(model_type, padded):
    """Against change of the weights times the gradient at the weights, by eager attention and plain
    autograd.
    """
    prompts = pairs(padded)
    scores = attribute(tiny(model_type)[0], prompts, site="q", by_position=True)
    for layer in (0, 2):
        slopes = plain_gradient(model_type, runs(model_type, prompts)[0], layer, "pattern")
        expected = (rows_changed(model_type, prompts, layer, "q")[0] * slopes).sum(-1)
        close(scores["estimate"].sel(layer=layer), expected, prompts)


@pytest.mark.parametrize("model_type", APART)
def test_a_key_is_estimated_by_the_attention_that_it_causes_in_every_later_row(model_type, padded):
    """Each key alone replaced, rows anew, by eager attention and plain autograd; then all keys
    together.
    """
    prompts = pairs(padded)
    model, _ = tiny(model_type)
    count = units(model, "k")
    each, whole = (
        attribute(model, prompts, site="k", by_position=True),
        attribute(model, prompts, site="k"),
    )
    for layer in (0, 1):
        slopes = plain_gradient(model_type, runs(model_type, prompts)[0], layer, "pattern")
        rows = rows_changed(model_type, prompts, layer, "k", (*range(9), None))
        *moved, together = [(own * slopes).sum((-1, -2)) for own in rows]
        close(
            each["estimate"].sel(layer=layer),
            torch.stack(moved, -1).unflatten(1, (count, -1)).sum(2),
            prompts,
        )
        expected = together.unflatten(1, (count, -1)).sum(2)
        np.testing.assert_allclose(whole["estimate"].sel(layer=layer), expected, atol=2e-5)


@contextlib.contextmanager
def cut_off(model_type: str, layer: int):
    """The residual contribution of one block counts, but has no gradient."""
    block = attrgetter(FAMILIES[model_type].layers)(tiny(model_type)[1])[layer]

    def detach(_, arguments, keywords, output):
        given = arguments[0] if arguments else keywords["hidden_states"]
        kept = output[0] if isinstance(output, tuple) else output
        kept = given + (kept - given).detach()
        return (kept, *output[1:]) if isinstance(output, tuple) else kept

    handle = block.register_forward_hook(detach, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("model_type", APART)
@pytest.mark.parametrize("site", ["z", "resid_pre"])
def test_graddrop_averages_over_blocks_cut_off(model_type, site, padded):
    prompts = pairs(padded)
    base, source = runs(model_type, prompts)
    scores = attribute(tiny(model_type)[0], prompts, site=site)
    for layer in (0, 1):
        moved = plain_value(model_type, source, layer, site) - plain_value(
            model_type, base, layer, site
        )
        total = torch.zeros(2, units(tiny(model_type)[0], site))
        for dropped in range(3):
            with cut_off(model_type, dropped):
                slopes = plain_gradient(model_type, base, layer, site)
            total += by_unit(moved * slopes, model_type, site).sum(-1).abs()
        found = scores["size"].sel(layer=layer).values.reshape(total.shape)
        np.testing.assert_allclose(found, total / 2, atol=2e-5, rtol=1e-4)


def test_one_layer_has_nothing_to_cut_off(padded):
    module = build("llama", num_hidden_layers=1)
    scores = attribute(wrapped(module, "llama"), pairs(padded))
    np.testing.assert_array_equal(scores["size"], abs(scores["estimate"]))


@pytest.mark.parametrize("site", [*HOOKED, "q", "k", "v"])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom", "gptj", "falcon"])
def test_rehearsed_remotely_gives_the_same_estimates(model_type, site, padded):
    prompts, model = pairs(padded), tiny(model_type)[0]
    for by_position in (False, True):
        here, there = (
            placed(remote, attribute)(model, prompts, site=site, by_position=by_position)
            for remote in (False, "local")
        )
        xr.testing.assert_allclose(here, there, atol=1e-5)


def wrapped(module, model_type: str = "gpt2"):
    return TransformersModel(
        module, tokenizer=words_tokenizer(), rename=FAMILIES[model_type].rename()
    )


def linear_after_z():
    """GPT-2 without norms and feed-forward parts whose attention is uniform: logits are linear in
    every head output.
    """
    module = build("gpt2")
    with torch.no_grad():
        for block in module.transformer.h:
            block.ln_1 = torch.nn.Identity()
            block.mlp.c_proj.weight.zero_()
            block.mlp.c_proj.bias.zero_()
            block.attn.c_attn.weight[:, :96] = 0
    module.transformer.ln_f = torch.nn.Identity()
    return wrapped(module)


@pytest.mark.parametrize("noising", [False, True])
@pytest.mark.parametrize("site", ["z", "v", "attn_out"])
def test_where_the_metric_is_linear_the_estimate_is_exact(site, noising, padded):
    model, prompts = linear_after_z(), pairs(padded)
    exact = patch(model, prompts, site=site, noising=noising, gap=0.0)
    change = (
        exact["logit_difference"] - exact[f"{'clean' if noising else 'corrupted'}_logit_difference"]
    )
    for method in ("atp", "atp*"):
        scores = attribute(model, prompts, method=method, site=site, noising=noising)
        scale = float(abs(change).max())
        np.testing.assert_allclose(scores["estimate"], change, atol=1e-4 * scale)
        for name in ("clean_logit_difference", "corrupted_logit_difference"):
            np.testing.assert_allclose(scores[name], exact[name], rtol=1e-4)
    assert scores.attrs["direction"] == ("noising" if noising else "denoising")


SHARP = 40.0  # of attention scores: the softmax is a choice
A, B, X, Y, UP, DOWN = range(10, 16)


def by_hand(layers: int = 1):
    """GPT-2 of width 8 without norms, positions and feed-forward parts, one-hot embeddings of four
    tokens.

    The head of layer 0 looks from X to A and from Y to B with a score of SHARP, and writes +1
    towards UP for A and -1 for B. The other head, and further layers, do nothing.
    """
    module = build("gpt2", n_embd=8, n_head=2, n_layer=layers, tie_word_embeddings=False)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        for block in module.transformer.h:
            block.ln_1 = torch.nn.Identity()
        module.transformer.ln_f = torch.nn.Identity()
        for place, token in enumerate((A, B, X, Y)):
            module.transformer.wte.weight[token, place] = 1
        attention = module.transformer.h[0].attn
        query, key, value = attention.c_attn.weight.split(
            8, 1
        )  # of [in, out], where the head owns the first four
        query[2, 0] = query[3, 1] = SHARP * 4**0.5
        key[0, 0] = key[1, 1] = 1
        value[0, 0], value[1, 0] = 1, -1
        attention.c_proj.weight[0, 4] = 1
        module.lm_head.weight[UP, 4], module.lm_head.weight[DOWN, 4] = 0.5, -0.5
    return module


def one_case(corrupted: list[int], clean: list[int]) -> xr.Dataset:
    place = ("batch", "position")
    return xr.Dataset(
        {
            "token": (place, np.array([clean], "int32")),
            "corrupted": (place, np.array([corrupted], "int32")),
            "mask": (place, np.ones((1, len(clean)), "int8")),
            "answer": ("batch", np.array([UP], "int32")),
            "wrong": ("batch", np.array([DOWN], "int32")),
        },
        {"batch": [0]},
    )


def test_a_saturated_query_is_seen_only_by_recomputing_its_attention():
    """X looks at A and finds +1, Y would look at B and find -1: swapping the query is worth -2."""
    model, prompts = wrapped(by_hand()), one_case([A, B, X], [A, B, Y])
    exact = patch(model, prompts, site="q", gap=0.0)
    change = (exact["logit_difference"] - exact["corrupted_logit_difference"]).sel(layer=0)
    np.testing.assert_allclose(change, [[-2, 0]], atol=1e-5)
    plain, fixed = (
        attribute(model, prompts, method=method, site="q") for method in ("atp", "atp*")
    )
    assert float(abs(plain["estimate"]).max()) < 1e-10
    np.testing.assert_allclose(fixed["estimate"].values.ravel(), [-2, 0], atol=1e-5)


def test_a_saturated_key_is_replaced_alone_and_seen_by_all_later_rows():
    """Without A's key, X finds three alike and averages +1, -1 and 0: worth -1. B's key in A's
    place is not looked at by X, so all keys together are worth as much; the query of the donor has
    no part in it."""
    model, prompts = wrapped(by_hand()), one_case([A, B, X], [B, B, Y])
    exact = patch(model, prompts, site="k", by_position=True, gap=0.0)
    change = (exact["logit_difference"] - exact["corrupted_logit_difference"]).sel(
        layer=0, kv_head=0
    )
    np.testing.assert_allclose(change.values.ravel(), [-1, 0, 0], atol=1e-5)
    plain, fixed = (
        attribute(model, prompts, method=method, site="k", by_position=True)
        for method in ("atp", "atp*")
    )
    assert float(abs(plain["estimate"]).max()) < 1e-10
    np.testing.assert_allclose(fixed["estimate"].sel(layer=0, kv_head=0), change, atol=1e-5)
    together = attribute(model, prompts, site="k")["estimate"].sel(layer=0, kv_head=0)
    np.testing.assert_allclose(together, [-1], atol=1e-5)


def test_attention_that_loses_every_digit_of_the_others_still_counts_them():
    """With a score of 80 the other keys' weights are lost beside 1 in 32 bits; nothing may be
    subtracted from 1.
    """
    module = by_hand()
    with torch.no_grad():
        module.transformer.h[0].attn.c_attn.weight[2, 0] *= 2
    fixed = attribute(wrapped(module), one_case([A, B, X], [B, B, X]), site="k", by_position=True)
    np.testing.assert_allclose(
        fixed["estimate"].sel(layer=0, kv_head=0).values.ravel(), [-1, 0, 0], atol=1e-5
    )


def test_effects_that_cancel_are_seen_by_cutting_layers_off():
    """The head of layer 0 writes the answer, layer 1 writes its negative: together nothing, and one
    of them without the other 1. Cut off are layer 0 (nothing is left of the head) and layer 1 (all
    of it is), over L - 1 = 1."""
    module = by_hand(layers=2)
    with torch.no_grad():
        attention = module.transformer.h[1].attn
        attention.c_attn.weight[4, 16] = 1
        attention.c_proj.weight[0, 4] = -1
    model, prompts = wrapped(module), one_case([B], [A])
    plain, dropped = (
        attribute(model, prompts, method=method, layers=[0]) for method in ("atp", "atp*")
    )
    np.testing.assert_allclose(plain["size"].values.ravel(), [0, 0], atol=1e-6)
    np.testing.assert_allclose(dropped["estimate"].values.ravel(), [0, 0], atol=1e-6)
    np.testing.assert_allclose(dropped["size"].values.ravel(), [2, 0], atol=1e-6)


@pytest.mark.parametrize("metric", ["logit", "log_probability", "probability", "ratio"])
def test_metrics_have_their_own_gradient(metric, padded):
    prompts = pairs(padded)
    base, source = runs("llama", prompts)

    def plain(module, given):
        logits = module(**given, use_cache=False).logits[:, -1].float()
        own, total = logits.gather(-1, ANSWERS), logits.logsumexp(-1)
        return {
            "logit": own[:, 0],
            "log_probability": own[:, 0] - total,
            "probability": (own[:, 0] - total).exp(),
            "ratio": own[:, 0] / (1 + own[:, 1] ** 2),
        }[metric]

    given = (
        (lambda logits: logits[..., 0] / (1 + logits[..., 1] ** 2)) if metric == "ratio" else metric
    )
    scores = attribute(tiny("llama")[0], prompts, method="atp", metric=given, by_position=True)
    moved = plain_value("llama", source, 1, "z") - plain_value("llama", base, 1, "z")
    expected = by_unit(moved * plain_gradient("llama", base, 1, "z", plain), "llama", "z")
    close(scores["estimate"].sel(layer=1), expected, prompts)


def test_questions_inside_the_prompt_have_estimates(padded):
    """The mean over two questions is half of the sum of the estimates of each."""
    prompts = pairs(padded).drop_vars(["answer", "wrong"])
    model, _ = tiny("gpt2")

    def asked(ask, target):
        given = {
            "ask": (("batch", "step"), np.array(ask)),
            "target": (("batch", "step"), np.array(target)),
        }
        return attribute(model, prompts.assign(given), metric="logit")["estimate"]

    both = asked([[6, 8], [7, 8]], [[5, 6], [7, 9]])
    single = asked([[6], [7]], [[5], [7]]) + asked([[8], [8]], [[6], [9]])
    np.testing.assert_allclose(both, single / 2, atol=1e-5)


def test_roles_layers_and_padding(padded):
    model, _ = tiny("llama")
    prompts = pairs(padded).assign_coords(role_S2=("batch", [5, 6]))
    every = attribute(model, prompts, by_position=True, method="atp")
    assert every["estimate"].dims == ("batch", "layer", "head", "position")
    assert every["estimate"].isnull().all(["layer", "head"]).values.tolist() == [
        [False] * 9,
        [True] * 4 + [False] * 5,
    ]
    at_role = attribute(model, prompts, at="S2", layers=[2], method="atp")
    assert list(at_role["layer"].values) == [2] and at_role["estimate"].dtype == np.float32
    for case, position in ((0, 5), (1, 6)):
        expected = every["estimate"][case].sel(position=position, layer=[2])
        np.testing.assert_allclose(at_role["estimate"][case], expected, atol=1e-6)


def test_weights_that_ask_for_gradients_change_nothing(padded):
    module = build("llama")
    expected = attribute(tiny("llama")[0], pairs(padded))
    module.requires_grad_(True)
    found = attribute(wrapped(module, "llama"), pairs(padded))
    xr.testing.assert_allclose(found, expected, atol=1e-6)
    assert all(parameter.grad is None for parameter in module.parameters())
    with torch.no_grad():
        xr.testing.assert_allclose(attribute(tiny("llama")[0], pairs(padded)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ig"}, r"method 'ig' is not known; use one of atp, atp\*"),
        (
            {"site": "pattern"},
            r"attention weights have no estimate of their own here; use site q, k or z, or patch",
        ),
        ({"site": "zz"}, r"site 'zz' is not known; use one of z, q"),
        ({"layers": [3]}, r"layer 3 does not exist; this model has layers 0 to 2"),
        ({"metric": "loss"}, r"metric 'loss' is not known"),
        (
            {"metric": "rank"},
            r"metric rank has no gradient at the unchanged run; use one of logit_difference, logit",
        ),
        ({"metric": "accuracy"}, r"metric accuracy has no gradient"),
        ({"metric": "kl"}, r"metric kl has no gradient"),
        ({"metric": lambda logits: (logits[..., 0] > 0).float()}, r"metric lambda has no gradient"),
    ],
)
def test_estimates_that_cannot_be_are_refused(options, message, padded):
    with pytest.raises(BadInput, match=message):
        attribute(tiny("llama")[0], pairs(padded), **options)


@pytest.mark.parametrize("remote", [True, "http://127.0.0.1:9"])
def test_servers_without_gradients_are_refused_before_anything_is_sent(remote, padded):
    with pytest.raises(
        RunError,
        match=(
            r"gradients do not run in NDIF's sandbox; use remote='local', trusted=True.*exact sweep"
        ),
    ):
        placed(remote, attribute)(tiny("llama")[0], pairs(padded))


def test_a_trusted_server_is_asked(padded, monkeypatch):
    from nnheads.patching import attribution as gradients

    class AskedError(Exception):
        pass

    def ask(model, *_):
        raise AskedError(remote_of(model))

    monkeypatch.setattr(gradients.backward, "attribute", ask)
    with pytest.raises(AskedError, match=r"http://127\.0\.0\.1:9"):
        placed("http://127.0.0.1:9", attribute)(tiny("llama")[0], pairs(padded), trusted=True)


def test_weights_with_nan_are_named_before_gradients_are(padded):
    module = build("llama")
    module.model.layers[1].mlp.up_proj.weight[:] = float("nan")
    with pytest.raises(RunError, match="logits are not finite"):
        attribute(wrapped(module, "llama"), pairs(padded))
