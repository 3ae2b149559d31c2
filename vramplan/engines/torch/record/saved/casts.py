"""Components that their pipeline casts while it runs, as SDXL's VAE that overflows in fp16."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from vramplan.engines.torch.record.saved.wrapped import OnDevice, WrappedDevice, keep_in
from vramplan.engines.torch.record.stream import Cast

Value = Any


def watch_casts(device: WrappedDevice, modules: Mapping[str, torch.nn.Module]) -> None:
    """Write down where a whole component is cast, instead of a life and a death for each weight."""
    for name, module in modules.items():
        module.to = _listening(device, name, module)  # type: ignore[method-assign]  # its own is listened to


def _listening(device: WrappedDevice, name: str, module: torch.nn.Module) -> Value:
    to = module.to

    @functools.wraps(to)
    def cast(*args: Value, **kwargs: Value) -> Value:
        dtype: Value = torch._C._nn._parse_to(*args, **kwargs)[1]
        if dtype is None:
            return to(*args, **kwargs)
        if any(one.dtype != dtype for one in module.parameters()):
            device.write(Cast(name, dtype.itemsize))
            _cast(device, module, dtype)
        return module

    return cast


def _cast(device: WrappedDevice, module: torch.nn.Module, dtype: torch.dtype) -> None:
    """Give every number of a component another type; tied tensors stay tied."""
    done: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by identity; the old ones stay alive
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for key, tensor in tensors.items():
                if not isinstance(tensor, OnDevice) or not tensor.is_floating_point():
                    continue
                if id(tensor) not in done:
                    done[id(tensor)] = tensor, _as(tensor, dtype, device)
                tensors[key] = done[id(tensor)][1]  # type: ignore[assignment]  # a parameter


def _as(tensor: OnDevice, dtype: torch.dtype, device: WrappedDevice) -> OnDevice:
    if tensor.dtype == dtype:
        return tensor
    with _disable_current_modes():
        content = tensor.content.to(dtype)
    keep_in(device.weights, content)
    made = OnDevice(content)
    made._is_param = getattr(tensor, "_is_param", False)
    return made
