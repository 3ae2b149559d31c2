"""A projector file (mmproj) as an engine sees it: an encoder's shapes and its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache

from vramplan.engines.ggml.build_rules import WITNESS_BUILD
from vramplan.engines.ggml.graph.vision_shapes import VisionShape
from vramplan.engines.ggml.vision_image import ImageSizes
from vramplan.engines.ggml.weights import GgmlTensor, TensorRole
from vramplan.quick_dataclass import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """Part of a file whose graph is not known: what a plain transformer of its shapes has.

    `what` says so to a person; `outputs` are the tokens that the language model receives.
    """

    what: str
    tokens: int
    outputs: int
    embedding: int
    feed_forward: int
    heads: int
    projection: int
    input_bytes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class VisionModel:
    """A projector file, the build that runs it, and the image it is asked to encode.

    `shape` and `sizes` are None where the encoder's graph is not known, and `guesses` stand for it;
    `image` is None where nobody said what will be sent. `told_bytes` are what Ollama takes its
    weights for, where they are widened as they are loaded.
    """

    quantisation: str
    tokens: int  # what the encoder sees of an image, a class token included
    patches: int  # the same without the class token
    outputs: int  # what the language model receives of an image
    embedding: int
    feed_forward: int
    heads: int
    projection: int  # the width of what the language model receives
    tensors: tuple[GgmlTensor, ...]
    shape: VisionShape | None = None
    sizes: ImageSizes | None = None
    guesses: tuple[Guess, ...] = ()
    build: int = WITNESS_BUILD
    image: tuple[int, int] | None = None
    told_bytes: int = 0

    @cached_property
    def weights_bytes(self) -> int:
        """Return the bytes of all tensors."""
        return sum(tensor.size_bytes for tensor in self.tensors)

    @property
    def counted_bytes(self) -> int:
        """Return the weights' bytes as Ollama counts them: those in the file."""
        return self.told_bytes or self.weights_bytes

    def part(self, role: TensorRole) -> tuple[int, int]:
        """Return the parameters and the bytes of the tensors of `role`."""
        return self._parts[role]

    @cached_property
    def _parts(self) -> Mapping[TensorRole, tuple[int, int]]:
        sums = dict.fromkeys(TensorRole, (0, 0))
        for tensor in self.tensors:
            elements, size_bytes = sums[tensor.role]
            sums[tensor.role] = (elements + tensor.elements, size_bytes + tensor.size_bytes)
        return sums


@lru_cache(maxsize=256)
def at_build(
    vision: VisionModel | None, build: int, image: tuple[int, int] | None
) -> VisionModel | None:
    """Return a projector as a build runs it, for images of this size; the same one each time."""
    return None if vision is None else replace(vision, build=build, image=image)
