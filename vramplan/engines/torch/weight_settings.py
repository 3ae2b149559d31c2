"""Settings of a torch pipeline that its layers make possible, whatever its entry says.

They are of its weights, and of the KV cache of a model that generates text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vramplan.engines.torch.diffusers_offload import DENOISERS, UNET
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.known_settings import IDLE, OF_CACHES, OF_GROUPS
from vramplan.model import Constraint, SettingValue
from vramplan.quick_dataclass import replace
from vramplan.setting_values import CACHES

_TRAIN = "train"
#: classes that hardly have a linear layer, by how their names begin
_CONVOLUTIONS = ("Autoencoder", "VQModel", "AsymmetricAutoencoder", "OobleckDecoder")
#: and those that generate text, which are adapted, by how they end
_GENERATES = ("ForCausalLM", "ForConditionalGeneration")
#: denoisers that ControlNets and IP-Adapters are known for
_UNET, _FLUX = "diffusers.UNet2DConditionModel", "diffusers.FluxTransformer2DModel"
_FLUX_PIPELINE = ".FluxPipeline"
_WIDTHS, _ADAPTED = frozenset({768, 1024, 2048}), frozenset({768, 2048})
_MOST_BLOCKS = 64
_MOST_TOKENS = 1 << 22
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
    return _with(
        pipeline,
        {key: value for key, value in _settings(pipeline, known) if key not in pipeline.defaults},
    )


def add_cache_settings(
    pipeline: TorchPipeline, class_path: str, config: Mapping[str, object]
) -> TorchPipeline:
    """Return a pipeline with the settings of its KV cache, where its layers are known.

    Its one component is of a class with a config.
    """
    if "new_tokens" not in pipeline.defaults:
        return pipeline
    from vramplan.engines.torch.held_cache import layers_of

    layers = layers_of(class_path, config)
    if not layers:
        return pipeline
    key = "cache_implementation"
    found = _with(pipeline, {key: IDLE[key], **OF_CACHES})
    constraints = dict(found.constraints)
    if any(layer.window for layer in layers):  # QuantizedCache takes none that sees a window
        words = tuple(word for word in CACHES if word != "quantized")
        constraints[key] = Constraint(choices=words)
    constraints["max_cache_len"] = Constraint(maximum=_MOST_TOKENS)
    return replace(found, constraints=constraints, cache_layers=layers)


def _with(pipeline: TorchPipeline, added: Mapping[str, SettingValue]) -> TorchPipeline:
    """Return a pipeline with more settings, before those that come last."""
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
    yield from _networks(pipeline, classes)
    offload = pipeline.constraints.get("offload")
    is_moved = offload is not None and "model" in offload.choices
    if is_moved and pipeline.runtime == "diffusers":
        yield from OF_GROUPS.items()


def _networks(
    pipeline: TorchPipeline, classes: dict[str, str]
) -> Iterator[tuple[str, SettingValue]]:
    """Yield the settings of networks beside a denoiser that some are known for (`networks`)."""
    is_unet = classes.get(UNET) == _UNET and "image" in pipeline.defaults
    widths = {
        spec.config.get("cross_attention_dim") for spec in pipeline.components if spec.name == UNET
    }
    is_flux = classes.get("transformer") == _FLUX and (pipeline.class_path or "").endswith(
        _FLUX_PIPELINE
    )
    if not is_flux and not (is_unet and widths & _WIDTHS):
        return
    if "controlnet" not in classes:
        yield "controlnet", IDLE["controlnet"]
    if is_flux or widths & _ADAPTED:
        yield "ip_adapter", IDLE["ip_adapter"]
