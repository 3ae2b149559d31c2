"""The shipped pipelines with tiny shapes: the same classes and code paths, in seconds on a CPU.

python -m tools.tiny FOLDER        writes FOLDER/pipelines/*.yaml; give it to --catalog
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import yaml

SHIPPED = Path(__file__).resolve().parents[1] / "profiles" / "pipelines"

_TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "projection_dim": 32,
}  # fmt: skip
_TWO = {"down_block_types": 2, "up_block_types": 2}
_VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip

#: class -> what replaces its shapes; a CPU's convolutions in half precision are slow, so that eight
#: channels take a seventh of the time of thirty-two
SMALL: Mapping[str, Mapping[str, object]] = {
    "diffusers.UNet2DConditionModel": {
        "block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4, "cross_attention_dim": 32,
        "attention_head_dim": 4,
    },
    "diffusers.AutoencoderKL": {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4},
    "diffusers.StableDiffusionSafetyChecker": {
        "projection_dim": 32, "vision_config": {**_VISION, "image_size": 224, "patch_size": 56},
    },
    "transformers.CLIPTextModel": _TEXT,
    "transformers.CLIPTextModelWithProjection": _TEXT,
    "transformers.LlavaForConditionalGeneration": {
        "image_token_index": 199, "image_token_id": 199,
        "vision_config":
            {"model_type": "clip_vision_model", **_VISION, "image_size": 28, "patch_size": 14},
        "text_config": {"model_type": "llama", **_VISION, "vocab_size": 200},
    },
    "transformers.ViTMAEForPreTraining": {
        **_VISION, "image_size": 32, "patch_size": 16, "decoder_hidden_size": 32,
        "decoder_intermediate_size": 64, "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
    },
}  # fmt: skip

#: SDXL has three levels, and conditions its UNet on sizes
_XL_UNET = {
    "block_out_channels": [8, 8, 8],
    "cross_attention_dim": 64,
    "attention_head_dim": [4, 4, 4],
    "transformer_layers_per_block": [1, 1, 1],
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,
}


def shrink(data: dict[str, object]) -> dict[str, object]:
    """Return a pipeline's YAML with the shapes of its components made small."""
    components = data.get("components")
    assert isinstance(components, list)
    for part in components:
        small = dict(SMALL.get(part["class"], {}))
        if part["class"].endswith("UNet2DConditionModel") and data["name"] == "sdxl":
            small |= _XL_UNET
        part["config"] = {**part.get("config", {}), **small}
    return data


def write_tiny(folder: Path) -> Path:
    """Write the tiny catalogue into `folder` and return it.

    It has the pipelines of which every component is made small here, or is small as it is.
    """
    target = folder / "pipelines"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(SHIPPED.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if not any(name in text for name in (*SMALL, _PLAIN)):  # most are none of them
            continue
        data = _typed(text)
        if all(part["class"] in SMALL or part["class"].startswith(_PLAIN) for part in _parts(data)):
            small = yaml.dump(shrink(data), Dumper=_DUMPER, sort_keys=False)
            (target / path.name).write_text(small, encoding="utf-8")
    return folder


#: classes of torch itself: a catalogued pipeline of them is small
_PLAIN = "torch.nn."
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORDS = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # makes words, no objects
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _parts(data: dict[str, object]) -> list[dict[str, str]]:
    return cast("list[dict[str, str]]", data["components"])


def _typed(text: str) -> dict[str, object]:
    """Return what a pipeline's file says, its settings as words: `on` and `off` stay words."""
    data = yaml.load(text, Loader=_LOADER)  # noqa: S506  # a safe one
    words = yaml.load(text, Loader=_WORDS)  # noqa: S506  # as above
    assert isinstance(data, dict)
    data["settings"] = words["settings"]
    data.pop("constraints", None)
    return data


if __name__ == "__main__":
    print(write_tiny(Path(sys.argv[1])))
