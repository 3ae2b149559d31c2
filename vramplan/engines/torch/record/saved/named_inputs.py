"""What a model of transformers is given, by its arguments' names and its config's numbers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from vramplan.engines.torch.record.saved.image_inputs import LARGEST_SIDE, PLAIN_TOKEN
from vramplan.engines.torch.record.saved.request import Request
from vramplan.errors import RecordingError

Value = Any
Make = Callable[["_Sizes"], torch.Tensor]

#: queries of a model that looks at something by them, and objects that a detector found
_QUERIES, _OBJECTS = 32, 36
#: seconds of sound as codecs take it, and spectra of a sound
_SAMPLES, _SPECTRA = 16000, 3000
#: an image that is cut into patches, and frames of a video
_SIDE, _FRAMES = 224, 16
#: how configs call the bins of a spectrum, and the width of what a decoder takes
_BINS = ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_dim")


class _Sizes:
    """A request's and a config's numbers, as makers ask for them."""

    def __init__(self, request: Request, config: Value, names: Mapping[str, Value]) -> None:
        self.batch, self.tokens = request.batch, tokens_of(request, config)
        self.config, self.names = config, names

    def said(self, *keys: str, otherwise: int = 0) -> int:
        """Return the first of these numbers that a config, or one in it, has.

        Raises RecordingError for a number that no size is, and where there is none.
        """
        inner = [one for one in vars(self.config).values() if hasattr(one, "to_dict")]
        found = (
            value
            for one in (self.config, *inner)
            for key in keys
            if type(value := _first(getattr(one, key, None))) is int
        )
        number: int = next(found, otherwise)
        if not 0 < number <= LARGEST_SIDE:
            raise RecordingError(f"its config tells none of {', '.join(keys)}")
        return number

    def grid(self) -> tuple[int, int, int]:
        """Return how an image is cut: frames, rows and columns of patches that can be merged."""
        merge = self.said("spatial_merge_size", "merge_size", otherwise=2)
        kernel = _first(getattr(self.config, "merge_kernel_size", None))
        merge *= kernel if type(kernel) is int and 0 < kernel <= merge else 1
        side = max(1, _SIDE // (self.said("patch_size", otherwise=16) * merge)) * merge
        return 1, side, side

    def patch(self) -> int:
        """Return the numbers of a patch."""
        channels = self.said("in_channels", "in_chans", "num_channels", otherwise=3)
        frames = self.said("temporal_patch_size", "patch_temporal", otherwise=1)
        return channels * frames * self.said("patch_size", otherwise=16) ** 2

    def patches(self) -> int:
        """Return the patches of one image."""
        frames, rows, columns = self.grid()
        return frames * rows * columns


def tokens_of(request: Request, config: Value) -> int:
    """Return the tokens of a prompt: as many as asked for, and no more than a model has places."""
    inner = getattr(config, "text_config", None)
    places = (getattr(one, "max_position_embeddings", None) for one in (config, inner))
    most = next((n for n in places if type(n) is int and n > 0), request.prompt_tokens)
    return max(1, min(request.prompt_tokens, most))


def _first(value: Value) -> Value:
    return value[0] if isinstance(value, (list, tuple)) and value else value


def _ids(sizes: _Sizes) -> torch.Tensor:
    return torch.full((sizes.batch, sizes.tokens), PLAIN_TOKEN)


def _ones(sizes: _Sizes) -> torch.Tensor:
    return torch.ones(sizes.batch, sizes.tokens, dtype=torch.long)


def _spectra_mask(sizes: _Sizes) -> torch.Tensor:
    return torch.ones(sizes.batch, _SPECTRA, dtype=torch.long)


def _box(sizes: _Sizes) -> torch.Tensor:
    """Return places on a page: numbers where a config says how many, else indices of a table."""
    corners = getattr(sizes.config, "dim_bbox", 0)
    if corners:
        return torch.zeros(sizes.batch, sizes.tokens, sizes.said("dim_bbox"))
    return torch.zeros(sizes.batch, sizes.tokens, 4, dtype=torch.long)


def _image(sizes: _Sizes) -> torch.Tensor:
    """Return images: whole, or where their grid is told or their patches' places, cut."""
    if {"grid_thw", "image_grid_thw"} & sizes.names.keys():
        return torch.zeros(sizes.batch * sizes.patches(), sizes.patch())
    if {"pixel_position_ids", "spatial_shapes"} & sizes.names.keys():
        return torch.zeros(sizes.batch, sizes.patches(), sizes.patch())
    if _is_of_frames(sizes.config):
        return _video(sizes)
    side = sizes.said("image_size", otherwise=_SIDE)
    channels = sizes.said("num_channels", "in_channels", "in_chans", otherwise=3)
    return torch.ones(()).expand(sizes.batch, channels, side, side)


def _is_of_frames(config: Value) -> bool:
    frames = getattr(config, "num_frames", None)
    return type(frames) is int and frames > 1


def _video(sizes: _Sizes) -> torch.Tensor:
    frames = sizes.said("num_frames", "frames_per_clip", otherwise=_FRAMES)
    side = sizes.said("image_size", "crop_size", otherwise=_SIDE)
    channels = sizes.said("num_channels", "in_chans", otherwise=3)
    return torch.ones(()).expand(sizes.batch, frames, channels, side, side)


def _hidden(sizes: _Sizes) -> torch.Tensor:
    """Return what an encoder begins with: an image's patches, or what another made."""
    if "grid_thw" in sizes.names:
        return _image(sizes)
    return torch.zeros(sizes.batch, sizes.tokens, sizes.said("hidden_size", "d_model"))


def _grid(sizes: _Sizes) -> torch.Tensor:
    return torch.tensor([sizes.grid()] * sizes.batch)


def _places(sizes: _Sizes) -> torch.Tensor:
    """Return the column and the row of each patch."""
    _, rows, columns = sizes.grid()
    at = torch.arange(rows * columns)
    one = torch.stack((at % columns, at // columns), dim=-1)
    return one[None].repeat(sizes.batch, 1, 1)


def _sound(sizes: _Sizes) -> torch.Tensor:
    return torch.zeros(sizes.batch, sizes.said("audio_channels", otherwise=1), _SAMPLES)


def _spectra(sizes: _Sizes) -> torch.Tensor:
    return torch.zeros(sizes.batch, _SPECTRA, sizes.said(*_BINS, otherwise=80))


def _series(sizes: _Sizes) -> torch.Tensor:
    length = sizes.said("context_length", otherwise=512)
    if getattr(sizes.config, "num_input_channels", 0):
        return torch.zeros(sizes.batch, length, sizes.said("num_input_channels"))
    return torch.zeros(sizes.batch, length)


#: by the name of an argument
_MAKERS: Mapping[str, Make] = {
    "input_ids": _ids,
    "decoder_input_ids": _ids,
    "task_inputs": _ids,
    "attention_mask": _ones,
    "input_features": _spectra,
    "input_features_mask": _spectra_mask,
    "input_values": _sound,
    "query_embeds": lambda s: torch.zeros(s.batch, _QUERIES, s.said("hidden_size")),
    "inputs_embeds": lambda s: torch.zeros(s.batch, s.tokens, s.said("hidden_size", "d_model")),
    "encoder_hidden_states": lambda s: torch.zeros(
        s.batch, s.tokens, s.said("encoder_hidden_size", "hidden_size", "d_model")
    ),
    "bbox": _box,
    "pixel_values": _image,
    "pixel_values_videos": _video,
    "prompt_pixel_values": _image,
    "prompt_masks": _image,
    "hidden_states": _hidden,
    "grid_thw": _grid,
    "image_grid_thw": _grid,
    "merge_sizes": lambda s: torch.ones(s.batch, dtype=torch.long),
    "pixel_position_ids": _places,
    "pixel_attention_mask": lambda s: torch.ones(s.batch, s.patches(), dtype=torch.long),
    "spatial_shapes": lambda s: torch.tensor([s.grid()[1:]] * s.batch),
    "target_sizes": lambda s: torch.tensor([s.grid()[1:]] * s.batch),
    "visual_feats": lambda s: torch.zeros(s.batch, _OBJECTS, s.said("visual_feat_dim")),
    "visual_pos": lambda s: torch.zeros(s.batch, _OBJECTS, s.said("visual_pos_dim")),
    "past_values": _series,
    "past_values_padding": _series,
    "freq": lambda s: torch.zeros(s.batch, 1, dtype=torch.long),
    "latents": lambda s: torch.zeros(s.batch, s.said("hidden_size", "latent_dim"), s.tokens),
    "states": lambda s: torch.zeros(s.batch, s.tokens, s.said("state_dim")),
    "actions": lambda s: torch.zeros(s.batch, s.tokens, s.said("act_dim")),
    "rewards": lambda s: torch.zeros(s.batch, s.tokens, 1),
    "returns_to_go": lambda s: torch.zeros(s.batch, s.tokens, 1),
    "timesteps": lambda s: torch.zeros(s.batch, s.tokens, dtype=torch.long),
}
#: arguments that tell how an image was cut into patches
_CUT = frozenset(("grid_thw", "image_grid_thw", "spatial_shapes", "pixel_position_ids"))
#: what has a default that is refused
_REFUSED = frozenset(
    ("bbox", "visual_feats", "visual_pos", "actions", "rewards", "returns_to_go", "timesteps")
)
#: what goes with these where nothing is generated: other halves of models of two kinds of input
_OTHERS = frozenset(("input_features", "input_values", "pixel_values", "pixel_values_videos"))


def is_known(name: Value) -> bool:
    """Return whether an argument of this name can be made."""
    return isinstance(name, str) and name in _MAKERS


def is_in_pieces(names: Mapping[str, Value], config: Value) -> bool:
    """Return whether images are not given whole: cut into patches, or several of a video."""
    return bool(_CUT & names.keys()) or _is_of_frames(config)


def needed_inputs(
    request: Request,
    model: Value,
    names: Mapping[str, inspect.Parameter],
    given: Mapping[str, Value],
    *,
    main: Value,
    generates: bool,
) -> dict[str, torch.Tensor]:
    """Return what a model has to be given of `names` beside what is `given` already.

    `main` is what its class calls its main input.

    Raises RecordingError for a size that its config has no number for.
    """
    wanted = {*_REFUSED, main} if is_known(main) else set(_REFUSED)
    if hasattr(model.config, "cross_attention_frequency"):
        wanted.add("encoder_hidden_states")
    if not generates and "input_ids" in given and not _sees_beside(model.config):
        wanted |= _OTHERS
    if not generates and main == "pixel_values":
        wanted.add("input_ids")  # what is looked for in an image
    sizes = _Sizes(request, model.config, names)
    return {
        name: _MAKERS[name](sizes)
        for name, one in names.items()
        if name in _MAKERS
        and name not in given
        and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        and (one.default is one.empty or name in wanted)
    }


def _sees_beside(config: Value) -> bool:
    """Return whether a model's images are given with its prompt, in the place of tokens."""
    return getattr(config, "vision_config", None) is not None
