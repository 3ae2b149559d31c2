"""A lone model of transformers or an autoencoder of diffusers: inputs by name, and its own run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vramplan.engines.torch.record.saved.asked_model import (
    LARGEST_SIDE,
    PLAIN_TOKEN,
    Inputs,
    generates,
)
from vramplan.engines.torch.record.saved.constant_tape import TOKENS
from vramplan.engines.torch.record.saved.inputs import ask, inputs
from vramplan.engines.torch.record.saved.request import Request
from vramplan.engines.torch.record.saved.video_sessions import FRAMES, run_session, takes_session
from vramplan.engines.torch.record.saved.wrapped import CUDA, WrappedDevice
from vramplan.errors import RecordingError

Value = Any

#: an id that no token has
_NO_TOKEN = -1
#: of a sound that an autoencoder has alone: 1,024 latents of Stable Audio Open's, 47.6 seconds
#: (its model_config.json: `sample_size`)
_SAMPLES = 1 << 21


def run_generation(
    request: Request, model: Value, device: WrappedDevice, new_tokens: int, form: int = 0
) -> None:
    """Let a model generate: every pass behind the first is an iteration."""
    passes = depth = 0
    part = request.parts[0].name
    first: Value = None  # what makes the tokens: others may make more of each, inside of it or not

    def begin(module: Value, *_: Value) -> None:
        nonlocal passes, depth, first
        depth += 1
        first = first or module
        if depth > 1 or module is not first:
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
        _end_nothing(one)
        hooks += [
            one.register_forward_pre_hook(begin),
            one.register_forward_hook(end, always_call=True),
        ]
    try:
        device.begin_phase("prefill", part)
        given = inputs(request, model, device, form)
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


def _end_nothing(model: Value) -> None:
    """Let a model go on whatever its tokens are: made-up ones end nothing, and none is padding."""
    config: Value = model.generation_config
    config.eos_token_id = config.pad_token_id = None
    if config.decoder_start_token_id is None and config.bos_token_id is None:
        config.decoder_start_token_id = PLAIN_TOKEN  # a default config says none, and any will do
    for name, value in list(vars(model.config).items()):
        if name.endswith("_eos_token_id") and type(value) is int:  # of a kind of its own
            setattr(model.config, name, _NO_TOKEN)
    for name in ("forced_decoder_ids", "suppress_tokens", "begin_suppress_tokens"):
        setattr(config, name, None)


def _static_cache(model: Value, tokens: int) -> Inputs:
    """Return what gives `generate` a static cache of so many tokens, whatever it will make.

    ``cache_implementation="static"`` makes the same one, as long as prompt and new tokens are; on
    CUDA it compiles the model then, which is not recorded.
    """
    from transformers import StaticCache

    config = model.config.get_text_config(decoder=True)
    cache = StaticCache(config=config, max_cache_len=tokens)
    return {"past_key_values": cache, "disable_compile": True}


def run_once(
    request: Request, model: Value, device: WrappedDevice, form: int = 0
) -> Mapping[str, int]:
    """Run a model's forward once; of an autoencoder, encode and decode.

    What looks at a video in a session is run for each frame. Returns how often each loop ran.
    """
    part = request.parts[0].name
    if request.class_path.startswith("diffusers."):
        _run_autoencoder(request, model, device)
        return {}
    asked = ask(request, model, form)
    if takes_session(asked):
        count = run_session(asked, device)
        return {FRAMES: count - 1} if count > 1 else {}
    is_text = getattr(model, "main_input_name", "input_ids") == "input_ids"
    device.begin_phase("encode_prompt" if is_text else "encode_image", part)
    given = inputs(request, model, device, form)
    out = model(**given)
    del out, given
    return {}


def _run_autoencoder(request: Request, model: Value, device: WrappedDevice) -> None:
    part, sides = request.parts[0].name, _sides(request, model)

    def encode() -> torch.Size:
        given = torch.empty(request.batch, *sides, dtype=model.dtype).to(CUDA)
        return _latents(model.encode(given)).shape

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
    times: tuple[torch.Tensor, ...] = ()
    if getattr(model.config, "timestep_conditioning", False):  # LTX-Video's decoder denoises, too
        times = (torch.zeros(request.batch, dtype=model.dtype).to(CUDA),)
    image = model.decode(latents, *times).sample
    del latents, image, times


def _sides(request: Request, model: Value) -> tuple[int, ...]:
    """Return channels and sides of what an autoencoder is given: an image, a video or a sound.

    Raises RecordingError where that is not known.
    """
    channels = getattr(model.config, "audio_channels", None)
    if hasattr(model, "encode") and hasattr(model, "decode"):
        if request.image is not None:
            width, height = request.image
            is_video = any(isinstance(one, torch.nn.Conv3d) for one in model.modules())
            return (3, request.frames or 1, height, width) if is_video else (3, height, width)
        if type(channels) is int and 0 < channels <= LARGEST_SIDE:
            return channels, _SAMPLES
    raise RecordingError(f"{request.class_path} alone: how it is called is not known")


def _latents(out: Value) -> torch.Tensor:
    found = getattr(out, "latent_dist", None)
    made: Value = found.sample() if found is not None else getattr(out, "latent", None)
    if made is None:
        made = getattr(out, "latents", None)
    if not isinstance(made, torch.Tensor):
        raise RecordingError("an encoder whose result is not known")
    return made
