"""Where a run can be changed: every site is a live view [row, position, unit, width] inside a trace.

For z the units are the heads; the other sites have one unit. Writing into the view changes the run.
Shipped to remote servers as source: torch only.
"""

from __future__ import annotations

import torch
from jaxtyping import Float

from nnheads.heads import hidden, read_z

SITES = {
    "z": "head output before W_O",
    "resid_pre": "residual stream before the block",
    "attn_out": "what attention adds",
    "mlp_out": "what the feed-forward part adds",
}


def read_site(layer, site: str, heads: int, rows: int) -> Float[torch.Tensor, "row position unit width"]:
    """The site's live value at one layer. Call it at the site's place in the order of execution."""
    if site == "z":
        return read_z(layer, heads)
    if site == "resid_pre":
        return layer.input.unsqueeze(2)
    if site == "attn_out":
        return hidden(layer.attention.output).unsqueeze(2)
    output = hidden(layer.mlp.output)
    return output.view(rows, -1, 1, output.shape[-1])  # OPT runs its feed-forward part on flattened rows
