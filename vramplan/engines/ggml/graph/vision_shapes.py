"""What a vision encoder's graph is made from: its file's tensors, and the images it is for."""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.quick_dataclass import dataclass


class UnknownGraphError(ValueError):
    """A file lacks a tensor that its family's graph needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionTensor:
    """A tensor of the file: its shape, contiguous dimension first, and its type."""

    shape: tuple[int, ...]
    type: str


@dataclass(frozen=True, kw_only=True, eq=False)
class VisionShape:
    """A vision encoder's shapes; `family` is clip.cpp's projector type.

    `merge` by `merge` patches become one token. Of `window_pattern` layers all but the last see
    windows only; 0 where all see everything. Told apart by identity, so that graphs are remembered.
    """

    family: str
    embedding: int
    heads: int
    head: int
    layers: int
    patch: int
    merge: int
    tensors: Mapping[str, VisionTensor]
    window_pattern: int = 0
    identity: str = ""  # what it was read from, in one certain state


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """What is encoded at once: `batch` images of the same size in pixels.

    `casts_mask`: flash attention's mask of windows is f32, made f16 and copied for each layer.
    `halves_rotations`: heads turned by two positions are cut in halves and joined again.
    `repeats_class`: a class token is copied for each image of a batch. `clamps_in_place`: what is
    kept within bounds overwrites what it was.
    """

    width: int
    height: int
    batch: int = 1
    has_flash: bool = True
    casts_mask: bool = False
    halves_rotations: bool = False
    repeats_class: bool = True
    clamps_in_place: bool = False
