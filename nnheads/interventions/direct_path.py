"""One head's direct path as an intervention: what it writes reaches the end, and nothing reacts.

The sender writes what it writes in the source run; what every later part adds is held at what it
adds in the base run. What is left is the sender's direct effect on the residual stream after the
last held layer.
"""

from __future__ import annotations

from nnheads.errors import BadInput
from nnheads.interventions.operations import Interchange
from nnheads.interventions.positions import ALL, At
from nnheads.interventions.schema import Edit, Intervention


def direct_path(
    layer: int, head: int, layers: int, *, until: int | None = None, at: At = ALL
) -> Intervention:
    """Return the direct path of a head, for `run(model, path, base, [source, base])`.

    The same as `patching.path_patch` with MLPs frozen, for one head.

    Args:
        layer: of the sender, from 0. head: of the sender, from 0.
        layers: how many layers the model has.
        until: the last layer whose parts are held; default: the last one, so that the path leads to
            the logits. With an earlier one it leads into the layers after it.
        at: where the sender writes what it writes in the source run.

    Returns:
        Edits of z, mlp_out and attn_out; source 0 is the source run, source 1 the base run.

    Raises:
        BadInput: layers that do not exist, or a path that ends before it begins.

    Example:
        >>> from nnheads.interventions import direct_path
        >>> path = direct_path(0, 3, layers=3)
        >>> [(edit.site, edit.layer) for edit in path.edits]
        [('z', 0), ('mlp_out', 0), ('attn_out', 1), ('mlp_out', 1), ('attn_out', 2), ('mlp_out', 2)]
    """
    last = layers - 1 if until is None else until
    if not 0 <= layer <= last < layers:
        raise BadInput(
            f"a path from layer {layer} through layer {last} is not possible; there are layers 0 to"
            f" {layers - 1}"
        )
    sender = Edit("z", Interchange(source=0), layer=layer, units=(head,), at=at)
    later = [(site, one) for one in range(layer + 1, last + 1) for site in ("attn_out", "mlp_out")]
    held = [
        Edit(site, Interchange(source=1), layer=one) for site, one in [("mlp_out", layer), *later]
    ]
    return Intervention(sender, *held)
