"""Two graphics cards that are not there: tensors that compute on the CPU, say that they are
elsewhere, and refuse to meet a tensor from another place, as they would there. For reading and
swapping; gradients are beyond it."""

from __future__ import annotations

import contextlib

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CPU, CARDS = torch.device("cpu"), (torch.device("cuda", 0), torch.device("cuda", 1))
FREE_INDICES = (
    "aten.index.",
    "aten.index_put",
    "aten._index_put",
)  # a card takes indices from anywhere


class Placed(torch.Tensor):
    """Values on the CPU with the name of a card. To torch's own code it is a meta tensor."""

    @staticmethod
    def __new__(cls, values: torch.Tensor, card: torch.device):
        own = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device="meta",
        )
        own.values_, own.card = values, card
        return own

    @property
    def device(self):
        return self.card

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


def plain(value):
    return value.values_ if isinstance(value, Placed) else value


def computed(func, args, kwargs):
    """An operation on the values; the result is where its inputs are, which must be one place."""
    place = place_of(func, args, kwargs)
    kwargs = {
        key: CPU if key == "device" and value is not None else value
        for key, value in kwargs.items()
    }
    result = func(*tree_map(plain, args), **tree_map(plain, kwargs))
    returns = func._schema.returns
    if len(returns) == 1 and returns[0].alias_info is not None and returns[0].alias_info.is_write:
        return kwargs["out"] if "out" in kwargs else args[0]

    def placed(value):
        new = isinstance(value, torch.Tensor) and not isinstance(value, Placed)
        return Placed(value, place) if new and place.type == "cuda" else value

    return tree_map(placed, result)


def place_of(func, args, kwargs) -> torch.device:
    name, asked = str(func), kwargs.get("device")
    tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
    if asked is not None:
        return torch.device(asked)
    if name.startswith(("aten.copy_", "aten._to_copy")):
        return args[0].device
    if name.startswith(FREE_INDICES):
        tensors = [tensors[0], *(one for one in tensors[1:] if one.device.type == "cuda")]
    places = (
        {one.device for one in tensors if one.dim()} or {one.device for one in tensors} or {CPU}
    )
    if len(places) > 1:
        raise RuntimeError(f"{name} on {sorted(map(str, places))}")
    return places.pop()


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return computed(func, args, kwargs or {})


class _Calls(TorchFunctionMode):
    """What asks a tensor where it is below Python, where a card's tensor says meta."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.to and len(args) > 1 and isinstance(args[1], torch.Tensor):
            return args[0].to(device=args[1].device, dtype=args[1].dtype)
        if func in (
            torch.Tensor.__getitem__,
            torch.Tensor.__setitem__,
        ):  # a list becomes a tensor there: on meta, empty
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(one) if isinstance(one, list) else one for one in index)
            args = (args[0], index, *args[2:])
        return func(*args, **kwargs)


@contextlib.contextmanager
def cards(monkeypatch):
    """Meanwhile there are two cards."""
    made = torch.tensor

    def tensor(values, *, device=None, **options):
        return made(values, **options) if device is None else made(values, **options).to(device)

    with monkeypatch.context() as patched, _Dispatch(), _Calls(), torch.no_grad():
        patched.setattr(torch.cuda, "_lazy_init", lambda: None)
        patched.setattr(torch, "tensor", tensor)
        yield


def spread(model) -> None:
    """The first half of the layers on one card, the rest on the other, as accelerate lays a model
    out. In `cards`.
    """
    half = len(model.layers) // 2
    second = [*(layer._module for layer in list(model.layers)[half:]), model.final_norm._module]
    second = {part for whole in (*second, model.unembedding._module) for part in whole.modules()}
    for part in model._module.modules():
        card = CARDS[part in second]
        for own in (part._parameters, part._buffers):
            own.update(
                {name: Placed(value.data, card) for name, value in own.items() if value is not None}
            )
    for name, part in model._module.named_modules():
        if part._parameters or part._buffers or part in {layer._module for layer in model.layers}:
            add_hook_to_module(
                part,
                AlignDevicesHook(execution_device=CARDS[part in second], io_same_device=not name),
            )
    add_hook_to_module(
        model._module, AlignDevicesHook(execution_device=CARDS[0], io_same_device=True)
    )
