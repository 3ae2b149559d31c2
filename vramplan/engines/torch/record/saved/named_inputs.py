"""What a model of transformers is given, by its arguments' names and its config's numbers.

A name does not always tell a form: sound is given with its channels or without, a spectrum's bins
come first or last. Then there are several makers, the most usual first, and the first is taken that
the class's own code takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import Any

import torch

from vramplan.engines.torch.record.saved.asked_model import (
    LARGEST_SIDE,
    PLAIN_TOKEN,
    AskedModel,
    Tensors,
)
from vramplan.engines.torch.record.saved.image_inputs import image_of, is_of_frames
from vramplan.quick_dataclass import replace

Value = Any
Make = Callable[[AskedModel], torch.Tensor]

#: queries of a model that looks at something by them, and objects that a detector found
_QUERIES, _OBJECTS = 32, 36
#: one second of raw sound; thirty seconds of it as spectra
_SAMPLES, _SPECTRA = 16000, 3000
#: an image that is cut into patches, and frames of a video
_SIDE, _FRAMES = 224, 16
#: of an image (transformers, models/pix2struct/image_processing_pix2struct.py: `max_patches`)
_FLAT_PATCHES = 2048
#: how configs call the bins of a spectrum
_BINS = (
    *("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_dim"),
    *("input_feat_size",),
)
#: bins where nothing is said, the second of newer models
_USUAL_BINS, _MORE_BINS = 80, 128
_MERGED = ("spatial_merge_size", "merge_size", "pooling_kernel_size")
_SIDES = ("image_size", "crop_size", "max_img_size")
_CHANNELS = ("in_channels", "in_chans", "num_channels")
#: a side of an image that is looked at in parts, and at lower resolutions too
_LARGE = 1536


def _zeros(*sides: int) -> torch.Tensor:
    """Return numbers of a shape, that take no memory here: a stranger's config says how many."""
    return torch.zeros(()).expand(sides)


# ---------------------------------------------------------------------------------- text
def _ids(asked: AskedModel) -> torch.Tensor:
    return torch.full((asked.request.batch, asked.tokens), PLAIN_TOKEN)


def _first_id(asked: AskedModel) -> torch.Tensor:
    return torch.full((asked.request.batch, 1), PLAIN_TOKEN)


def _ones(asked: AskedModel) -> torch.Tensor:
    return torch.ones(asked.request.batch, asked.tokens, dtype=torch.long)


def _of_tokens(*keys: str) -> Make:
    """Return what makes a vector for each token, as wide as a config says."""
    return lambda asked: _zeros(asked.request.batch, asked.tokens, asked.said(*keys))


def _task(asked: AskedModel) -> torch.Tensor:
    tokens = asked.said("task_seq_len", otherwise=asked.tokens)
    return torch.full((asked.request.batch, tokens), PLAIN_TOKEN)


def _box(asked: AskedModel) -> torch.Tensor:
    """Return places on a page: numbers where a config says how many, else indices of a table."""
    corners = getattr(asked.config, "dim_bbox", 0)
    if corners:
        return _zeros(asked.request.batch, asked.tokens, asked.said("dim_bbox"))
    return torch.zeros(asked.request.batch, asked.tokens, 4, dtype=torch.long)


# -------------------------------------------------------------------------------- images
def _image(asked: AskedModel) -> torch.Tensor:
    """Return images: whole, or where their grid is told or their patches' places, cut."""
    if _CUT & asked.names.keys():
        sides = (asked.request.batch,) if _APART & asked.names.keys() else ()
        count = _patches(asked) if sides else asked.request.batch * _patches(asked)
        return _zeros(*sides, count, _patch(asked))
    if "target_sizes" in asked.names:
        return _row(asked)
    if is_of_frames(asked.config):
        return _video(asked)
    config = asked.config
    seen = (one for one in asked.configs("vision") if getattr(one, "image_size", None))
    whole = image_of(asked.request, next(seen, config), config)
    # an image and its example lie one below the other, and are together of the size that is told
    return whole[:, :, : whole.shape[2] // 2] if _EXAMPLE in asked.names else whole


def _other_image(asked: AskedModel) -> torch.Tensor:
    """Return an image's patches each as an image; where none is cut, two images side by side."""
    if not _CUT & asked.names.keys():
        return _image(asked)[:, None].expand(-1, 2, -1, -1, -1)
    patch = asked.said("patch_size", part="vision", otherwise=16)
    channels = asked.said(*_CHANNELS, part="vision", otherwise=3)
    return _zeros(asked.request.batch * _patches(asked), channels, patch, patch)


def _last_image(asked: AskedModel) -> torch.Tensor:
    """Return what becomes one token as one piece, its channels last; else a large image."""
    channels = asked.said(*_CHANNELS, part="vision", otherwise=3)
    if not _CUT & asked.names.keys():
        return torch.ones(()).expand(asked.request.batch, channels, _LARGE, _LARGE)
    merge = _merge(asked)
    side = merge * asked.said("patch_size", part="vision", otherwise=16)
    count = asked.request.batch * _patches(asked) // merge**2
    return _zeros(count, side, side, channels)


def _row(asked: AskedModel) -> torch.Tensor:
    """Return the patches of all images side by side, as one image of their height."""
    patch = asked.said("patch_size", part="vision", otherwise=16)
    channels = asked.said(*_CHANNELS, part="vision", otherwise=3)
    return _zeros(1, channels, patch, asked.request.batch * _patches(asked) * patch)


def _video(asked: AskedModel) -> torch.Tensor:
    frames = asked.said("num_frames", "frames_per_clip", part="vision", otherwise=_FRAMES)
    side = asked.said(*_SIDES, part="vision", otherwise=_built_side(asked))
    channels = asked.said(*_CHANNELS, part="vision", otherwise=3)
    return torch.ones(()).expand(asked.request.batch, frames, channels, side, side)


def _built_side(asked: AskedModel) -> int:
    """Return the side of the images that a model's own layers are built for (timm's say it)."""
    built = (getattr(one, "img_size", None) for one in asked.model.modules())
    sides = (one[0] if isinstance(one, (list, tuple)) and one else one for one in built)
    return next((side for side in sides if type(side) is int and side > 0), _SIDE)


def _merge(asked: AskedModel) -> int:
    """Return how many patches are merged along a side of an image."""
    merge = asked.said(*_MERGED, part="vision", otherwise=2)
    if asked.has("merge_kernel_size", part="vision"):
        merge *= asked.said("merge_kernel_size", part="vision")
    return merge


def _grid_of(asked: AskedModel) -> tuple[int, int, int]:
    """Return how an image is cut: frames, rows and columns of patches that can be merged."""
    merge = _merge(asked)
    patch = asked.said("patch_size", part="vision", otherwise=16)
    side = max(1, _SIDE // (patch * merge)) * merge
    return 1, side, side


def _patch(asked: AskedModel) -> int:
    """Return the numbers of a patch."""
    channels = asked.said(*_CHANNELS, part="vision", otherwise=3)
    frames = asked.said("temporal_patch_size", "patch_temporal", part="vision", otherwise=1)
    return channels * frames * asked.said("patch_size", part="vision", otherwise=16) ** 2


def _patches(asked: AskedModel) -> int:
    """Return the patches of one image."""
    frames, rows, columns = _grid_of(asked)
    return frames * rows * columns


def _grid(asked: AskedModel) -> torch.Tensor:
    return torch.tensor([_grid_of(asked)] * asked.request.batch)


def _merged_grid(asked: AskedModel) -> torch.Tensor:
    frames, rows, columns = _grid_of(asked)
    merge = _merge(asked)
    return torch.tensor([(frames, rows // merge, columns // merge)] * asked.request.batch)


def _plane(asked: AskedModel) -> torch.Tensor:
    return torch.tensor([_grid_of(asked)[1:]] * asked.request.batch)


def _places(asked: AskedModel) -> torch.Tensor:
    """Return the column and the row of each patch."""
    _, rows, columns = _grid_of(asked)
    at = torch.arange(rows * columns)
    one = torch.stack((at % columns, at // columns), dim=-1)
    return one[None].repeat(asked.request.batch, 1, 1)


def _patch_mask(asked: AskedModel) -> torch.Tensor:
    return torch.ones(asked.request.batch, _patches(asked), dtype=torch.long)


def _hidden(asked: AskedModel) -> torch.Tensor:
    """Return what an encoder begins with: an image's patches, or what another made."""
    if "grid_thw" in asked.names:
        return _image(asked)
    return _of_tokens("hidden_size", "d_model")(asked)


def _for_first_convolution(asked: AskedModel) -> torch.Tensor:
    """Return what the first convolution of a model takes: a sound, or channels before time."""
    channels = next((one.in_channels for one in _layers(asked, torch.nn.Conv1d)), 1)
    return _zeros(asked.request.batch, channels, asked.tokens if channels > 2 else _SAMPLES)


def _for_first_layer(asked: AskedModel) -> torch.Tensor:
    """Return a vector for each token, as wide as a model's first linear layer takes it."""
    layers = _layers(asked, torch.nn.Linear)
    width = next((one.in_features for one in layers), 0) or asked.said("hidden_size", "d_model")
    return _zeros(asked.request.batch, asked.tokens, width)


def _of_chosen_layers(asked: AskedModel) -> torch.Tensor:
    """Return what another model's layers made of each token, one behind the other."""
    chosen = getattr(asked.config, "target_layer_ids", None)
    if not isinstance(chosen, (list, tuple)) or not 0 < len(chosen) <= LARGEST_SIDE:
        return _for_first_layer(asked)
    width = len(chosen) * asked.said("hidden_size", "d_model")
    return _zeros(asked.request.batch, asked.tokens, width)


def _layers(asked: AskedModel, kind: type[torch.nn.Module]) -> Iterator[Value]:
    return (one for one in asked.model.modules() if isinstance(one, kind))


def _flat_patches(asked: AskedModel) -> torch.Tensor:
    """Return an image as patches, each behind its row and column, as Pix2Struct takes it."""
    values = asked.said("patch_embed_hidden_size")
    return _zeros(asked.request.batch, _FLAT_PATCHES, 2 + values)


# --------------------------------------------------------------------------------- sound
def _spectra(asked: AskedModel) -> torch.Tensor:
    """Return spectra of a sound. Whisper's kind takes a fixed length, its bins first."""
    bins = asked.said(*_BINS, part="audio", otherwise=_USUAL_BINS)
    if asked.has("max_source_positions", part="audio"):
        frames = 2 * asked.said("max_source_positions", part="audio")
        if asked.has("num_mel_bins", part="audio"):
            return _zeros(asked.request.batch, bins, frames)
    return _zeros(asked.request.batch, _SPECTRA, bins)


def _bins_first(asked: AskedModel) -> torch.Tensor:
    spectra = _spectra(asked)
    return spectra.transpose(1, 2) if spectra.shape[1] > spectra.shape[2] else spectra


def _stacked(asked: AskedModel) -> torch.Tensor:
    """Return spectra of which several are one vector, as wide as the first layer takes them."""
    spectra = _spectra(asked)
    width = asked.said("input_size", part="audio", otherwise=_for_first_layer(asked).shape[-1])
    return _zeros(len(spectra), max(1, spectra[0].numel() // width), width)


def _more_bins(asked: AskedModel) -> torch.Tensor:
    return _zeros(asked.request.batch, _SPECTRA, _MORE_BINS)


def _as_an_image(asked: AskedModel) -> torch.Tensor:
    """Return spectra of ten seconds as an image of one channel."""
    return _spectra(asked)[:, None, : _SPECTRA // 3]


_SPECTRA_FORMS = (_spectra, _bins_first, _stacked, _more_bins, _as_an_image)


def _spectra_mask(asked: AskedModel) -> torch.Tensor:
    make = _form_of(_SPECTRA_FORMS, asked.form)
    spectra = make(asked)
    times = spectra.shape[1] if make is _stacked else max(spectra.shape[1:3])
    return torch.ones(len(spectra), times, dtype=torch.long)


def _no_padding(asked: AskedModel) -> torch.Tensor:
    return torch.zeros(asked.request.batch, _SPECTRA, dtype=torch.bool)


def _samples(asked: AskedModel) -> torch.Tensor:
    """Return a sound as it is sampled, or a spectrum that is taken for an image."""
    config, batch = asked.config, asked.request.batch
    if getattr(config, "num_mel_bins", 0) and getattr(config, "max_length", 0):
        return _zeros(batch, asked.said("max_length"), asked.said("num_mel_bins"))
    if hasattr(config, "codebook_size"):  # a codec has channels
        return _channels(asked)
    return _zeros(batch, _SAMPLES)


def _channels(asked: AskedModel) -> torch.Tensor:
    channels = asked.said("audio_channels", part="audio", otherwise=1)
    return _zeros(asked.request.batch, channels, _SAMPLES)


def _three_seconds(asked: AskedModel) -> torch.Tensor:
    return _samples(asked)[..., :1].expand(*_samples(asked).shape[:-1], 3 * _SAMPLES)


def _series(asked: AskedModel) -> torch.Tensor:
    length = asked.said("context_length", otherwise=512)
    if getattr(asked.config, "num_input_channels", 0):
        return _zeros(asked.request.batch, length, asked.said("num_input_channels"))
    return _zeros(asked.request.batch, length)


def _no_gaps(asked: AskedModel) -> torch.Tensor:
    """Return where a series has no values, as whole numbers: nowhere."""
    return torch.zeros(_series(asked).shape[:2], dtype=torch.long)


def _of_objects(key: str) -> Make:
    return lambda asked: _zeros(asked.request.batch, _OBJECTS, asked.said(key))


def _queries(asked: AskedModel) -> torch.Tensor:
    return _zeros(asked.request.batch, _QUERIES, asked.said("hidden_size"))


def _latents(asked: AskedModel) -> torch.Tensor:
    width = asked.said("hidden_size", "latent_dim")
    return _zeros(asked.request.batch, width, asked.tokens)


def _form_of(makers: tuple[Make, ...], form: int) -> Make:
    return makers[min(form, len(makers) - 1)]


#: by the name of an argument, its forms in their order
_MAKERS: Mapping[str, tuple[Make, ...]] = {
    "input_ids": (_ids,),
    "decoder_input_ids": (_first_id,),
    "task_inputs": (_task,),
    "attention_mask": (_ones,),
    "input_features": _SPECTRA_FORMS,
    "input_features_mask": (_spectra_mask,),
    "input_values": (_samples, _channels, _three_seconds),
    "audio_mel": (lambda asked: _zeros(asked.request.batch, _SPECTRA, asked.said(*_BINS)),),
    "audio_mel_mask": (_no_padding,),
    "flattened_patches": (_flat_patches,),
    "query_embeds": (_queries,),
    "inputs_embeds": (_of_tokens("hidden_size", "d_model"),),
    "encoder_hidden_states": (_of_tokens("encoder_hidden_size", "hidden_size", "d_model"),),
    "bbox": (_box, lambda asked: _zeros(asked.request.batch, asked.tokens, 4)),
    "pixel_values": (_image, _other_image, _last_image),
    "pixel_values_videos": (_video,),
    "prompt_pixel_values": (_image,),
    "prompt_masks": (_image,),
    "hidden_states": (_hidden, _for_first_convolution),
    "inputs": (_of_tokens("d_model", "hidden_size"),),
    "noise_embeds": (_of_tokens("hidden_size"),),
    "context_hidden_states": (_of_chosen_layers,),
    "grid_thw": (_grid, _grid, _merged_grid),
    "image_grid_thw": (_grid, _grid, _merged_grid),
    "merge_sizes": (lambda asked: torch.ones(asked.request.batch, dtype=torch.long),),
    "pixel_position_ids": (_places,),
    "pixel_attention_mask": (_patch_mask,),
    "spatial_shapes": (_plane,),
    "target_sizes": (_plane,),
    "visual_feats": (_of_objects("visual_feat_dim"),),
    "visual_pos": (_of_objects("visual_pos_dim"),),
    "past_values": (_series,),
    "past_values_padding": (_no_gaps,),
    "freq": (lambda asked: torch.zeros(asked.request.batch, 1, dtype=torch.long),),
    "latents": (_latents,),
    "states": (_of_tokens("state_dim"),),
    "actions": (_of_tokens("act_dim"),),
    "rewards": (lambda asked: _zeros(asked.request.batch, asked.tokens, 1),),
    "returns_to_go": (lambda asked: _zeros(asked.request.batch, asked.tokens, 1),),
    "timesteps": (lambda asked: torch.zeros(asked.request.batch, asked.tokens, dtype=torch.long),),
}
#: what may be a model's main input where it is not the one that its class says
MAIN = ("input_ids", "pixel_values", "input_features", "input_values", "flattened_patches")
#: arguments that tell how an image was cut into patches, and of these, those with an image each
_CUT = frozenset(("grid_thw", "image_grid_thw", "spatial_shapes", "pixel_position_ids"))
_APART = frozenset(("spatial_shapes", "pixel_position_ids"))
#: what shows how an image is to be answered
_EXAMPLE = "prompt_pixel_values"
#: whose form decides an argument's
_FORM_OF: Mapping[str, str] = {
    "input_features_mask": "input_features",
    "grid_thw": "pixel_values",
    "image_grid_thw": "pixel_values",
}
_MOST_FORMS = 16
#: what has a default that is refused
_REFUSED = frozenset(
    ("bbox", "visual_feats", "visual_pos", "actions", "rewards", "returns_to_go", "timesteps")
)
#: what goes with a prompt where nothing is generated: other halves of models of two kinds of input
_OTHERS = frozenset(("input_features", "input_values", "pixel_values", "pixel_values_videos"))
_WITH_OTHERS = frozenset(("input_ids", "input_values"))
#: what may go with a prompt that is answered
_HEARD = frozenset(("input_features", "input_values"))


def is_known(name: Value) -> bool:
    """Return whether an argument of this name can be made."""
    return isinstance(name, str) and name in _MAKERS


def count_forms_of(name: str) -> int:
    """Return how many forms an argument of a name may have."""
    return len(_MAKERS[name])


def made(asked: AskedModel, name: str, form: int) -> torch.Tensor:
    """Return an argument in one of its forms. Raises RecordingError for a size that nobody says."""
    return _form_of(_MAKERS[name], form)(replace(asked, form=form))


def count_forms(asked: AskedModel) -> int:
    """Return how many forms the inputs of a model may have by their names, each with each.

    The last is a prompt alone, where something else may go with it.
    """
    others = _others(asked)
    names = _wanted(asked) | others | (_HEARD & asked.names.keys() if asked.generates else set())
    return min(_MOST_FORMS, prod(_counts(names).values())) + bool(others)


def by_name(asked: AskedModel, given: frozenset[str]) -> Tensors:
    """Return what a model has to be given beside what is `given` already.

    Raises RecordingError for a size that its config has no number for.
    """
    wanted, others = _wanted(asked, given), _others(asked)
    if others and asked.form < count_forms(asked) - 1:
        wanted |= others
    forms, left = {}, asked.form
    for name, count in _counts(wanted).items():
        left, forms[name] = divmod(left, count)
    inputs: Tensors = {}
    for name in sorted(wanted - given):
        form = forms.get(_FORM_OF.get(name, name), 0)
        inputs[name] = made(asked, name, form)
    return inputs


def _counts(names: set[str]) -> dict[str, int]:
    """Return how many forms each of these names has that has several, and no other decides."""
    deciding = sorted({_FORM_OF.get(name, name) for name in names})
    return {name: len(_MAKERS[name]) for name in deciding if len(_MAKERS[name]) > 1}


def _others(asked: AskedModel) -> set[str]:
    """Return the names of what goes with a prompt, or a sound, where nothing is generated."""
    if asked.generates or asked.main not in _WITH_OTHERS or asked.sees_in_a_prompt:
        return set()
    return set(_OTHERS & asked.names.keys()) - asked.required


def _wanted(asked: AskedModel, given: frozenset[str] = frozenset()) -> set[str]:
    """Return the names of what a model is given, as far as it can be made."""
    names, config = asked.names.keys(), asked.config
    # a token's id is what it is where nothing is said
    is_said = any(map(is_known, asked.required))
    is_taken = asked.main in names or (asked.main != "input_ids" and not is_said)
    wanted = {asked.main} if is_taken else set()
    wanted |= asked.required | (_REFUSED & names)
    if hasattr(config, "cross_attention_frequency"):
        wanted |= {"encoder_hidden_states"} & names
    if asked.generates and asked.form:
        wanted |= _HEARD & names  # a prompt alone was not enough
    if "pixel_values" in wanted:
        wanted |= {"target_sizes"} & names
    if not asked.generates:
        if asked.main == "input_features":
            wanted |= {"input_features_mask"} & names
        if asked.main == "pixel_values":
            wanted |= {"input_ids"} & names  # what is looked for in an image
        if asked.main == "input_ids":
            wanted |= {"decoder_input_ids"} & names
    if "input_ids" in wanted | given and (asked.main == "input_ids" or "attention_mask" in names):
        wanted.add("attention_mask")  # they are made together
    return {name for name in wanted if is_known(name)}
