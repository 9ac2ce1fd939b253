"""One head's direct path as an intervention: what it says reaches the end, and nobody else hears
it.

The head speaks as in the source run; what every later part adds is held at what it adds in the base
run. What is left is the head's direct effect on the residual stream after the last held layer.
"""

from __future__ import annotations

from nnheads.errors import BadInput
from nnheads.interventions.operations import ALL, At, Interchange
from nnheads.interventions.schema import Edit, Intervention


def direct_path(
    layer: int, head: int, layers: int, *, until: int | None = None, at: At = ALL
) -> Intervention:
    """The direct path of a head, for `run(model, path, base, [source, base])`.

    Args:
        layers: how many layers the model has.
        until: the last layer whose parts are held; default: the last one, so that the path leads to
            the logits. With an earlier one it leads into the layers after it.
        at: where the head speaks as in the source run.

    Raises:
        BadInput: layers that do not exist, or a path that ends before it begins.

    The same as `patching.path_patch` with feed-forward parts frozen, for one head.
    """
    last = layers - 1 if until is None else until
    if not 0 <= layer <= last < layers:
        raise BadInput(
            f"a path from layer {layer} through layer {last} is not possible; there are layers 0 to"
            f" {layers - 1}"
        )
    speaks = Edit("z", Interchange(source=0), layer=layer, units=(head,), at=at)
    held = [Edit("mlp_out", Interchange(source=1), layer=layer)]
    for later in range(layer + 1, last + 1):
        held += [Edit(site, Interchange(source=1), layer=later) for site in ("attn_out", "mlp_out")]
    return Intervention(speaks, *held)
