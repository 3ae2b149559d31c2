"""What prepares pictures and sounds for models of which only configs are known.

The libraries' own classes, with the sizes that the model's config has for them.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: pixels of a picture that Qwen's repositories ask for, beyond the classes' defaults
#: (https://huggingface.co/Qwen/Qwen2.5-VL-7B-Instruct/blob/main/preprocessor_config.json,
#: https://huggingface.co/Qwen/Qwen3-VL-8B-Instruct/blob/main/preprocessor_config.json)
_PIXELS = {
    "qwen2": {"shortest_edge": 3_136, "longest_edge": 12_845_056},
    "qwen3": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
}


def write_processor(folder: Path, config: Mapping[str, Any]) -> bool:
    """Write what prepares pictures or sounds for a model, by its kind; False where none does."""
    from transformers import CONFIG_MAPPING, FEATURE_EXTRACTOR_MAPPING, IMAGE_PROCESSOR_MAPPING

    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        return False
    for mapping in (IMAGE_PROCESSOR_MAPPING, FEATURE_EXTRACTOR_MAPPING):
        found = mapping.get(CONFIG_MAPPING[kind], None)
        if isinstance(found, dict):  # by backend: of Pillow and of torchvision
            found = next((one for one in found.values() if one is not None), None)
        if isinstance(found, tuple):  # slow and fast
            found = next((one for one in found if one is not None), None)
        if found is None:
            continue
        given = _sizes(found, config)
        if isinstance(config.get("num_mel_bins"), int):
            given["feature_size"] = config["num_mel_bins"]
        found(**given).save_pretrained(folder)
        _write_around(folder, str(kind), config)
        return True
    return False


def _sizes(kind: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes that a class which prepares pictures takes, as the config has them."""
    vision = _vision(config)
    side = vision.get("image_size")
    usual = getattr(kind, "size", None)
    given: dict[str, Any] = {
        ours: vision[theirs]
        for ours, theirs in (
            ("patch_size", "patch_size"),
            ("temporal_patch_size", "temporal_patch_size"),
            ("merge_size", "spatial_merge_size"),
        )
        if isinstance(vision.get(theirs), int) and hasattr(kind, ours)
    }
    model = str(config.get("model_type"))
    pixels = next((one for prefix, one in _PIXELS.items() if model.startswith(prefix)), None)
    if pixels is not None and "merge_size" in given:
        given["size"] = pixels
    elif isinstance(side, int) and hasattr(kind, "max_image_size"):  # a picture becomes tiles
        given |= {"size": {"longest_edge": 4 * side}, "max_image_size": {"longest_edge": side}}
    elif isinstance(side, int):
        is_by_edge = isinstance(usual, dict) and set(usual) == {"shortest_edge"}
        given["size"] = {"shortest_edge": side} if is_by_edge else {"height": side, "width": side}
        if is_by_edge:
            given["crop_size"] = {"height": side, "width": side}
    return given


def _vision(config: Mapping[str, Any]) -> Mapping[str, Any]:
    vision = config.get("vision_config")
    return vision if isinstance(vision, Mapping) else config


def _write_around(folder: Path, kind: str, config: Mapping[str, Any]) -> None:
    """Write what a class that puts text and pictures together asks for."""
    from transformers import CONFIG_MAPPING, PROCESSOR_MAPPING

    found = PROCESSOR_MAPPING.get(CONFIG_MAPPING[kind], None)
    if found is None:
        return
    told = _counts(config)
    taken = inspect.signature(found.__init__).parameters
    given = {name: value for name, value in told.items() if name in taken}
    if given:
        told = {"processor_class": found.__name__, **given}
        (folder / "processor_config.json").write_text(json.dumps(told))


def _counts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is counted of a picture's tokens, by the names that such classes have for it."""
    vision = _vision(config)
    side, patch = vision.get("image_size"), vision.get("patch_size")
    strategy = config.get("vision_feature_select_strategy")
    told: dict[str, Any] = {
        "patch_size": patch,
        "vision_feature_select_strategy": strategy,
        # an encoder like CLIP's has a token of its own before the patches, SigLIP's does not
        "num_additional_image_tokens": int("clip" in str(vision.get("model_type"))),
        "num_query_tokens": config.get("num_query_tokens"),
        "image_seq_length": config.get("mm_tokens_per_image"),
        "vision_aspect_ratio": config.get("vision_aspect_ratio"),
    }
    if isinstance(side, int) and isinstance(patch, int) and 0 < patch <= side:
        patches = (side // patch) ** 2
        told["num_image_tokens"] = patches
        if isinstance(config.get("scale_factor"), int) and config["scale_factor"] > 0:
            told["image_seq_len"] = patches // config["scale_factor"] ** 2
    return {name: value for name, value in told.items() if value is not None}
