"""Which images an engine's vision encoder works on: what it reserves for, and what it takes.

At load it reserves for one square. Families with squares of a fixed size cut or scale every image
to such squares; those with images of any size ("dynamic") reserve for less than they take, and
their buffer grows when a larger image comes. Source: ggml-org/llama.cpp, tools/mtmd/clip.cpp
(load_hparams: set_limit_image_tokens, set_warmup_n_tokens; get_dummy_batch), mtmd-image.cpp
(calc_size_preserved_ratio), mtmd.cpp (mtmd_batch_add_chunk), build b11549; builds b9538 to b11549
reserve the same.
"""

from __future__ import annotations

from math import ceil, floor, isqrt, sqrt

from vramplan.quick_dataclass import dataclass

#: tokens of images that are encoded at once, where a family can (--mtmd-batch-max-tokens)
_BATCH_TOKENS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRule:
    """What a family does with images; sizes in tokens, which are `merge` by `merge` patches.

    `side` tokens across and down are reserved for, where that is not the file's image size;
    an image becomes `least` to `most` tokens, where it may have any size.
    """

    merge: int = 1
    side: int = 0
    least: int = 0
    most: int = 0
    is_batched: bool = False


#: by clip.cpp's name of the projector; Qwen's: "avoid OOM on warmup"
RULES = {
    "mlp": ImageRule(),
    "gemma3": ImageRule(merge=4),
    "idefics3": ImageRule(),
    "internvl": ImageRule(is_batched=True),
    "lfm2": ImageRule(side=16),
    "pixtral": ImageRule(side=16, least=8, most=1024),
    "gemma4v": ImageRule(merge=3, side=16, least=70, most=1120),
    "kimivl": ImageRule(side=16, least=8, most=1024),
    "llama4": ImageRule(),
    "janus_pro": ImageRule(),
    "qwen2vl_merger": ImageRule(merge=2, side=46, least=8, most=4096),
    "qwen2.5vl_merger": ImageRule(merge=2, side=46, least=8, most=4096),
    "qwen3vl_merger": ImageRule(merge=2, side=46, least=8, most=4096),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSizes:
    """A projector file's image sizes in pixels: what is reserved for, and the largest."""

    reserved: tuple[int, int]
    largest: tuple[int, int]
    least_pixels: int
    most_pixels: int  # 0 where images have a fixed size
    step: int
    batch: int  # how many of the reserved size are encoded at once

    @property
    def is_dynamic(self) -> bool:
        """Return whether images keep their own size."""
        return self.most_pixels > 0

    def encoded(self, width: int, height: int) -> tuple[int, int]:
        """Return the size to which an image is scaled before it is encoded."""
        if not self.is_dynamic:
            return self.reserved
        step = self.step
        wide, high = (max(step, floor(one / step + 0.5) * step) for one in (width, height))
        if wide * high > self.most_pixels:
            scale = sqrt(width * height / self.most_pixels)
            wide, high = (max(step, floor(one / scale / step) * step) for one in (width, height))
        elif wide * high < self.least_pixels:
            scale = sqrt(self.least_pixels / (width * height))
            wide, high = (ceil(one * scale / step) * step for one in (width, height))
        return wide, high


def image_sizes(family: str, *, image: int, patch: int, merge: int) -> ImageSizes:
    """Return the sizes of a file of a known family; `image` is what the file says."""
    rule = RULES[family]
    step = patch * merge
    side = rule.side * step or image
    high = next((one for one in range(isqrt(rule.most), 0, -1) if rule.most % one == 0), 1)
    tokens = max(1, (side // step) ** 2)
    return ImageSizes(
        reserved=(side, side),
        largest=(rule.most // high * step, high * step) if rule.most else (side, side),
        least_pixels=rule.least * step * step,
        most_pixels=rule.most * step * step,
        step=step,
        batch=max(1, _BATCH_TOKENS // tokens) if rule.is_batched else 1,
    )
