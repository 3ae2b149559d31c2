"""The projector's compute buffer: its graph through a model of ggml's allocator.

For the families of `graph.vision.FAMILIES` the CPU builds b9538 to b11549 of llama.cpp (xllamacpp's
wheels) hold exactly what this gives (tests/accuracy/test_projector_witness.py), and CLIP's without
flash attention is what the CUDA log of ollama#2706 prints. Of others, the buffer of a plain
transformer of the same shapes is said and marked as assumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from vramplan.engines.ggml.graph.vision_shapes import Encoding, UnknownGraphError, VisionShape
from vramplan.engines.ggml.known_graphs import known_sizes
from vramplan.engines.ggml.vision_image import ImageSizes
from vramplan.engines.ggml.vision_model import Guess, VisionModel
from vramplan.engines.ggml.vision_rules import has_cuda_kernel, vision_rules
from vramplan.model import Band, Origin

_F32 = 4

#: images of any size: the oldest build whose reserve was looked at
_OLDEST_DYNAMIC = 9538


def projector_compute(vision: VisionModel, *, has_flash: bool) -> Band:
    """Return the compute buffer: what is reserved at load, up to the largest image's.

    The expected figure is for the image that was asked for, where one was. `has_flash`: flash
    attention is asked for and the build has it in vision encoders; CUDA has it for some sizes of
    heads.
    """
    total = Band.exactly(0)
    if is_known(vision):
        total = _counted(vision, has_flash=has_flash)
    elif vision.shape is not None:
        total = _guessed(_as_guess(vision), has_flash=has_flash)
    return sum((_guessed(one, has_flash=has_flash) for one in vision.guesses), total)


def cpu_projector_bytes(vision: VisionModel, *, has_flash: bool) -> int:
    """Return the compute buffer of a CPU build, which has flash attention for every head."""
    total = sum(_guessed(one, has_flash=has_flash).expected_bytes for one in vision.guesses)
    if not is_known(vision):
        return total
    assert vision.shape is not None
    assert vision.sizes is not None
    encoding = _encoding(vision, vision.sizes.reserved, has_flash=has_flash)
    return total + _graph_bytes(vision.shape, encoding)[0]


def is_known(vision: VisionModel) -> bool:
    """Return whether the graph of a file's vision encoder is known."""
    if vision.shape is None or vision.sizes is None:
        return False
    try:
        _graph_bytes(vision.shape, _encoding(vision, vision.sizes.reserved, has_flash=True))
    except UnknownGraphError:
        return False
    return True


def is_certain(vision: VisionModel) -> bool:
    """Return whether all of a file's graphs, and what its build reserves for, are known."""
    sizes = vision.sizes
    if vision.guesses or sizes is None or not is_known(vision):
        return False
    return not sizes.is_dynamic or vision.build >= _OLDEST_DYNAMIC


def projector_source(vision: VisionModel) -> tuple[Origin, str]:
    """Return where the figure comes from, and what its band reaches to."""
    if not is_certain(vision):
        return Origin.ASSUMED, (
            f"{_what_is_not_known(vision)}: a plain transformer of its shapes is assumed, from a "
            "quarter up to twice as much without flash attention"
        )
    assert vision.shape is not None
    assert vision.sizes is not None
    log = ", and to the CUDA log of ollama#2706" if vision.shape.family == "mlp" else ""
    return Origin.PUBLISHED, (
        f"llama.cpp's graph of {vision.shape.family} projectors through a model of its allocator "
        f"(ggml-alloc.c), equal to the CPU builds b9538 to b11549{log}; "
        f"{_images(vision.sizes, vision)}"
    )


def projector_notes(vision: VisionModel) -> Iterator[str]:
    """Yield what a reader must know of the figure."""
    if not is_certain(vision):
        yield (
            f"{_what_is_not_known(vision)}: the projector's weights are counted, its compute "
            "buffer is a guess"
        )
    elif vision.sizes is not None and vision.sizes.is_dynamic and vision.image is not None:
        yield f"the projector: {_images(vision.sizes, vision)}"


def _images(sizes: ImageSizes, vision: VisionModel) -> str:
    if not sizes.is_dynamic:
        batch = _batch(vision)
        how = f"up to {batch} at once (high)" if batch > 1 else "one after another"
        return f"images are encoded as squares of {_pixels(sizes.reserved)}, {how}"
    text = f"an image of {_pixels(sizes.reserved)} is reserved for at load"
    if vision.image is None or vision.image == sizes.reserved:
        return f"{text}; high: the largest, {_pixels(sizes.largest)} (set image to what is sent)"
    encoded = sizes.encoded(*vision.image)
    return f"{text}; {_pixels(vision.image)} is encoded as {_pixels(encoded)}"


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _what_is_not_known(vision: VisionModel) -> str:
    if vision.guesses:
        return "the graph is not known of " + " and ".join(one.what for one in vision.guesses)
    assert vision.shape is not None
    if not is_known(vision):
        return f"a {vision.shape.family} projector without the tensors that its graph needs"
    return f"which image b{vision.build} reserves for is not known"


# ---------------------------------------------------------------------------------------- counted
def _counted(vision: VisionModel, *, has_flash: bool) -> Band:
    assert vision.shape is not None
    assert vision.sizes is not None
    shape, sizes = vision.shape, vision.sizes
    rules = vision_rules(vision.build)
    has_flash = has_flash and has_cuda_kernel(shape.head, rules)

    def size_bytes(image: tuple[int, int], batch: int = 1) -> int:
        return max(_graph_bytes(shape, _encoding(vision, image, batch=batch, has_flash=has_flash)))

    reserved = _encoding(vision, sizes.reserved, has_flash=has_flash)
    expected = _graph_bytes(shape, reserved)[1]
    most = size_bytes(sizes.reserved)
    if sizes.is_dynamic and vision.image not in {None, sizes.reserved}:
        assert vision.image is not None
        image = sizes.encoded(*vision.image)
        asked = _encoding(vision, image, has_flash=has_flash)
        expected = max(expected, _graph_bytes(shape, asked)[1])
        most = max(most, size_bytes(image))
    else:
        most = max(most, size_bytes(sizes.largest), size_bytes(sizes.reserved, _batch(vision)))
    if not is_certain(vision):
        return Band(
            low_bytes=expected // 4, expected_bytes=expected, high_bytes=max(2 * expected, most)
        )
    return Band(
        low_bytes=expected * 19 // 20,
        expected_bytes=expected,
        high_bytes=max(expected * 21 // 20, most),
    )


def _batch(vision: VisionModel) -> int:
    """Return how many squares are encoded at once when there are many."""
    assert vision.sizes is not None
    return vision.sizes.batch if vision_rules(vision.build).batches_tiles else 1


def _encoding(
    vision: VisionModel, image: tuple[int, int], *, has_flash: bool, batch: int = 1
) -> Encoding:
    rules = vision_rules(vision.build)
    return Encoding(
        width=image[0],
        height=image[1],
        batch=batch,
        has_flash=has_flash,
        casts_mask=rules.casts_mask,
        halves_rotations=rules.halves_rotations,
        repeats_class=rules.batches_tiles,
        clamps_in_place=rules.clamps_in_place,
    )


@lru_cache(maxsize=256)
def _graph_bytes(shape: VisionShape, encoding: Encoding) -> tuple[int, int]:
    """Return what a CPU build holds for the graph, and what a GPU holds."""

    def find() -> tuple[int, int]:
        from vramplan.engines.ggml import encoder_graph  # what is known needs none of it

        return encoder_graph.encoder_sizes(shape, encoding)

    if not shape.identity:
        return find()
    host, gpu = known_sizes(f"{shape.identity} {encoding}", 2, find)
    return host, gpu


# ---------------------------------------------------------------------------------------- guessed
def _as_guess(vision: VisionModel) -> Guess:
    assert vision.sizes is not None
    return Guess(
        what="",
        tokens=vision.tokens,
        outputs=vision.patches,
        embedding=vision.embedding,
        feed_forward=vision.feed_forward,
        heads=vision.heads,
        projection=vision.projection,
        input_bytes=3 * _F32 * vision.sizes.reserved[0] * vision.sizes.reserved[1],
    )


def _guessed(guess: Guess, *, has_flash: bool) -> Band:
    """Return the buffer of a transformer with a two-layer projector, whatever it is in truth.

    The fullest moment is the attention (the scores and five activations), the feed-forward or the
    projector (its input, the hidden layer and the output). The input stays all along.
    """
    expected = _transformer_bytes(guess, has_flash=has_flash)
    high = 2 * _transformer_bytes(guess, has_flash=False)
    return Band(low_bytes=expected // 4, expected_bytes=expected, high_bytes=high)


def _transformer_bytes(guess: Guess, *, has_flash: bool) -> int:
    hidden = guess.tokens * guess.embedding * _F32
    scores = 0 if has_flash else guess.heads * guess.tokens**2 * _F32
    attention = scores + 5 * hidden
    feed_forward = 3 * hidden + guess.tokens * guess.feed_forward * _F32
    projection = guess.outputs * (guess.embedding + 2 * guess.projection) * _F32
    return max(attention, feed_forward, projection) + guess.input_bytes
