"""Real classes from catalogue descriptions, on `meta`, with no weights.

Only classes of diffusers, transformers and torch.nn are ever imported, whatever a catalogue file
says.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from vramplan.engines.torch.record.layouts import META
from vramplan.errors import CatalogError
from vramplan.model import ComponentSpec

_ALLOWED = ("diffusers", "transformers", "torch.nn")

#: classes that their library does not export at its top
_ELSEWHERE = {
    "diffusers.StableDiffusionSafetyChecker": "diffusers.pipelines.stable_diffusion.safety_checker",
    "diffusers.LTX2TextConnectors": "diffusers.pipelines.ltx2",
    "diffusers.LTX2Vocoder": "diffusers.pipelines.ltx2",
}


def find_class(path: str) -> Any:
    """Return the class at `path` (``diffusers.AutoencoderKL``)."""
    module, _, name = path.rpartition(".")
    root = "torch.nn" if module == "torch.nn" else module.partition(".")[0]
    if root not in _ALLOWED or "_" in name[:1]:
        raise CatalogError(f"class {path!r} is not one of diffusers, transformers or torch.nn")
    try:
        found = getattr(importlib.import_module(_ELSEWHERE.get(path, module)), name)
    except (ImportError, AttributeError) as error:
        raise CatalogError(f"class {path!r} is not in the installed {module}: {error}") from None
    if not isinstance(found, type):
        raise CatalogError(f"{path!r} is not a class")
    return found


def build_module(spec: ComponentSpec, dtype: torch.dtype) -> torch.nn.Module:
    """Return the component on `meta` in `dtype`, in evaluation mode."""
    cls = find_class(spec.class_path)
    if not issubclass(cls, torch.nn.Module):
        raise CatalogError(f"component {spec.name}: {spec.class_path} is not a module")
    config = dict(spec.config)
    if cls is torch.nn.Sequential:
        with META, _default_dtype(dtype):
            return _stack(spec).eval()
    if spec.class_path.startswith("transformers."):
        # as from_pretrained(dtype=...) does: tables made in fp32 by name (rotary frequencies) stay
        with META, _default_dtype(dtype):
            model: torch.nn.Module = cls(cls.config_class(**config))
        return model.eval()
    with META:
        module: torch.nn.Module
        if hasattr(cls, "config_class") and cls.config_class is not None:
            module = cls(cls.config_class(**config))
        else:
            module = cls(**config)
    return module.to(dtype).eval()


def _stack(spec: ComponentSpec) -> torch.nn.Sequential:
    """Return the layers that the catalogue lists: each a class of torch.nn with its arguments."""
    layers = spec.config.get("layers")
    if not isinstance(layers, list) or not layers or set(spec.config) != {"layers"}:
        raise CatalogError(f"component {spec.name}: a torch.nn.Sequential has a list of layers")
    return torch.nn.Sequential(
        *(_layer(layer, f"component {spec.name}: layers[{i}]") for i, layer in enumerate(layers))
    )


def _layer(described: object, where: str) -> torch.nn.Module:
    path = described.get("class") if isinstance(described, Mapping) else None
    arguments = described.get("config", {}) if isinstance(described, Mapping) else None
    if (
        not isinstance(path, str)
        or not path.startswith("torch.nn.")
        or not isinstance(arguments, Mapping)
    ):
        raise CatalogError(f"{where}: a layer has a class of torch.nn and maybe its config")
    cls = find_class(path)
    if not issubclass(cls, torch.nn.Module):
        raise CatalogError(f"{where}: {path} is not a module")
    try:
        layer: torch.nn.Module = cls(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CatalogError(f"{where}: {path} does not take these arguments: {error}") from None
    return layer


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build_object(spec: ComponentSpec) -> Any:
    """Return a scheduler or the like: it holds real tables, so it is built on the CPU."""
    return find_class(spec.class_path)(**dict(spec.config))
