"""What a recording of a saved model is asked for, as the line of JSON that its process reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vramplan.engines.torch.record.saved.build import SavedPart
from vramplan.quick_dataclass import dataclass

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


def read_request(raw: Mapping[str, Value]) -> Request:
    """Return the request that was sent as JSON by `vramplan.engines.torch.ask_recorder`."""
    parts = tuple(SavedPart(**part) for part in raw["parts"])
    image = tuple(raw["image"]) if raw["image"] else None
    return Request(**{**raw, "parts": parts, "image": image})
