"""How a model sees: its vision tower by its config, and what an image is to its language model.

A tower works on patches; some of them together are one token of the prompt. Where images are of any
size (their patches are merged, ``spatial_merge_size``) both grow with the image; others take images
of one size, and an image as one of them or as a grid of tiles. Sources: transformers 5.23.0,
models/{qwen2_vl,llava,llava_next,idefics3,gemma3,internvl}/modeling_*.py and their processors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vramplan.quick_dataclass import dataclass

#: how configs call the widths of a tower, the side of a patch, what is merged into one token
_HIDDEN = ("embed_dim", "hidden_size", "width")
_HEADS = ("num_heads", "num_attention_heads")
_MERGED = ("spatial_merge_size", "merge_size")
#: how they call an image's tokens where that is no count of its patches
_TOKENS = ("mm_tokens_per_image", "image_seq_length", "image_seq_len", "num_query_tokens")
#: of a model that cuts an image into tiles: four along a side, and once the whole
#: (models/idefics3/image_processing_idefics3.py: `size` is four `max_image_size`)
_TILES = 4 * 4 + 1
_COLOURS, _LARGEST = 3, 1 << 14
#: grids of tiles that a config may offer
_MOST_GRIDS = 1 << 10

Size = tuple[int, int]

#: the image that a model of images of any size is given where none is asked for, as it is recorded
LOOKED_AT: Size = (448, 448)
_BY_PATCHES = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
#: what a config leaves out where it is its class's own, by how classes begin:
#: of the model and of its tower. Source: transformers 5.23.0, models/*/configuration_*.py
_UNSAID: Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]] = {
    "Qwen2_5_VL": ({}, {**_BY_PATCHES, "num_heads": 16, "intermediate_size": 3420}),
    "Qwen2VL": ({}, {**_BY_PATCHES, "num_heads": 16, "embed_dim": 1280, "mlp_ratio": 4}),
    "Qwen3VL": ({}, {**_BY_PATCHES, "patch_size": 16, "num_heads": 16, "intermediate_size": 4304}),
    "Gemma3": ({"mm_tokens_per_image": 256}, {"patch_size": 16}),
    "Idefics3": ({"scale_factor": 2}, {"patch_size": 32, "num_attention_heads": 16}),
    "SmolVLM": ({"scale_factor": 2}, {"patch_size": 32, "num_attention_heads": 16}),
    "LlavaOnevision": (
        {"image_grid_pinpoints": [[384 * r, 384 * c] for r in range(1, 7) for c in range(1, 7)]},
        {},
    ),
    "LlavaNext": (
        {
            "image_grid_pinpoints": [
                [336 * rows, 336 * columns]
                for rows, columns in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
            ]
        },
        {},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A vision tower: its widths in elements, its images in pixels.

    `side` is that of the one size of image that it takes, None where it takes any; `grids` are the
    sizes that an image is enlarged to and cut into tiles of that side.
    """

    hidden: int
    intermediate: int
    heads: int
    patch: int
    merge: int = 1
    frames: int = 1
    side: int | None = None
    tiles: int = 1
    tile_tokens: int | None = None
    grids: tuple[Size, ...] = ()

    @property
    def looks_apart(self) -> bool:
        """True where each image is attended by itself: those of any size lie in a row."""
        return self.side is None

    def images(self, image: Size) -> int:
        """Return as how many images of its own the tower sees one of `image` pixels."""
        if self.side is None or not self.grids:
            return self.tiles
        width, height = image
        around = [one for one in self.grids if one[0] >= height and one[1] >= width]
        area = min(around or [max(self.grids, key=_area)], key=_area)  # rows, columns
        return 1 + -(-area[0] // self.side) * -(-area[1] // self.side)

    def patches(self, image: Size) -> int:
        """Return the patches of one of the images that the tower sees."""
        if self.side is not None:
            return (self.side // self.patch) ** 2
        step = self.patch * self.merge
        across, down = (max(1, side // step) * self.merge for side in image)
        return across * down

    def tokens(self, image: Size) -> int:
        """Return the tokens of a prompt that one of the images that the tower sees takes."""
        if self.side is not None and self.tile_tokens is not None:
            return self.tile_tokens
        return self.patches(image) // self.merge**2

    @property
    def patch_elements(self) -> int:
        """The numbers of a patch as it is given."""
        return self.frames * _COLOURS * self.patch**2


def find_sight(config: Mapping[str, object], class_name: str) -> Sight | None:
    """Return how a model of a class sees, by its config; None where that does not tell."""
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        return None
    unsaid = next((told for name, told in _UNSAID.items() if class_name.startswith(name)), None)
    if unsaid is not None:
        config, vision = {**unsaid[0], **config}, {**unsaid[1], **vision}
    hidden, heads = _number(vision, _HIDDEN), _number(vision, _HEADS)
    patch = _number(vision, ("patch_size",))
    if not hidden or not heads or not patch:
        return None
    wide = _number(vision, ("intermediate_size",))
    ratio = vision.get("mlp_ratio", 4)
    if not wide:
        wide = int(hidden * ratio) if isinstance(ratio, int | float) and 0 < ratio < 100 else 0
    merged = _number(vision, _MERGED) or _number(config, _MERGED)
    side = _number(vision, ("image_size",))
    of_any_size = bool(merged) or not side
    scale = _number(config, ("scale_factor",))
    return Sight(
        hidden=hidden,
        intermediate=wide or 4 * hidden,
        heads=heads,
        patch=patch,
        merge=merged or (2 if of_any_size else scale or 1),
        frames=_number(vision, ("temporal_patch_size",)) or (2 if of_any_size and merged else 1),
        side=None if of_any_size else max(side, patch),
        tiles=_TILES if scale and not of_any_size else 1,
        tile_tokens=_number(config, _TOKENS) or None,
        grids=() if of_any_size else _grids(config),
    )


def _grids(config: Mapping[str, object]) -> tuple[Size, ...]:
    """Return the sizes, rows first, that an image may be cut into tiles at."""
    found = config.get("image_grid_pinpoints")
    if not isinstance(found, list) or len(found) > _MOST_GRIDS:
        return ()
    return tuple((one[0], one[1]) for one in found if _is_size(one))


def _is_size(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(one) is int and 0 < one <= _LARGEST for one in value)
    )


def _area(size: Size) -> int:
    return size[0] * size[1]


def _number(config: Mapping[str, object], names: Sequence[str]) -> int:
    """Return the first of some numbers of a config that is one; 0 where none is."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 1 << 24:
            return value
    return 0
