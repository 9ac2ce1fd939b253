"""What must be so of a row, each thing compared with plain PyTorch on the same weights."""

from __future__ import annotations

from typing import Any

import torch
from nnsight import save
from transformers.pytorch_utils import Conv1D

from nnheads.models.proof_subject import LOOSE, Fails, Subject, alike, attending, fed
from nnheads.trace.blocks import hidden, reach, read_z, split_heads, start_at
from nnheads.trace.kernels import for_each_head, kernel_input
from nnheads.trace.rows import read_rows
from nnheads.trace.sites import read_site, write_site

SPLIT = 8  # positions that are read first where a cache is gone on from


def finite(ready: Subject) -> None:
    """Check that logits are numbers, the same under the usual attention and eagerly."""
    if not bool(torch.isfinite(ready.logits).all()):
        raise Fails("logits are not finite")
    with torch.no_grad(), attending(ready.module, "eager"):
        eager = ready.module(**ready.given, use_cache=False).logits
    seen = ready.given["attention_mask"].bool()
    alike(ready.logits[seen], eager[seen], "logits under two kinds of attention", LOOSE)


def in_a_chain(ready: Subject) -> None:
    """Check that each block is given what the one before gave, and the final norm the last."""
    run = ready.run
    for block in range(1, ready.blocks):
        if not torch.equal(run.gave(ready.name(block - 1)), run.given(ready.name(block))):
            raise Fails(f"block {block} is given something else than block {block - 1} gives")
    if not torch.equal(run.gave(ready.name(ready.blocks - 1)), run.given(ready.row.final_norm)):
        raise Fails("the final norm is given something else than the last block gives")


def side_by_side(ready: Subject) -> None:
    """Check that the projection is given values weighed by attention, head beside head."""
    heads, interface = ready.spec["heads"], ready.row.interface
    seen = ready.given["attention_mask"].bool()
    for block in range(ready.blocks):
        with torch.no_grad(), ready.model.trace(**ready.given, use_cache=False):
            layer = ready.model.layers[block]
            values = save(kernel_input(layer, "v", ready.spec).clone())
            if interface:  # in the order in which a forward comes to them
                rows = save(read_rows(layer, True))
            z = save(read_z(layer, heads).clone())
            if not interface:
                rows = save(read_rows(layer, False))
        if rows.shape[1] != heads:
            raise Fails(f"block {block} has {rows.shape[1]} heads, not {heads}")
        weighed = (rows @ for_each_head(values, heads).float()).transpose(1, 2)
        what = f"block {block}: values weighed by attention and what the projection is given"
        alike(weighed[seen], z[seen], what)


def through_slices(ready: Subject) -> None:
    """Check that the heads' outputs through their slices of W_O add up to what attention gives."""
    for block in range(ready.blocks):
        name = ready.name(block, ready.row.projection)
        part, z = ready.module.get_submodule(name), ready.run.given(name)
        if not isinstance(part, (torch.nn.Linear, Conv1D)):
            raise Fails(f"block {block}: the projection is a {type(part).__name__}, not a matrix")
        matrix = part.weight if isinstance(part, Conv1D) else part.weight.T
        slices = matrix.unflatten(0, (ready.spec["heads"], -1))
        total = torch.einsum("...hd,hdm->...m", split_heads(z, ready.spec["heads"]), slices)
        whole = total if part.bias is None else total + part.bias
        alike(whole, ready.run.gave(name), f"block {block}: heads through W_O and attention")


def adds_up(ready: Subject) -> None:
    """Check that what attention and the MLP add is the step of the residual stream."""
    seen = ready.given["attention_mask"].bool()  # where nothing is, kernels differ
    for block in range(ready.blocks):
        with torch.no_grad(), ready.model.trace(**ready.given, use_cache=False):
            layer = ready.model.layers[block]
            before = layer.input.clone()
            first = hidden(reach(layer, ready.spec["attention_adds"]).output).clone()
            second = hidden(reach(layer, ready.spec["mlp_adds"]).output).clone()
            parts = save(before + first.view_as(before) + second.view_as(before))
        left = ready.run.gave(ready.name(block))
        alike(
            parts[seen],
            left[seen],
            f"block {block}: the stream with both parts added, and behind it",
            LOOSE,
        )


def written_back(ready: Subject) -> None:
    """Check that heads' outputs which are written back change nothing, to the bit."""
    for block in range(ready.blocks):
        with torch.no_grad(), ready.model.trace(**ready.given, use_cache=False):
            z = read_z(ready.model.layers[block], ready.spec["heads"])
            z[:] = z.clone()
            logits = save(ready.model.output.logits)
        if not torch.equal(logits, ready.logits):
            raise Fails(f"block {block}: heads' outputs written back change the logits")


def without_a_head(ready: Subject) -> None:
    """Check that the logits without a head are those that a plain hook gives, and others."""
    heads, last = ready.spec["heads"], ready.logits[:, -1]
    for block in range(ready.blocks):

        def silence(_: object, given: tuple[Any, ...]) -> tuple[Any, ...]:
            z = given[0].clone()
            split_heads(z, heads)[:, :, heads - 1] = 0
            return (z, *given[1:])

        part = ready.module.get_submodule(ready.name(block, ready.row.projection))
        hook = part.register_forward_pre_hook(silence)
        try:
            with torch.no_grad():
                plain = ready.module(**ready.given, use_cache=False).logits[:, -1]
        finally:
            hook.remove()
        with torch.no_grad(), ready.model.trace(**ready.given, use_cache=False):
            read_z(ready.model.layers[block], heads)[:, :, heads - 1] = 0
            logits = save(ready.model.output.logits[:, -1])
        alike(logits, plain, f"block {block}: logits without a head, traced and hooked")
        if not float((plain - last).abs().max()) > 0:
            raise Fails(f"block {block}: a head changes nothing")


def rows_again(ready: Subject) -> None:
    """Check that attention rows computed from queries and keys are the model's eager weights.

    Families outside the attention interface show their weights themselves.
    """
    if not ready.row.interface:
        return
    seen = ready.given["attention_mask"][:, None, :, None].bool()
    for block in range(ready.blocks):
        with torch.no_grad(), ready.model.trace(**ready.given, use_cache=False):
            rows = save(read_rows(ready.model.layers[block], True))
        weights = ready.call(block).weights
        if weights is None:
            raise Fails(f"block {block}: eager attention gives no weights")
        what = f"block {block}: rows computed again and eager weights"
        alike(rows * seen, weights[..., : rows.shape[-1]].float() * seen, what)


def values_by_group(ready: Subject) -> None:
    """Check that a key/value head's values reach the heads of its group, and no others."""
    heads, shared = ready.spec["heads"], ready.spec["kv_heads"]
    for block in range(ready.blocks):
        if ready.row.interface and ready.call(block).key.shape[1] != shared:
            own = ready.call(block).key.shape[1]
            raise Fails(f"block {block} has {own} key/value heads, not {shared}")
        with torch.no_grad(), ready.model.trace(**ready.given, use_cache=False):
            layer = ready.model.layers[block]
            values = read_site(
                layer, "v", ready.spec, tuple(ready.given["input_ids"].shape)
            ).clone()
            values[:, -1] = 0
            write_site(layer, "v", values, ready.spec)
            z = save(read_z(layer, heads).clone())
        own = z[:, :, heads - heads // shared :]
        others = z[:, :, : heads - heads // shared]
        if float(own.abs().max()) > 0:
            raise Fails(f"block {block}: heads without values give something all the same")
        if others.numel() and not float(others.abs().max()) > 0:
            raise Fails(f"block {block}: heads of other groups lose their values, too")


def without_padding(ready: Subject) -> None:
    """Check that a short text in a batch, padded on the left, is as it is alone."""
    own = ready.given["attention_mask"][1].bool()
    ids, mask = (ready.given[name][1:, own] for name in ("input_ids", "attention_mask"))
    with torch.no_grad():
        alone = ready.module(**fed(ready.row, ids, mask), use_cache=False).logits[:, -1]
    alike(ready.logits[1:, -1], alone, "logits of a padded text and of the same alone", LOOSE)


def from_the_middle(ready: Subject) -> None:
    """Check that a run which begins at a block, with what entered it, ends as the whole does."""
    for block in range(1, ready.blocks):
        entered = ready.run.given(ready.name(block))
        with torch.no_grad(), ready.model.trace(**ready.given, use_cache=False, logits_to_keep=1):
            start_at(ready.model, block, entered, ready.row.tuple_block)
            logits = save(ready.model.output.logits[:, -1])
        alike(logits, ready.logits[:, -1], f"logits of a run from block {block} on", LOOSE)


def behind_a_cache(ready: Subject) -> None:
    """Check that a text whose beginning was read before ends as the whole does."""
    first = {name: tensor[:, :SPLIT] for name, tensor in ready.given.items()}
    rest = {name: tensor[:, SPLIT:] for name, tensor in ready.given.items()}
    rest["attention_mask"] = ready.given["attention_mask"]
    with torch.no_grad():
        past = ready.module(**first, use_cache=True).past_key_values
        run = ready.module(**rest, past_key_values=past, use_cache=True)
    alike(run.logits[:, -1], ready.logits[:, -1], "logits behind a cache", LOOSE)


def predicts(ready: Subject) -> None:
    """Check that what the final norm gives, unembedded, scaled and capped, is what is predicted."""
    row, run, config = ready.row, ready.run, ready.module.config.get_text_config()
    if not torch.equal(run.given(row.unembedding), run.gave(row.final_norm)):
        raise Fails("the unembedding is given something else than the final norm gives")
    logits = run.gave(row.unembedding) * (getattr(config, "logit_scale", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    capped = torch.tanh(logits / cap) * cap if cap else logits
    seen = ready.given["attention_mask"].bool()
    alike(capped[seen], ready.logits[seen], "logits as they are read and as they are given", LOOSE)
