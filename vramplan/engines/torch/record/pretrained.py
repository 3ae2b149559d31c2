"""Components with the weights of a checkpoint: a folder, the hub's cache, or the hub.

Only safetensors are read: nothing is unpickled, and no code of a repository is run.
"""

from __future__ import annotations

from typing import Any

import torch

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.record.classes import find_class
from vramplan.errors import MissingError, UsageError
from vramplan.model import ComponentSpec

#: the variants that repositories keep beside their fp32 files
_VARIANTS = {torch.float16: "fp16", torch.bfloat16: "bf16"}


def load_part(
    pipeline: TorchPipeline,
    name: str,
    checkpoint: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    is_whole: bool,
) -> torch.nn.Module:
    """Return a pipeline's component with a checkpoint's weights, loaded as its entry says.

    `is_whole`: the checkpoint is that of the component itself, and not in a folder of its name.
    """
    return load_component(
        next(spec for spec in pipeline.components if spec.name == name),
        checkpoint,
        dtype,
        folder=None if is_whole else name,
        device=device if pipeline.loading == "device_map" else None,
    )


def load_component(
    spec: ComponentSpec,
    checkpoint: str,
    dtype: torch.dtype,
    *,
    folder: str | None,
    device: torch.device | None,
) -> torch.nn.Module:
    """Return the component from `folder` of a checkpoint, in evaluation mode.

    `device` is where the weights go at once, through the library's device map; None leaves them in
    system memory. Raises UsageError for a class without checkpoints and MissingError where the
    checkpoint does not have the component or cannot be reached.
    """
    cls: Any = find_class(spec.class_path)
    if not hasattr(cls, "from_pretrained"):
        hint = "leave --weights out: memory depends on the shapes alone"
        raise UsageError(f"{spec.name}: {spec.class_path} has no checkpoints", hint=hint)
    problem: Exception | None = None
    for variant in (None, _VARIANTS.get(dtype)):
        arguments: dict[str, Any] = {"use_safetensors": True}
        arguments["torch_dtype" if spec.class_path.startswith("diffusers.") else "dtype"] = dtype
        if folder is not None:
            arguments["subfolder"] = folder
        if variant is not None:
            arguments["variant"] = variant
        if device is not None:
            arguments["device_map"] = {"": device}
        try:
            loaded: torch.nn.Module = cls.from_pretrained(checkpoint, **arguments)
        except (OSError, ValueError) as found:
            problem = problem or found
            continue
        return loaded.eval()
    said = " ".join(str(problem).split())[:300]
    hint = "a folder, a name on the hub (hf:ORG/NAME), or --weights random"
    raise MissingError(f"{checkpoint}: {spec.name} cannot be loaded: {said}", hint=hint)
