"""A lone model of transformers or an autoencoder of diffusers: inputs by name, and its own run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from vramplan.engines.torch.record.saved.constant_tape import TOKENS
from vramplan.engines.torch.record.saved.image_inputs import (
    LARGEST_SIDE,
    PLAIN_TOKEN,
    image_of,
    uploaded,
    with_image,
)
from vramplan.engines.torch.record.saved.request import Request
from vramplan.engines.torch.record.saved.wrapped import CUDA, WrappedDevice
from vramplan.errors import RecordingError

Value = Any
Inputs = dict[str, Value]

#: thirty seconds of sound, as speech models are given; one second of raw sound for the others
_SPECTRA, _SAMPLES = 3000, 16000
#: how configs call the bins of a spectrum
_BINS = ("num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim", "input_dim")
_MOST_CHANNELS = 64
#: of an image (transformers, models/pix2struct/image_processing_pix2struct.py: `max_patches`)
_FLAT_PATCHES = 2048
#: queries of a model that looks at something by them
_QUERIES = 32


def generates(model: torch.nn.Module) -> bool:
    """Return whether a model makes tokens one after the other."""
    ask = getattr(model, "can_generate", None)
    return bool(ask()) if callable(ask) else False


def run_generation(request: Request, model: Value, device: WrappedDevice, new_tokens: int) -> None:
    """Let a model generate: every pass behind the first is an iteration."""
    passes = depth = 0
    part = request.parts[0].name

    def begin(*_: Value) -> None:
        nonlocal passes, depth
        depth += 1
        if depth > 1:
            return
        passes += 1
        if passes > 1:
            device.iterate(TOKENS)
        device.begin_phase("generate" if passes > 1 else "prefill", part)

    def end(*_: Value) -> None:
        nonlocal depth
        depth -= 1

    hooks = []
    # some leave it to the language model inside of them
    for one in filter(generates, model.modules()):
        # made-up tokens end nothing, and none is taken for padding
        config: Value = one.generation_config
        config.eos_token_id = config.pad_token_id = None
        for name in ("forced_decoder_ids", "suppress_tokens", "begin_suppress_tokens"):
            setattr(config, name, None)
        hooks += [
            one.register_forward_pre_hook(begin),
            one.register_forward_hook(end, always_call=True),
        ]
    try:
        device.begin_phase("prefill", part)
        given = inputs(request, model, device)
        if request.static_cache is not None:
            given |= _static_cache(model, request.static_cache)
        out = model.generate(
            **given, max_new_tokens=new_tokens, min_new_tokens=None, do_sample=False, num_beams=1
        )
        del out, given
    finally:
        for hook in hooks:
            hook.remove()
    if passes != new_tokens:
        raise RecordingError(f"{request.class_path} made {passes} passes for {new_tokens} tokens")


def _static_cache(model: Value, tokens: int) -> Inputs:
    """Return what gives `generate` a static cache of so many tokens, whatever it will make.

    ``cache_implementation="static"`` makes the same one, as long as prompt and new tokens are; on
    CUDA it compiles the model then, which is not recorded.
    """
    from transformers import StaticCache

    config = model.config.get_text_config(decoder=True)
    cache = StaticCache(config=config, max_cache_len=tokens)
    return {"past_key_values": cache, "disable_compile": True}


def run_once(request: Request, model: Value, device: WrappedDevice) -> None:
    """Run a model's forward once; of an autoencoder, encode and decode."""
    part = request.parts[0].name
    if request.class_path.startswith("diffusers."):
        _run_autoencoder(request, model, device)
        return
    is_text = getattr(model, "main_input_name", "input_ids") == "input_ids"
    device.begin_phase("encode_prompt" if is_text else "encode_image", part)
    given = inputs(request, model, device)
    out = model(**given)
    del out, given


def _run_autoencoder(request: Request, model: Value, device: WrappedDevice) -> None:
    if not (hasattr(model, "encode") and hasattr(model, "decode")) or request.image is None:
        raise RecordingError(f"{request.class_path} alone: how it is called is not known")
    part, (width, height) = request.parts[0].name, request.image
    is_video = any(isinstance(one, torch.nn.Conv3d) for one in model.modules())
    sides = (request.frames or 1, height, width) if is_video else (height, width)

    def encode() -> torch.Size:
        pixels = torch.empty(request.batch, 3, *sides, dtype=model.dtype).to(CUDA)
        return _latents(model.encode(pixels)).shape

    if request.mode == "decode":
        with device.unheard():
            shape = encode()
    else:
        device.begin_phase("encode_image", part)
        shape = encode()
    if request.mode == "encode":
        return
    # one after the other, and nothing of the first is left for the second but its result's shape
    device.begin_phase("decode_image", part)
    latents = torch.empty(shape, dtype=model.dtype).to(CUDA)
    image = model.decode(latents).sample
    del latents, image


def _latents(out: Value) -> torch.Tensor:
    found = getattr(out, "latent_dist", None)
    made: Value = found.sample() if found is not None else getattr(out, "latent", None)
    if made is None:
        made = getattr(out, "latents", None)
    if not isinstance(made, torch.Tensor):
        raise RecordingError("an encoder whose result is not known")
    return made


# ------------------------------------------------------------------------------- inputs
def inputs(request: Request, model: Value, device: WrappedDevice) -> Inputs:
    """Return what a model is given, by its main input and the names of its arguments.

    Raises RecordingError for a main input that nobody knows.
    """
    main = getattr(model, "main_input_name", "input_ids")
    names = inspect.signature(model.forward).parameters
    if main == "pixel_values" and "input_ids" in names and generates(model):
        main = "input_ids"  # a prompt goes with the image
    make = _MAKERS.get(main)
    if make is None:
        raise RecordingError(f"{request.class_path} is given {main}, which nobody knows here")
    is_taken = main in names or main != "input_ids"  # that is what it is where nothing is said
    given = make(request, model) if is_taken else {}
    given |= _needed(request, model, {name: names[name] for name in names if name not in given})
    if main == "input_ids":
        if "pixel_values" in names and getattr(model.config, "vision_config", None) is not None:
            given = with_image(request, model, device, given)
        elif "decoder_input_ids" in names and not generates(model):
            start = torch.full((request.batch, 1), PLAIN_TOKEN)
            given["decoder_input_ids"] = start.to(CUDA)
    return given


def _ids(request: Request, model: Value) -> Inputs:
    ids = torch.full((request.batch, request.prompt_tokens), PLAIN_TOKEN)
    return uploaded({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, model)


def _pixels(request: Request, model: Value) -> Inputs:
    vision = getattr(model.config, "vision_config", None) or model.config
    return uploaded({"pixel_values": image_of(request, vision, model.config)}, model)


def _spectra(request: Request, model: Value) -> Inputs:
    bins = next((n for key in _BINS if (n := _said(model.config, key))), 80)
    positions = _said(model.config, "max_source_positions")
    frames = 2 * positions or _SPECTRA
    if not 0 < bins <= LARGEST_SIDE or not 0 < frames <= 1 << 20:
        raise RecordingError("its config tells no size of a spectrum")
    # Whisper's kind takes a fixed length, its bins first; others any length, frame by frame
    is_fixed = positions and _said(model.config, "num_mel_bins")
    sides = (bins, frames) if is_fixed else (_SPECTRA, bins)
    shape = (request.batch, *sides)
    return uploaded({"input_features": torch.zeros(shape, dtype=torch.float32)}, model)


def _flat_patches(request: Request, model: Value) -> Inputs:
    """Return an image as patches, each behind its row and column, as Pix2Struct takes it."""
    values = _said(model.config, "patch_embed_hidden_size")
    if not 0 < values <= LARGEST_SIDE:
        raise RecordingError("its config tells no size of a patch")
    shape = (request.batch, _FLAT_PATCHES, 2 + values)
    return uploaded({"flattened_patches": torch.zeros(shape, dtype=torch.float32)}, model)


def _said(config: Value, key: str) -> int:
    """Return a number of a config, or of a config in it; 0 where none has it."""
    inner = [one for one in vars(config).values() if hasattr(one, "to_dict")]
    found = (getattr(one, key, None) for one in (config, *inner))
    return next((one for one in found if type(one) is int), 0)


def _samples(request: Request, model: Value) -> Inputs:
    config = model.config
    bins, length = getattr(config, "num_mel_bins", 0), getattr(config, "max_length", 0)
    shape: tuple[int, ...] = (request.batch, _SAMPLES)
    if bins and length:  # a spectrum that is taken for an image
        if not 0 < bins <= LARGEST_SIDE or not 0 < length <= LARGEST_SIDE:
            raise RecordingError("its config tells no size of a spectrum")
        shape = request.batch, length, bins
    elif hasattr(config, "codebook_size"):  # a codec has channels
        channels = getattr(config, "audio_channels", 1)
        if not 0 < channels <= _MOST_CHANNELS:
            raise RecordingError("its config tells no channels of its sound")
        shape = request.batch, channels, _SAMPLES
    sound = torch.zeros(shape, dtype=torch.float32)
    return uploaded({"input_values": sound}, model)


_MAKERS: Mapping[str, Callable[[Request, Value], Inputs]] = {
    "input_ids": _ids,
    "pixel_values": _pixels,
    "input_features": _spectra,
    "input_values": _samples,
    "flattened_patches": _flat_patches,
}


def _needed(request: Request, model: Value, names: Mapping[str, inspect.Parameter]) -> Inputs:
    """Return what else a model has to be given, by the names of its arguments.

    Raises RecordingError for a size that its config has no number for.
    """
    config, batch = model.config, request.batch
    tokens = max(1, request.prompt_tokens)

    def width(*keys: str) -> int:
        found = next((n for key in keys if type(n := getattr(config, key, None)) is int), 0)
        if not 0 < found <= LARGEST_SIDE:
            raise RecordingError(f"its config tells none of {', '.join(keys)}")
        return found

    makers: Mapping[str, Callable[[], torch.Tensor]] = {
        "query_embeds": lambda: torch.zeros(batch, _QUERIES, width("hidden_size")),
        "inputs_embeds": lambda: torch.zeros(batch, tokens, width("hidden_size", "d_model")),
        "encoder_hidden_states": lambda: torch.zeros(
            batch, tokens, width("encoder_hidden_size", "hidden_size", "d_model")
        ),
        "attention_mask": lambda: torch.ones(batch, tokens, dtype=torch.long),
        "bbox": lambda: torch.zeros(batch, tokens, getattr(config, "dim_bbox", 4)),
    }
    refused = {"bbox"}  # what has a default that is refused
    if hasattr(config, "cross_attention_frequency"):
        refused.add("encoder_hidden_states")
    made = {
        name: makers[name]()
        for name, one in names.items()
        if name in makers
        and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        and (one.default is one.empty or name in refused)
    }
    return uploaded(made, model)
