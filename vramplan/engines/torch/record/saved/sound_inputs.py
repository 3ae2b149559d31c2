"""A prompt with a sound, for any class of transformers: by the names of a model's arguments.

How many tokens a sound is follows from the model itself, as it does for an image: it is asked for
the sound's features, and as many of its audio tokens go before the prompt. The sound is half a
minute of spectra, or a second of samples (`named_inputs`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from vramplan.engines.torch.record.saved import named_inputs
from vramplan.engines.torch.record.saved.asked_model import (
    PLAIN_TOKEN,
    AskedModel,
    Tensors,
    count_tokens,
)
from vramplan.engines.torch.record.saved.wrapped import WrappedDevice

Value = Any

#: how configs call the token that stands for a part of a sound
_TOKENS = ("audio_token_id", "audio_token_index")
#: what makes a sound's tokens, and of what
_FEATURES, _SOUNDS = "get_audio_features", ("input_features", "input_values")
#: how arguments are called that say which of a sound's frames are there
_MASKS = ("input_features_mask", "feature_attention_mask")


def in_a_prompt(asked: AskedModel, device: WrappedDevice) -> Tensors:
    """Return a sound that goes with a prompt: before it, as many tokens as the model makes of it.

    Nothing for a model that takes no such, or none of the forms made here; one that sees too is
    given an image.
    """
    token, found = _token(asked), _asked(asked)
    if token is None or found is None or asked.form:
        return {}
    sound, ask = found
    for form in range(named_inputs.count_forms_of(sound)):
        given = {sound: named_inputs.made(asked, sound, form)}
        takes = inspect.signature(ask).parameters.keys() & asked.names.keys()
        for name in takes.intersection(_MASKS):
            given[name] = named_inputs.made(asked, _MASKS[0], form)
        try:
            tokens = count_tokens(asked.model, ask, device, given) // asked.request.batch
        except Exception:  # noqa: BLE001, S112  # any class's code, in any way: another form
            continue
        return {**given, **_with_prompt(asked, token, tokens)}
    return {}


def _with_prompt(asked: AskedModel, token: int, tokens: int) -> Tensors:
    ids = torch.full((asked.request.batch, tokens + asked.tokens), PLAIN_TOKEN)
    ids[:, :tokens] = token
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def is_taken(asked: AskedModel) -> bool:
    """Return whether a sound goes with a model's prompt."""
    return _token(asked) is not None and _asked(asked) is not None


def _token(asked: AskedModel) -> int | None:
    """Return what stands for a part of a sound in a prompt; None where none goes with it."""
    if not asked.generates or asked.main != "input_ids" or asked.sees_in_a_prompt:
        return None
    said = (getattr(asked.config, key, None) for key in _TOKENS)
    return next((one for one in said if type(one) is int), None)


def _asked(asked: AskedModel) -> tuple[str, Callable[..., Value]] | None:
    """Return what a sound is called, and the method that makes tokens of it.

    It is the model's own, or that of the one inside.
    """
    for sound in _SOUNDS:
        for one in (asked.model, getattr(asked.model, "base_model", None)):
            ask = getattr(one, _FEATURES, None)
            if sound in asked.names and ask and sound in inspect.signature(ask).parameters:
                return sound, ask
    return None
