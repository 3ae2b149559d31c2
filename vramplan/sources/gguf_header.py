"""What the header of a GGUF file says, as `gguf` reads it and an entry of the catalogue stands for.

Format: ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from vramplan.quick_dataclass import dataclass
from vramplan.sources.block_sizes import BLOCKS

Value = str | int | float | bool | tuple[int | float | bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """One tensor; `shape` begins with the contiguous dimension."""

    name: str
    shape: tuple[int, ...]
    type: str

    @property
    def elements(self) -> int:
        """The number of its elements."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """The bytes of its data."""
        block, size = BLOCKS[self.type]
        return self.elements // block * size


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFile:
    """A header; of a split model all parts' tensors. `lengths` are of lists that were skipped.

    `identity` tells which state of which file it is of, so that what is made of it may be kept;
    empty where that is not certain.
    """

    path: str
    version: int
    metadata: Mapping[str, Value]
    lengths: Mapping[str, int]
    tensors: tuple[GgufTensor, ...]
    identity: str = ""

    @property
    def architecture(self) -> str:
        """The model's architecture; empty where the file does not say."""
        found = self.metadata.get("general.architecture", "")
        return found if isinstance(found, str) else ""

    def text(self, key: str, otherwise: str = "") -> str:
        """Return a text of the metadata."""
        found = self.metadata.get(key, otherwise)
        return found if isinstance(found, str) else otherwise

    def number(self, key: str, otherwise: int = 0) -> int:
        """Return a whole number of the metadata that is not negative."""
        found = self.metadata.get(key, otherwise)
        if isinstance(found, tuple):
            found = max(found, default=otherwise)
        if isinstance(found, bool) or not isinstance(found, int) or found < 0:
            return otherwise
        return found

    def numbers(self, key: str, count: int, otherwise: int = 0) -> tuple[int, ...]:
        """Return a whole number for each of `count` layers: one for all, or a list."""
        found = self.metadata.get(key, otherwise)
        if isinstance(found, tuple) and len(found) == count:
            return tuple(int(one) if isinstance(one, (int, bool)) else otherwise for one in found)
        return (self.number(key, otherwise),) * count
