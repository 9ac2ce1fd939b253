"""TransformerLens 4: its own sweep over head outputs, and its head detector."""

from __future__ import annotations

import torch
from serve import difference, pairs, serve
from transformer_lens.head_detector import HEAD_NAMES, detect_head
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.patching import get_act_patch_attn_head_out_all_pos


def boot(model: str):
    """The weights as they are: nothing is folded or centred, so its numbers can be compared with
    anybody's.
    """
    bridge = TransformerBridge.boot_transformers(model, device="cpu")
    bridge.cfg.default_prepend_bos = False  # the same tokens for everybody
    return bridge


def sweep(model: str, given: dict):
    """logit difference [case, layer, head] with the clean head output in the corrupted run, at all
    positions.
    """
    bridge, pair = boot(model), pairs(given)
    clean, corrupted = given["token"].long(), given["corrupted"].long()
    bridge(corrupted)

    def turn():
        _, cache = bridge.run_with_cache(clean, names_filter=lambda name: name.endswith("hook_z"))
        found = get_act_patch_attn_head_out_all_pos(
            bridge, corrupted, cache, lambda logits: difference(logits, pair), reduce="none"
        )
        return found.values.permute(2, 0, 1)

    return turn


def detect(model: str, given: dict, shared: bool):
    """The score [type, layer, head] of its three head types on one text, from one run each, or from
    the patterns of one run."""
    bridge = boot(model)
    text = " ".join(map(str, given["token"][0].tolist()))
    if not torch.equal(bridge.to_tokens(text), given["token"].long()):
        raise SystemExit("TransformerLens reads other tokens from the text than it was given")
    bridge(given["token"].long()[:, :64])

    def turn():
        cache = None
        if shared:
            _, cache = bridge.run_with_cache(
                given["token"].long(),
                names_filter=lambda name: name.endswith("hook_pattern"),
                remove_batch_dim=True,
            )
        return torch.stack([detect_head(bridge, text, name, cache=cache) for name in HEAD_NAMES])

    return turn


WAYS = {
    "sweep": sweep,
    "detect": lambda model, given: detect(model, given, False),
    "detect_shared": lambda model, given: detect(model, given, True),
}

if __name__ == "__main__":
    serve(WAYS, "transformer-lens")
