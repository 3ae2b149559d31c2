"""Puts a component's weights on the device: made up, of the same shapes, or from a checkpoint.

Memory depends on shapes, so random weights cost what real ones do. The order is that of
``module.to("cuda")``: children first, then a module's own parameters, then its buffers.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch

#: the spread of most initialisers; large values would overflow fp16 within a deep network
_SPREAD = 0.02


def tensors_of(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Yield a module's parameters and buffers, each once, in the order `.to` moves them."""
    seen: set[int] = set()
    for owner in _owners(module):
        for store in (owner._parameters, owner._buffers):
            for tensor in store.values():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield tensor


def size_of(module: torch.nn.Module) -> int:
    """Return the bytes of a module's tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_of(module))


def parameters_of(module: torch.nn.Module) -> int:
    """Return the number of a module's parameters, tied ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def take_one_block(size_bytes: int, device: torch.device) -> None:
    """Take and free one block of a model's size, as loading with a device map does first.

    The weights then share its segment. Source: transformers' caching_allocator_warmup.
    """
    block = torch.empty(size_bytes, dtype=torch.uint8, device=device)
    del block


def make_up(module: torch.nn.Module, device: torch.device) -> None:
    """Give a module that is on `meta` random weights on `device`; tied tensors stay tied.

    Whole numbers (position ids) become zeros, which are valid wherever they are indices. Tables
    that a class keeps without registering them (Lumina's and Qwen-Image's rotary ones) stay in
    system memory, where `from_pretrained` makes them, and are zeros. Parameters want gradients, as
    `from_pretrained` of diffusers and transformers leaves them: torch's linear layers look at that
    though none are worked out (ATen/native/LinearAlgebra.cpp, should_fold).
    """
    made: dict[int, torch.Tensor] = {}
    for owner in _owners(module):
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                tensor = _made(parameter, device, made)
                owner._parameters[name] = _parameter(tensor, made, id(parameter))
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                owner._buffers[name] = _made(buffer, device, made)
        for name, value in list(vars(owner).items()):
            vars(owner)[name] = _table(value, made)


def _table(value: Any, made: dict[int, torch.Tensor]) -> Any:
    """Return an attribute of a module with what is on `meta` of it in system memory."""
    if isinstance(value, torch.Tensor) and value.is_meta:
        return _made(value, torch.device("cpu"), made)
    if type(value) in (list, tuple):
        found = [_table(one, made) for one in value]
        return value if all(map(operator.is_, found, value)) else type(value)(found)
    return value


def _owners(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Yield modules as ``Module._apply`` visits them: children before their parent."""
    for child in module.children():
        yield from _owners(child)
    yield module


def _made(like: torch.Tensor, device: torch.device, made: dict[int, torch.Tensor]) -> torch.Tensor:
    if id(like) not in made:
        if like.is_floating_point() and device.type != "cpu":
            made[id(like)] = torch.empty_like(like, device=device).normal_(0, _SPREAD)
        else:  # zeros of system memory take none until they are written
            made[id(like)] = torch.zeros_like(like, device=device)
    return made[id(like)]


def _parameter(tensor: torch.Tensor, made: dict[int, torch.Tensor], key: int) -> torch.nn.Parameter:
    if isinstance(tensor, torch.nn.Parameter):
        return tensor
    parameter = torch.nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
    made[key] = parameter
    return parameter
