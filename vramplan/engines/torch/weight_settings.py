"""Settings of a torch pipeline's weights that its layers make possible, whatever its entry says."""

from __future__ import annotations

from collections.abc import Iterator

from vramplan.engines.torch.diffusers_offload import DENOISERS
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.model import Constraint, SettingValue
from vramplan.quick_dataclass import replace
from vramplan.settings import IDLE, OF_GROUPS

_TRAIN = "train"
#: classes that hardly have a linear layer, by how their names begin
_CONVOLUTIONS = ("Autoencoder", "VQModel", "AsymmetricAutoencoder", "OobleckDecoder")
#: and those that generate text, which are adapted, by how they end
_GENERATES = ("ForCausalLM", "ForConditionalGeneration")
_MOST_BLOCKS = 64
#: what comes last among a pipeline's settings
_LAST = ("platform", "expandable_segments")


def add_weight_settings(
    pipeline: TorchPipeline, classes: dict[str, str] | None = None
) -> TorchPipeline:
    """Return a pipeline with the settings of weights that it may have, at what changes nothing.

    `classes` are its components' class paths by name, where its own components do not say. Weights
    that are trained are not quantised here.
    """
    mode = pipeline.constraints.get("mode")
    if mode is not None and _TRAIN in mode.choices:
        return pipeline
    known = classes or {spec.name: spec.class_path for spec in pipeline.components}
    added = {
        key: value for key, value in _settings(pipeline, known) if key not in pipeline.defaults
    }
    before = {key: value for key, value in pipeline.defaults.items() if key not in _LAST}
    last = {key: value for key, value in pipeline.defaults.items() if key in _LAST}
    constraints = dict(pipeline.constraints)
    offload = constraints.get("offload")
    if "offload_type" in added and offload is not None and offload.choices:
        constraints["offload"] = replace(offload, choices=(*offload.choices, "group"))
        constraints["num_blocks_per_group"] = Constraint(maximum=_MOST_BLOCKS)
    return replace(pipeline, defaults={**before, **added, **last}, constraints=constraints)


def _settings(
    pipeline: TorchPipeline, classes: dict[str, str]
) -> Iterator[tuple[str, SettingValue]]:
    names = {name: path.rpartition(".")[2] for name, path in classes.items()}
    if not all(name.startswith(_CONVOLUTIONS) for name in names.values()):
        yield "quantization", IDLE["quantization"]
    if names.keys() & set(DENOISERS) or any(n.endswith(_GENERATES) for n in names.values()):
        yield "lora", IDLE["lora"]
    offload = pipeline.constraints.get("offload")
    is_moved = offload is not None and "model" in offload.choices
    if is_moved and pipeline.runtime == "diffusers":
        yield from OF_GROUPS.items()
