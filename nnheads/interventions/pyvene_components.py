"""Where pyvene's components are in a model of any family."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from nnheads.errors import BadInput
from nnheads.interventions.operation import Operation
from nnheads.interventions.operations import AddSource, Collect, Interchange, Zero
from nnheads.interventions.pyvene_weights import Stored
from nnheads.interventions.schema import Edit
from nnheads.models.families import family
from nnheads.models.geometry import Geometry, geometry
from nnheads.models.names import check_layer

COMPONENTS = {  # pyvene's component -> site
    "block_input": "resid_pre",
    "block_output": "resid_post",
    "mlp_input": "mlp_in",
    "mlp_output": "mlp_out",
    "attention_input": "attn_in",
    "attention_output": "attn_out",
    "attention_value_output": "z",
    "head_attention_value_output": "z",
    "value_output": "v",
    "head_value_output": "v",
}
# what pyvene reads before the norm that stands between a part and the residual stream
BEFORE_NORM = {"attention_output": "attention", "mlp_output": "mlp"}
HEADS = ("head_attention_value_output", "head_query_output", "head_key_output", "head_value_output")
ACTIVATIONS = ("act_fn", "act", "activation_fn", "gelu_impl")
WHOLE_SITE = (Zero, Interchange, AddSource, Collect)  # without tensors of a width of their own
Partition = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Part:
    """One of pyvene's interventions.

    Args:
        head_width: features of a head, where heads are neurons of a module by path.
        partition: features of each subspace.
        note: what is not taken over.
    """

    name: str
    edit: Edit
    unit: str
    head_width: int | None
    partition: Partition | None
    note: str = ""


def everywhere(model: Any, fields: dict[str, Any], do: Operation, stored: Stored) -> Part:
    """Return a representation of the config at every position and head.

    Args:
        fields: of the config. stored: what the folder keeps of it.

    Raises:
        BadInput: a layer or a component that the model does not have.
    """
    sizes, name = geometry(model), stored.name
    _check_layer(fields, sizes, name)
    partition = _partition(fields["subspace_partition"], name)
    row, own = family(model), BEFORE_NORM.get(fields["component"])
    if own is not None and row.post_norm is not None:
        path = f"{row.layers}.{fields['layer']}.{getattr(row, own)}"
        return Part(name, Edit("output", do, path=path), fields["unit"], None, partition)
    if fields["component"] in COMPONENTS:
        edit, note = _at_site(fields, do, sizes, stored.dimension)
        return Part(name, edit, fields["unit"], None, partition, note)
    module = _module(model, fields["component"], fields["layer"], sizes)
    edit = Edit(module.end, do, path=module.path, neurons=module.neurons)
    return Part(name, edit, fields["unit"], module.head_width, partition)


def _check_layer(fields: dict[str, Any], sizes: Geometry, name: str) -> None:
    if "." in fields["component"]:
        return
    try:
        check_layer(fields["layer"], sizes.layers)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from None


def _at_site(
    fields: dict[str, Any], do: Operation, sizes: Geometry, dimension: int | None
) -> tuple[Edit, str]:
    """Return the edit of a component that is a site, and what is not taken over."""
    component = fields["component"]
    edit = Edit(COMPONENTS[component], do, layer=fields["layer"])
    heads = {"z": sizes.heads, "v": sizes.kv_heads}.get(edit.site, 0)
    units = fields["max_number_of_units"] if component in HEADS else heads
    width = units * sizes.head_dim if heads else sizes.d_model
    if dimension is None or dimension >= width:
        return edit, ""
    if heads:
        # pyvene takes hidden / heads for a head's width, which cuts the heads of many families
        note = f"intervention_dimensions {dimension}; whole heads are taken, {width} features"
        return edit, note
    if type(do) in WHOLE_SITE:
        edit = replace(edit, neurons=tuple(range(dimension)))
    return edit, ""


@dataclass(frozen=True)
class _Module:
    """A module by path: its end, its neurons (None: all), and a head's width."""

    path: str
    end: str = "output"
    neurons: tuple[int, ...] | None = None
    head_width: int | None = None


def _module(model: Any, component: str, layer: int, sizes: Geometry) -> _Module:
    """Return the module of a component that is no site."""
    if "." in component:
        path, _, end = component.replace("[", ".").replace("]", "").rpartition(".")
        return _Module(path, end)
    row = family(model)
    block, names = f"{row.layers}.{layer}", {name for name, _ in model._module.named_modules()}
    if component == "mlp_activation":
        parent = (row.neurons or "").rpartition(".")[0]
        return _activation(f"{block}.{parent}", names)
    attention = f"{block}.{row.projection.rpartition('.')[0]}"
    return _projection(attention, component, names, sizes)


def _activation(parent: str, names: set[str]) -> _Module:
    """Return the activation function of an MLP."""
    paths = [f"{parent}.{name}".replace("..", ".") for name in ACTIVATIONS]
    known = [path for path in paths if path in names]
    if not known:
        raise BadInput(
            "component mlp_activation: this family's activation is no module; use site mlp_hidden"
        )
    return _Module(known[0])


def _projection(attention: str, component: str, names: set[str], sizes: Geometry) -> _Module:
    """Return the projection that makes queries or keys."""
    side = "q" if "query" in component else "k"
    heads = sizes.heads if side == "q" else sizes.kv_heads
    if f"{attention}.{side}_proj" in names:
        return _Module(f"{attention}.{side}_proj", head_width=sizes.head_dim)
    if f"{attention}.c_attn" in names and sizes.kv_heads == sizes.heads:
        first = sizes.d_model if side == "k" else 0
        neurons = tuple(range(first, first + heads * sizes.head_dim))
        return _Module(f"{attention}.c_attn", neurons=neurons, head_width=sizes.head_dim)
    raise BadInput(
        f"component {component}: this family has no projection of its own for it; use site {side}"
    )


def _partition(subspaces: Any, name: str) -> Partition | None:
    """Return the features of each subspace: pairs are ranges."""
    if subspaces is None:
        return None
    try:
        return tuple(map(_numbers, subspaces))
    except TypeError:
        raise BadInput(
            f"{name}: subspace_partition is {subspaces!r}; expected lists of whole numbers"
        ) from None


def _numbers(subspace: Any) -> tuple[int, ...]:
    return tuple(range(*subspace)) if len(subspace) == 2 else tuple(subspace)
