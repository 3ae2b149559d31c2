"""What a recording of a saved model is asked for, as the line of JSON that its process reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vramplan.engines.torch.record.saved.build import SavedPart
from vramplan.quick_dataclass import dataclass, field

Value = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A model by its parts' configs, and the settings to record it at."""

    name: str
    kind: str  # pipeline | model
    class_path: str
    parts: tuple[SavedPart, ...]
    index: Mapping[str, Value]
    schedulers: Mapping[str, Mapping[str, Value]]
    dtype: str
    kernel: str
    batch: int
    image: tuple[int, int] | None
    frames: int | None
    prompt_tokens: int
    #: denoising steps that are recorded: the third says whether the second is what repeats
    steps: int = 3
    #: how strongly a pipeline follows its prompt; None leaves it at its own default
    guidance: float | None = None
    #: pixels of the image that a pipeline begins with and that is told its result's size apart;
    #: None for those of `image`
    picture: tuple[int, int] | None = None
    mode: str = "both"  # of a lone autoencoder: both | encode | decode
    #: tokens that a static KV cache has room for; None for one that grows
    static_cache: int | None = None
    #: what a pipeline's constructor takes beside components and what `index` says
    values: Mapping[str, Value] = field(default_factory=dict)


def read_request(raw: Mapping[str, Value]) -> Request:
    """Return the request that was sent as JSON by `vramplan.engines.torch.ask_recorder`."""
    parts = tuple(SavedPart(**part) for part in raw["parts"])
    image = tuple(raw["image"]) if raw["image"] else None
    return Request(**{**raw, "parts": parts, "image": image})
