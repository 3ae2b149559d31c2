"""What a program has in hand when memory ends: models, optimisers, pipelines, and how they are set.

What is advised follows from it (`program_advice`), in another process.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Iterable, Sequence
from typing import Any

import torch

from vramplan.engines.torch.witness.held_memory import found_objects

_LEAST_BYTES = 1 << 20
_MOST = 16


def state_of(inside: Sequence[str]) -> dict[str, Any]:
    """Return what is alive; `inside` are the classes of the modules at work."""
    modules, optimisers = found_objects()
    embedded = {
        id(one)
        for module in modules
        if isinstance(module, torch.nn.Embedding)
        for one in module.parameters()
    }
    below = {id(child) for module in modules for child in module.children()}
    models = [_model(one, inside) for one in modules if id(one) not in below]
    models = [one for one in models if one["bytes"] >= _LEAST_BYTES]
    models.sort(key=lambda one: -int(one["bytes"]))
    return {
        "models": models[:_MOST],
        "optimisers": [_optimiser(one, embedded) for one in optimisers[:_MOST]],
        "pipelines": [_pipeline(one) for one in _pipelines()[:_MOST]],
    }


def _model(module: torch.nn.Module, inside: Sequence[str]) -> dict[str, Any]:
    parameters = list(module.parameters())
    tensors = [*parameters, *module.buffers()]
    parts = list(module.modules())
    return {
        "name": type(module).__name__,
        "bytes": _bytes(tensors),
        "card_bytes": _bytes(one for one in tensors if one.is_cuda),
        "single_bytes": _bytes(one for one in tensors if _is_single(one)),
        "frozen_bytes": _bytes(one for one in tensors if _is_single(one) and not one.requires_grad),
        "trained_bytes": _bytes(one for one in parameters if one.is_cuda and one.requires_grad),
        "gradient_bytes": _bytes(one.grad for one in parameters if one.grad is not None),
        "can_checkpoint": any(hasattr(one, "gradient_checkpointing") for one in parts),
        "checkpoints": any(_checkpoints(one) for one in parts),
        "waits_for_train": any(_is_told_to(one) and not _checkpoints(one) for one in parts),
        "is_at_work": type(module).__name__ in inside,
        "is_training": module.training,
    }


def _is_told_to(module: torch.nn.Module) -> bool:
    return getattr(module, "gradient_checkpointing", False) is True


def _checkpoints(module: torch.nn.Module) -> bool:
    """Say whether a module computes again in the backward pass.

    Those of transformers do in train() alone, and from_pretrained leaves them in eval()
    (findings/checkpointing-needs-train-and-says-nothing.sh); those of diffusers do in both.
    """
    return _is_told_to(module) and (module.training or not _is_of_transformers(module))


def _is_of_transformers(module: torch.nn.Module) -> bool:
    return any(one.__module__.startswith("transformers.") for one in type(module).__mro__)


def _is_single(tensor: torch.Tensor) -> bool:
    return tensor.is_cuda and tensor.dtype is torch.float32


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def _optimiser(optimiser: torch.optim.Optimizer, embedded: Container[int]) -> dict[str, Any]:
    """Return what an optimiser trains; `embedded` are the ids of embeddings' weights."""
    given = [one for group in optimiser.param_groups for one in group["params"]]
    trained = [one for one in given if isinstance(one, torch.Tensor)]
    states = (
        one
        for state in optimiser.state.values()
        for one in (state.values() if isinstance(state, dict) else ())
        if isinstance(one, torch.Tensor) and one.is_cuda
    )
    return {
        "name": type(optimiser).__name__,
        "bytes": _bytes(states),
        "trained_bytes": _bytes(trained),
        "embedding_bytes": _bytes(one for one in trained if id(one) in embedded),
    }


def _pipelines() -> list[Any]:
    """Return diffusers' pipelines, where it is there."""
    import gc

    module = sys.modules.get("diffusers.pipelines.pipeline_utils")
    base = getattr(module, "DiffusionPipeline", None)
    if not isinstance(base, type):
        return []
    return [one for one in gc.get_objects() if issubclass(type(one), base)]


def _pipeline(pipe: Any) -> dict[str, Any]:
    parts = [one for one in vars(pipe).values() if isinstance(one, torch.nn.Module)]
    sizes = [_bytes([*one.parameters(), *one.buffers()]) for one in parts]
    return {
        "name": type(pipe).__name__,
        "bytes": sum(sizes),
        "largest_bytes": max(sizes, default=0),
        "largest": max(
            zip(sizes, (type(one).__name__ for one in parts), strict=True), default=(0, "")
        )[1],
        "offloads": any(hasattr(one, "_hf_hook") for one in parts),
    }
