"""What a pipeline makes where it is asked for frames, or an image, that it rounds.

An autoencoder of video has one latent frame for its first frame, and one for every `step` behind
it: other numbers are rounded, some pipelines saying so and others not, before all else.
HiDream makes every image as large as the largest that it knows, whatever is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.model import Settings, SettingValue
from vramplan.quick_dataclass import dataclass
from vramplan.settings import format_setting

#: of LTX's autoencoder by default: frames of a patch, and which of its levels halve the frames
_LTX_PATCH, _LTX_SCALING, _MOST_LEVELS = 1, (True, True, True, False), 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rounding:
    """A pipeline makes ``(frames - first) // step * step + 1`` of them.

    `key` is where its autoencoder's config has the step, `usual` what it is by default: 0 where
    that follows from others (`_ltx_step`).
    """

    first: int
    key: str | None
    usual: int


#: source: diffusers 0.42.1, `num_frames` in ``__call__`` and `prepare_latents` of
#: pipelines/{wan,cogvideo,hunyuan_video,hunyuan_video1_5,ltx,mochi}
_ROUNDED: Mapping[str, _Rounding] = {
    "WanPipeline": _Rounding(first=0, key="scale_factor_temporal", usual=4),
    "WanImageToVideoPipeline": _Rounding(first=0, key="scale_factor_temporal", usual=4),
    "CogVideoXPipeline": _Rounding(first=1, key="temporal_compression_ratio", usual=4),
    "HunyuanVideoPipeline": _Rounding(first=1, key="temporal_compression_ratio", usual=4),
    "HunyuanVideo15Pipeline": _Rounding(first=1, key="temporal_compression_ratio", usual=4),
    "LTXPipeline": _Rounding(first=1, key="temporal_compression_ratio", usual=0),
    "MochiPipeline": _Rounding(first=1, key=None, usual=6),
}


#: the side of HiDream's largest image in latent pixels, and its autoencoder's levels, each of which
#: halves a side; source: diffusers 0.42.1, pipelines/hidream_image
_HIDREAM, _HIDREAM_SIDE, _HIDREAM_LEVELS = "HiDreamImagePipeline", 128, 4


def as_made(pipeline: TorchPipeline, settings: Settings) -> Settings:
    """Return the settings with the frames and the image that the pipeline makes of them."""
    other = _others(pipeline, settings)
    return {**settings, **other} if other else settings


def told(pipeline: TorchPipeline, settings: Settings) -> tuple[str, ...]:
    """Return what to say of each setting that the pipeline makes another of."""
    name = _name(pipeline)
    return tuple(
        f"{name} makes {key} {format_setting(key, made)} where it is asked for "
        f"{format_setting(key, settings[key])}"
        for key, made in _others(pipeline, settings).items()
    )


def _name(pipeline: TorchPipeline) -> str:
    return (pipeline.class_path or "").removeprefix("diffusers.")


def _others(pipeline: TorchPipeline, settings: Settings) -> dict[str, SettingValue]:
    """Return what is made where that is not what is asked for, as far as it is known."""
    made = {"frames": _frames(pipeline, settings), "image": _image(pipeline, settings)}
    return {
        key: value for key, value in made.items() if value is not None and value != settings[key]
    }


def _frames(pipeline: TorchPipeline, settings: Settings) -> int | None:
    asked, rounding = settings.get("frames"), _ROUNDED.get(_name(pipeline))
    if rounding is None or type(asked) is not int or asked < 1:
        return None
    step = _step(pipeline, rounding)
    return None if step is None else (asked - rounding.first) // step * step + 1


def _image(pipeline: TorchPipeline, settings: Settings) -> tuple[int, int] | None:
    """Return what HiDream makes of an image: of its shape, and as many pixels as its largest.

    None where it would make another of that one: then no settings say what it makes.
    """
    asked, config = settings.get("image"), _vae(pipeline)
    if _name(pipeline) != _HIDREAM or not isinstance(asked, tuple) or config is None:
        return None
    levels = config.get("block_out_channels")
    if not isinstance(levels, list | tuple) or len(levels) != _HIDREAM_LEVELS:
        return None
    made = _scaled(asked)
    return made if _scaled(made) == made else None


def _scaled(image: tuple[int, int]) -> tuple[int, int]:
    """Return an image as HiDream scales it.

    In floating point as its own code does, which is how some squares lose a patch.
    """
    to_pixels = 1 << (_HIDREAM_LEVELS - 1)
    step = 2 * to_pixels
    scale = sqrt((_HIDREAM_SIDE * to_pixels) ** 2 / (image[0] * image[1]))
    width, height = (int(side * scale // step * step) for side in image)
    return max(width, step), max(height, step)


def _vae(pipeline: TorchPipeline) -> Mapping[str, object] | None:
    return next((one.config for one in pipeline.components if one.name == "vae"), None)


def _step(pipeline: TorchPipeline, rounding: _Rounding) -> int | None:
    """Return how many frames a latent frame stands for; None where a config says no such thing."""
    config = _vae(pipeline)
    if config is None or rounding.key is None:
        return None if config is None else rounding.usual
    found = config.get(rounding.key)
    if found is None:
        found = rounding.usual or _ltx_step(config)
    return found if type(found) is int and found > 0 else None


def _ltx_step(config: Mapping[str, object]) -> int | None:
    """Return the step of LTX's autoencoder where its config does not say it."""
    scaling = config.get("spatio_temporal_scaling", _LTX_SCALING)
    patch = config.get("patch_size_t", _LTX_PATCH)
    if not isinstance(scaling, list | tuple) or len(scaling) > _MOST_LEVELS:
        return None
    return None if type(patch) is not int else patch << sum(one is True for one in scaling)
