"""A model that is to be run: what its forward takes, and the numbers of its config."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from vramplan.engines.torch.record.saved.request import Request
from vramplan.errors import RecordingError
from vramplan.quick_dataclass import dataclass

Value = Any
Tensors = dict[str, torch.Tensor]
Inputs = dict[str, Value]

#: an id that is no special token of any family
PLAIN_TOKEN = 7
LARGEST_SIDE = 1 << 14
#: what goes back into what makes tokens
_TOKENS = frozenset(("input_ids", "decoder_input_ids"))
#: what goes on to what makes tokens, where that takes more than it says
_HANDED_ON = ("image_merge_sizes",)
#: configs that are looked through for a number
_MOST_CONFIGS = 64
#: how the configs of a model's parts are called that see, hear and read
_PARTS: Mapping[str, tuple[str, ...]] = {
    "vision": ("vision", "image", "visual"),
    "audio": ("audio", "speech", "acoustic", "asr"),
    "text": ("text", "language"),
}


class Unheard(Protocol):
    """A device that does not record what is run in its `unheard`."""

    def unheard(self) -> AbstractContextManager[None]:
        """Return where nothing is recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedModel:
    """A model by its class's own words, and what is asked of it.

    `main` is what its class calls its main input, where its forward takes that; `generates` says
    whether it makes tokens one after the other. Of inputs that a name alone does not tell the form
    of, the one of number `form` is given.
    """

    request: Request
    model: Value
    names: Mapping[str, inspect.Parameter]
    main: str
    generates: bool
    form: int = 0

    @property
    def config(self) -> Value:
        """Its config."""
        return self.model.config

    @property
    def required(self) -> frozenset[str]:
        """The arguments without which its forward is not called."""
        return frozenset(
            name
            for name, one in self.names.items()
            if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
        )

    @property
    def sees_in_a_prompt(self) -> bool:
        """Whether an image and a prompt go into it together."""
        is_taken = {"pixel_values", "input_ids"} <= self.names.keys()
        return is_taken and getattr(self.config, "vision_config", None) is not None

    def configs(self, part: str = "") -> Iterator[Value]:
        """Yield its config and those in it, breadth first; before them those of a `part`.

        A part is what sees, hears or reads: ``vision``, ``audio``, ``text``.
        """
        found = list(_by_level(self.config))
        words = _PARTS.get(part, ())
        yield from (one for name, one in found if any(word in name for word in words))
        yield from (one for _, one in found)

    def said(self, *keys: str, part: str = "", otherwise: int = 0) -> int:
        """Return the first of these numbers that a config has, of a list its first.

        Raises RecordingError for a number that no size is, and where there is none.
        """
        found = (
            value
            for one in self.configs(part)
            for key in keys
            if type(value := _first(getattr(one, key, None))) is int
        )
        number: int = next(found, otherwise)
        if not 0 < number <= LARGEST_SIDE:
            raise RecordingError(f"its config tells none of {', '.join(keys)}")
        return number

    def has(self, *keys: str, part: str = "") -> bool:
        """Return whether a config has one of these numbers."""
        values = (_first(getattr(one, key, None)) for one in self.configs(part) for key in keys)
        return any(type(value) is int and value > 0 for value in values)

    @property
    def tokens(self) -> int:
        """The tokens of a prompt: as many as asked for, and no more than it has places for."""
        asked = self.request.prompt_tokens
        inner = getattr(self.config, "text_config", None)
        places = (getattr(one, "max_position_embeddings", None) for one in (self.config, inner))
        most = next((n for n in places if type(n) is int and n > 0), asked)
        return max(1, min(asked, most))


def generates(model: Value) -> bool:
    """Return whether a model makes tokens one after the other.

    Those that say all that they hear at once (CTC) have a `generate` too, and are given no tokens.
    """
    ask = getattr(model, "can_generate", None)
    if not callable(ask) or not ask():
        return False
    own = inspect.signature(model.generate).parameters
    if "generation_config" in own:
        return True
    hands_on = any(one.kind is one.VAR_KEYWORD for one in own.values())
    return hands_on and bool(_TOKENS & inspect.signature(model.forward).parameters.keys())


def uploaded(given: Mapping[str, torch.Tensor], model: Value) -> Inputs:
    """Return inputs where a model is, numbers in its type, as ``inputs.to(device, dtype)``."""
    return {
        name: value.to(model.device, model.dtype, memory_format=torch.contiguous_format)
        if value.is_floating_point()
        else value.to(model.device)
        for name, value in given.items()
    }


def count_tokens(model: Value, ask: Callable[..., Value], device: Unheard, given: Tensors) -> int:
    """Return how many tokens a model makes of what it sees or hears, by asking it.

    Nothing is recorded. Raises whatever the class does.
    """
    from torch.utils._pytree import tree_leaves

    with device.unheard():
        known: Mapping[str, Value] = inspect.signature(ask).parameters
        there = uploaded(given, model)
        if any(one.kind is one.VAR_KEYWORD for one in known.values()):
            known = {**known, **dict.fromkeys(_HANDED_ON)}
        found = ask(**{name: value for name, value in there.items() if name in known})
        made = getattr(found, "pooler_output", None)
        leaves = tree_leaves(made if made is not None else found)
        return sum(one.numel() // one.shape[-1] for one in leaves if isinstance(one, torch.Tensor))


def _by_level(config: Value) -> Iterator[tuple[str, Value]]:
    """Yield a config and those in it, level by level, each with its place's name."""
    left = [("", config)]
    for _ in range(_MOST_CONFIGS):
        if not left:
            return
        name, one = left.pop(0)
        yield name, one
        inner = vars(one).items()
        left += [(f"{name}.{key}", other) for key, other in inner if hasattr(other, "to_dict")]


def _first(value: Value) -> Value:
    return value[0] if isinstance(value, (list, tuple)) and value else value
