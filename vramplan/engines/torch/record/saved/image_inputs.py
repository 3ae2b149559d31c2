"""A prompt with an image, for any class of transformers: by the names of a model's arguments.

How many tokens an image is follows from the model itself: it is asked for the image's features, and
as many of its image tokens go before the prompt. Of what an argument may look like (patches in a
row, or each as an image of its own) the first is taken that the class's own code takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch

from vramplan.engines.torch.record.saved.asked_model import (
    LARGEST_SIDE,
    PLAIN_TOKEN,
    AskedModel,
    Tensors,
    count_tokens,
)
from vramplan.engines.torch.record.saved.request import Request
from vramplan.engines.torch.record.saved.wrapped import WrappedDevice
from vramplan.errors import RecordingError

Value = Any

_SIDE = 448
#: of an image that is cut into tiles: so many along its longer side, and once the whole
#: (transformers, models/idefics3/image_processing_idefics3.py: `size` is four `max_image_size`)
_TILES_A_SIDE = 4
_MOST_TILES = 1 << 10
#: frames of what is looked at as a video (models/instructblipvideo: `num_query_tokens * 4`)
_FRAMES = 4
#: how configs call the token that stands for a part of an image
_TOKENS = ("image_token_id", "image_token_index", "video_token_index")
#: how they call the frames of a patch, and the side of what is merged into one token
_TEMPORAL = ("temporal_patch_size", "patch_temporal")
_MERGED = ("spatial_merge_size", "merge_size")
#: what may say which of a prompt's tokens are an image's
_KINDS = ("token_type_ids", "mm_token_type_ids")
#: what makes an image's tokens; some only have one for an image as a video of a few frames
_FEATURES = ("get_image_features", "get_video_features")


def image_of(request: Request, vision: Value, config: Value) -> torch.Tensor:
    """Return an image of the size that a config tells.

    Raises RecordingError where it tells none.
    """
    size = getattr(vision, "image_size", None) or getattr(config, "image_size", None) or 224
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return _pixels(request, vision, height, width)


def is_of_frames(config: Value) -> bool:
    """Return whether a config is of a model that looks at several frames at once."""
    frames = getattr(config, "num_frames", None)
    return type(frames) is int and 1 < frames <= LARGEST_SIDE


def _pixels(request: Request, vision: Value, height: Value, width: Value) -> torch.Tensor:
    channels = getattr(vision, "num_channels", 3)
    if not all(type(one) is int and 0 < one <= LARGEST_SIDE for one in (height, width, channels)):
        raise RecordingError("its config tells no size of an image")
    # no black one: that is padding to some; and of one number, since nothing here reads more
    return torch.ones((), dtype=torch.float32).expand(request.batch, channels, height, width)


def in_a_prompt(asked: AskedModel, device: WrappedDevice) -> Tensors:
    """Return an image that goes with a prompt: before it, as many tokens as the model makes of it.

    Nothing for a model that takes no such. Raises RecordingError, or what the class's own code
    does, where it takes no image made here.
    """
    if not asked.sees_in_a_prompt or asked.main not in ("input_ids", "pixel_values"):
        return {}
    request, model, names = asked.request, asked.model, asked.names
    token = next(
        (value for key in _TOKENS if type(value := getattr(asked.config, key, None)) is int), None
    )
    ask = _asked(model)
    if token is None or ask is None:
        return _beside(request, model, names)
    given, tokens = _taken(request, model, ask, device)
    ids = torch.full((request.batch, tokens + request.prompt_tokens), PLAIN_TOKEN)
    ids[:, :tokens] = token
    whole: Tensors = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for name in _KINDS:
        if name in names:
            whole[name] = (ids == token).to(torch.long)
    return {**given, **whole}


def _asked(model: Value) -> Callable[..., Value] | None:
    """Return the method that makes tokens of images: the model's own, or that of the one inside."""
    for name in _FEATURES:
        for one in (model, model.base_model):
            method = getattr(one, name, None)
            if method is not None and "pixel_values" in inspect.signature(method).parameters:
                found: Callable[..., Value] = method
                return found
    return None


# ------------------------------------------------------------- images that are no tokens
def _beside(request: Request, model: Value, names: Mapping[str, Value]) -> Tensors:
    """Return an image that is given apart from the prompt, as CLIP takes it."""
    config = model.config
    if "spatial_shapes" in names:
        return next(_patches_with_a_mask(request, config))
    pixels = image_of(request, config.vision_config, config)
    batch, tokens = request.batch, max(1, request.prompt_tokens)
    more: Tensors = {}
    if "aspect_ratio_ids" in names:  # tiles of an image, which the prompt's tokens look at
        tiles = getattr(config.vision_config, "max_num_tiles", 1)
        if not 0 < tiles <= _MOST_TILES:
            raise RecordingError("its config tells no number of tiles")
        pixels = _tiled(pixels, tiles)[:, None]
        more["aspect_ratio_ids"] = torch.ones(batch, 1, dtype=torch.long)
        more["aspect_ratio_mask"] = torch.ones(batch, 1, tiles, dtype=torch.long)
        more["cross_attention_mask"] = torch.ones(batch, tokens, 1, tiles, dtype=torch.long)
    elif is_of_frames(config.vision_config):
        pixels = _tiled(pixels, config.vision_config.num_frames)
    elif "image_attention_mask" in names:  # a list of images each
        pixels = pixels[:, None]
        more["image_attention_mask"] = torch.ones(batch, tokens, 1, dtype=torch.long)
    elif "image_embeds_position_mask" in names:  # so many places of the prompt are the image's
        places = getattr(config, "latent_query_num", 0)
        if not 0 < places <= LARGEST_SIDE:
            raise RecordingError("its config tells no number of an image's tokens")
        ids = torch.full((batch, places + tokens), PLAIN_TOKEN)
        mask = torch.zeros_like(ids)
        mask[:, :places] = 1
        more["image_embeds_position_mask"] = mask
        more |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {"pixel_values": pixels, **more}


# ------------------------------------------------------------- images that are tokens
def _taken(
    request: Request, model: Value, ask: Callable[..., Value], device: WrappedDevice
) -> tuple[Tensors, int]:
    """Return the first of what an image may be given as that is taken, and its tokens."""
    problem: Exception | None = None
    for given in _looks(request, model, ask):
        try:
            tokens = count_tokens(model, ask, device, given)
        except Exception as other:  # noqa: BLE001  # any class's code, in any way
            # without what it was raised from: that would keep the try's tensors alive
            problem = problem or other.with_traceback(None)
            continue
        return given, tokens // request.batch
    raise problem or RecordingError(f"{request.class_path}: how it is given an image is not known")


def _looks(request: Request, model: Value, ask: Callable[..., Value]) -> Iterator[Tensors]:
    """Yield what an image may be given as, the most usual first."""
    config = model.config
    names = {*inspect.signature(model.forward).parameters}
    names |= {*inspect.signature(ask).parameters}
    merges = "image_merge_sizes" in names
    for name, make in _BY_NAME.items():
        if name in names:
            with suppress(RecordingError):  # what its config does not tell
                for given in make(request, config):
                    yield {**given, **_merges(request, config)} if merges else given
    pixels = image_of(request, config.vision_config, config)
    if "pixel_attention_mask" in names:  # a list of images each, and tiles where they are made
        tiles = _TILES_A_SIDE**2 + 1 if hasattr(config, "scale_factor") else 1
        pixels = _tiled(pixels, tiles)
        yield {"pixel_values": pixels}
        mask = torch.ones(request.batch, tiles, dtype=torch.bool)
        yield {"pixel_values": pixels, "pixel_attention_mask": mask}
        return
    more: Tensors = {}
    if "high_res_pixel_values" in names:
        more["high_res_pixel_values"] = image_of(request, config.high_res_vision_config, config)
    if "qformer_input_ids" in names:
        more["qformer_input_ids"] = torch.full((request.batch, request.prompt_tokens), PLAIN_TOKEN)
    yield {"pixel_values": pixels, **more}
    yield {"pixel_values": pixels[:, None].expand(-1, _FRAMES, -1, -1, -1), **more}
    with suppress(RecordingError):
        yield from _patches_apart(request, config)


def _merges(request: Request, config: Value) -> Tensors:
    """Return of each image how many of its patches are merged along a side."""
    merge = _merged_of(config.vision_config, config)
    return {"image_merge_sizes": torch.full((request.batch,), merge)}


def _tiled(pixels: torch.Tensor, tiles: int) -> torch.Tensor:
    """Return images of so many tiles, each as large as the one of each that is given."""
    return pixels[:, None].expand(-1, tiles, -1, -1, -1)


def _sized(request: Request, config: Value) -> Iterator[Tensors]:
    """Yield an image with its size: as tiles of the grid that fits it best, or as it is."""
    width, height = request.image or (_SIDE, _SIDE)
    sizes = torch.tensor([[height, width]] * request.batch)
    if not getattr(config, "image_grid_pinpoints", None):
        step = _patch_of(config.vision_config) * _merged_of(config.vision_config, config)
        sides = [max(step, side // step * step) for side in (height, width)]
        pixels = _pixels(request, config.vision_config, *sides)
        yield {"pixel_values": pixels, "image_sizes": torch.tensor([sides] * request.batch)}
        return
    from transformers.image_processing_utils import select_best_resolution

    pixels = image_of(request, config.vision_config, config)
    tile = pixels.shape[-1]
    grid = select_best_resolution((height, width), config.image_grid_pinpoints)
    # the whole image is one of them
    tiles = 1 + (-(-grid[0] // tile)) * (-(-grid[1] // tile))
    if not 1 < tiles <= _MOST_TILES:
        raise RecordingError("its config tells no grid of tiles")
    yield {"pixel_values": _tiled(pixels, tiles), "image_sizes": sizes}


def _patches(request: Request, config: Value) -> Iterator[Tensors]:
    """Yield an image cut into patches, as models take it whose images are of any size."""
    vision = config.vision_config
    merge = _merged_of(vision, config)
    patch, channels, rows, columns = _grid(request, config)
    count = request.batch * rows * columns
    grid = torch.tensor([[1, rows, columns]] * request.batch)
    size = channels * _frames_of(vision) * patch * patch
    flat = torch.zeros(count, size, dtype=torch.float32)
    yield {"pixel_values": flat, "image_grid_thw": grid}
    square = torch.zeros(count, channels, patch, patch, dtype=torch.float32)
    yield {"pixel_values": square, "image_grid_thw": grid}
    # what is one token is one piece, its channels last
    side = merge * patch
    whole = torch.zeros(count // merge**2, side, side, channels, dtype=torch.float32)
    merged = torch.tensor([[1, rows // merge, columns // merge]] * request.batch)
    yield {"pixel_values": whole, "image_grid_thw": merged}


def _patches_apart(request: Request, config: Value) -> Iterator[Tensors]:
    """Yield an image's patches, each a token, without where they were: their channels last."""
    vision = config.vision_config
    patch = _patch_of(vision)
    width, height = request.image or (_SIDE, _SIDE)
    count = request.batch * -(-height // patch) * -(-width // patch)
    shape = count, _frames_of(vision), patch, patch, getattr(vision, "num_channels", 3)
    yield {"pixel_values": torch.zeros(shape, dtype=torch.float32)}


def _patches_in_a_plane(request: Request, config: Value) -> Iterator[Tensors]:
    patch, channels, rows, columns = _grid(request, config)
    flat = torch.zeros(request.batch * rows * columns, channels * patch**2, dtype=torch.float32)
    yield {"pixel_values": flat, "image_grid_hw": _planes(request, rows, columns)}


def _patches_in_a_row(request: Request, config: Value) -> Iterator[Tensors]:
    """Yield the patches of all images side by side, as one image of their height."""
    patch, channels, rows, columns = _grid(request, config)
    width = request.batch * rows * columns * patch
    row = torch.zeros(1, channels, patch, width, dtype=torch.float32)
    yield {"pixel_values": row, "target_sizes": _planes(request, rows, columns)}


def _patches_with_a_mask(request: Request, config: Value) -> Iterator[Tensors]:
    """Yield images of as many patches, with which of these are there."""
    patch, channels, rows, columns = _grid(request, config)
    most = getattr(config.vision_config, "num_patches", 0)
    while 0 < most < rows * columns:  # a processor makes it smaller
        rows, columns = max(1, rows // 2), max(1, columns // 2)
    shape = request.batch, rows * columns
    yield {
        "pixel_values": torch.zeros(*shape, channels * patch**2, dtype=torch.float32),
        "spatial_shapes": _planes(request, rows, columns),
        "pixel_attention_mask": torch.ones(shape, dtype=torch.long),
    }


def _planes(request: Request, rows: int, columns: int) -> torch.Tensor:
    return torch.tensor([[rows, columns]] * request.batch)


def _grid(request: Request, config: Value) -> tuple[int, int, int, int]:
    """Return a patch's side, its channels, and an image's rows and columns of patches."""
    vision = config.vision_config
    patch, merge = _patch_of(vision), _merged_of(vision, config)
    channels: int = getattr(vision, "in_channels", 0) or getattr(vision, "in_chans", 3)
    width, height = request.image or (_SIDE, _SIDE)
    step = patch * merge
    rows, columns = (max(1, side // step) * merge for side in (height, width))
    return patch, channels, rows, columns


def _patch_of(vision: Value) -> int:
    patch = getattr(vision, "patch_size", None)
    if type(patch) is not int or not 0 < patch <= LARGEST_SIDE:
        raise RecordingError("its config tells no side of a patch")
    return patch


def _frames_of(vision: Value) -> int:
    """Return how many frames are one patch; a still image is that often the same."""
    said = (getattr(vision, key, None) for key in _TEMPORAL)
    return next((one for one in said if type(one) is int and 0 < one <= LARGEST_SIDE), 1)


def _merged_of(vision: Value, config: Value) -> int:
    """Return how many patches are merged along a side of the image; two where nothing is said."""
    said = (getattr(one, key, None) for key in _MERGED for one in (vision, config))
    return next((one for one in said if type(one) is int and 0 < one <= LARGEST_SIDE), 2)


_BY_NAME: Mapping[str, Callable[[Request, Value], Iterator[Tensors]]] = {
    "image_grid_thw": _patches,
    "image_sizes": _sized,
    "image_grid_hw": _patches_in_a_plane,
    "target_sizes": _patches_in_a_row,
    "spatial_shapes": _patches_with_a_mask,
}
