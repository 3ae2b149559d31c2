"""At which settings an entry of the catalogue is recorded, and at which what was found is proved.

Drawn by a seed of the entry's name: the same entry is recorded at the same settings. What the
entry's constraints allow is what is drawn from, its ends first, so that its tape holds for them.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import lcm
from typing import Any

from vramplan.engines.torch.attention_kernel import attention_kernel
from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.quick_dataclass import dataclass

#: an architecture of each kind of kernel: half precision knows three, fp32 one
_CAPABILITIES = ("8.6", "9.0", "7.5")
#: batches: one thrice, because code often differs where there is one alone
_BATCHES = (1, 2, 1, 3, 1, 5, 1, 2)
#: where a prompt is the longest (0), also with the largest batch, or the shortest (1)
_PROMPTS = {0: 0, 2: 1, _BATCHES.index(5): 0}
#: where a video is the shortest: once alone and once in a batch, since code of its own for either
#: is known from its shortest video on
_SHORTEST = (1, 2)
#: where it is by one step longer than that, so that no coarser steps are all that is recorded
_NEXT_LONGER = 3
#: where a video is as by default, that the tape holds there: where none is larger, no other is
_DEFAULT = 4
#: what goes over a video in chunks does its first ones in ways of their own, and is recorded of few
#: of them, but for the longest: at least so many and at most, also where each is one latent frame
_CHUNKS, _LATENTS = (4, 6), (6, 9)
#: of one token alone code makes a vector; one that something is generated from has a chat around it
_LEAST_PROMPT, _LEAST_TO_GENERATE = 2, 16
_STEPS = 8
#: where a second transformer takes over, each has a few that are none of the others'
_STEPS_OF_TWO = 12
#: and so many more: with an image as by default, tables of them are told by these alone
_MORE_STEPS = (0, 2, 2, 0, 3, 5, 4, 3)
#: of a video the shortest has the fewest, alone and in a batch: loops are told from that one
_MORE_STEPS_OF_VIDEO = (5, 0, 0, 3, 3, 6, 4, 2)
_TOKENS = (6, 7, 7, 6, 9, 9, 6, 6)
#: pixels of a batch that are recorded: some code does otherwise with tensors of 2^31 elements
MOST_PIXELS = 1 << 23
#: tokens of a batch's prompts: with more of them their ids and masks would have no values
MOST_TOKENS = 1 << 17
#: a window that a prompt with an image leaves fewer tokens of is recorded beyond it alone
_LEAST_INSIDE = 256
#: an image of sides of so many steps each is of whole blocks of tokens, of up to 64 of them
_BLOCK = 8
#: which layers of a vision model see no window alone
_SEES_ALL = "fullatt_block_indexes"
#: where the entry's constraints say nothing
_LARGEST_IMAGE, _LARGEST_BATCH, _LARGEST_PROMPT = 2048, 16, 8192


Words = Mapping[str, str]


def dtypes_of(pipeline: TorchPipeline) -> tuple[str, ...]:
    """Return the dtypes that an entry takes, its default first."""
    bounds = pipeline.constraints.get("dtype")
    known = bounds.choices if bounds and bounds.choices else ("fp16", "bf16", "fp32")
    default = str(pipeline.defaults.get("dtype", known[0]))
    return (default, *(one for one in known if one != default))


def words_of(pipeline: TorchPipeline, dtype: str) -> Iterator[dict[str, str]]:
    """Yield the words (dtype, kernel, guided, mode) under which an entry's code is recorded."""
    guided = ("1", "0") if "guidance" in pipeline.defaults else (None,)
    bounds = pipeline.constraints.get("mode")
    modes: Sequence[str | None] = (None,)
    if "mode" in pipeline.defaults:
        modes = bounds.choices if bounds and bounds.choices else (str(pipeline.defaults["mode"]),)
    for kernel in dict.fromkeys(attention_kernel(c, "sdpa", dtype) for c in _CAPABILITIES):
        for choice in guided:
            for mode in modes:
                words = {"dtype": dtype, "kernel": kernel, "guided": choice, "mode": mode}
                yield {key: word for key, word in words.items() if word is not None}


def least_steps(pipeline: TorchPipeline) -> int:
    """Return how many denoising steps are recorded at least: with fewer there is no loop."""
    return _STEPS_OF_TWO if pipeline.parts.get("boundary_ratio") else _STEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The last tokens that some layers of a language model see: beyond them masks are made.

    Where a run stays inside of them, or begins beyond, is known by the prompt; what crosses them
    while it generates is neither.
    """

    tokens: int
    image_tokens: int  # before each prompt, at least so many

    @property
    def _inside(self) -> int:
        return self.tokens - self.image_tokens

    @property
    def sides(self) -> tuple[str, ...]:
        """Conditions on a prompt: inside, and beyond; none where it is recorded beyond alone."""
        is_wide = self._inside > _LEAST_INSIDE
        return (f"p<{self.tokens}", f"p>={self.tokens}") if is_wide else ()

    @property
    def domain(self) -> dict[str, list[int]]:
        """Between what a run has to be that begins inside: there until its last token."""
        return {f"(p+new)*(p<{self.tokens})": [0, self._inside - 1]} if self.sides else {}


def stride_of(module: Any) -> int | None:
    """Return by how many frames parts of a video are apart that an autoencoder decodes at once.

    None where it decodes a video otherwise, or in ways that its length alone decides. Source:
    diffusers 0.42.1, `use_framewise_decoding` in models/autoencoders.
    """
    stride = getattr(module, "tile_sample_stride_num_frames", None)
    is_used = getattr(module, "use_framewise_decoding", False) is True
    return stride if is_used and type(stride) is int and stride > 0 else None


def step_of(module: Any) -> int | None:
    """Return by how many frames videos may differ of an autoencoder that goes over them by latents.

    One that takes several latent frames at once does otherwise with what is left of them. None
    where it does not say. Source: diffusers 0.42.1, models/autoencoders: Wan's and Hunyuan 1.5's
    take one latent frame at once, or all.
    """
    config = getattr(module, "config", None)
    if type(getattr(module, "num_sample_frames_batch_size", None)) is int:
        return None
    for key in ("scale_factor_temporal", "temporal_compression_ratio"):
        step = getattr(config, key, None)
        if type(step) is int and step > 1:
            return step
    return None


def tile_of(module: Any) -> int | None:
    """Return the side in pixels of the windows that a vision model's layers see one by one.

    An image that they do not fill is cut into windows of several sizes, each of which is done in a
    way of its own. None where there are none. Source: transformers 5.24, models/qwen2_5_vl: its
    attention without flash kernels splits queries by windows.
    """
    vision = getattr(getattr(module, "config", None), "vision_config", None)
    # in pixels where some layers see all; elsewhere the same word counts tokens
    tile = getattr(vision, "window_size", None) if hasattr(vision, _SEES_ALL) else None
    return tile if type(tile) is int and tile > 0 else None


def window_of(module: Any) -> Window | None:
    """Return the window of a model's layers, by its config; None where they see everything."""
    config: Any = getattr(module, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    tokens = getattr(text, "sliding_window", None)
    kinds = getattr(text, "layer_types", None)
    if type(tokens) is not int or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return Window(tokens=tokens, image_tokens=getattr(config, "mm_tokens_per_image", None) or 0)


class Draw:
    """Numbers for the runs of an entry, at its constraints' ends and drawn between them."""

    def __init__(
        self,
        pipeline: TorchPipeline,
        fixed: Collection[str] = (),
        window: Window | None = None,
        times: float = 1.0,
        most_at_once: int | None = None,
        stride: int | None = None,
        step: int | None = None,
        tile: int | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._most_at_once = most_at_once  # in a batch, where that is less than it may be
        self._fixed = fixed  # settings that stay at their defaults
        self._times = times  # the default video's pixels, in all its frames and a batch of them
        self._window = window
        self._stride = stride  # frames from one part that is decoded at once to the next
        self._tile = tile  # pixels of the sides of windows that images are of, whole ones
        self._step = step  # and by how many they may differ where there are no such parts

    def numbers(self, place: int | None, words: Words, again: int = 0) -> dict[str, int]:
        """Return the numbers of the recording at `place`, or of one that is held out.

        `again` draws others to hold out. Runs under other words are at the same numbers, so that
        they share calls.
        """
        has, drawn = self._pipeline.defaults, dict[str, int]()
        told = f"{self._pipeline.name} {place}" if place is not None else self._told(words)
        told += f" {again}" if again else ""
        source = random.Random(told)  # noqa: S311  # no secret
        if "batch" in self._fixed:
            drawn["batch"] = self._default_batch()
        elif "batch" in has:
            most = self.largest_batch
            wanted = source.randint(1, most) if place is None else _BATCHES[place % len(_BATCHES)]
            drawn["batch"] = most if place == _BATCHES.index(5) else min(wanted, most)
        image, frames = has.get("image"), has.get("frames")
        if "frames" in self._fixed and isinstance(frames, int):
            drawn["frames"] = frames
        elif frames is not None:
            drawn["frames"] = self._frames(source, place)
        if "image" in self._fixed and isinstance(image, tuple):
            drawn["width"], drawn["height"] = image
        elif image is not None:
            most = self._most_pixels(drawn.get("frames", 1)) // drawn.get("batch", 1)
            drawn["width"], drawn["height"] = self._sides(source, place, most, again % 2)
        if frames is not None:  # as they are said
            drawn["frames"] = drawn.pop("frames")
            drawn |= self._default_video(place, drawn)
        if "prompt_tokens" in has:
            least = _LEAST_TO_GENERATE if "new_tokens" in has else _LEAST_PROMPT
            least = max(least, self._bound("prompt_tokens", "minimum", 1))
            most = self._bound("prompt_tokens", "maximum", _LARGEST_PROMPT)
            most = max(least, min(most, MOST_TOKENS // drawn.get("batch", 1)))
            low, high = self._side(place, least, most)
            end = None if place is None else _PROMPTS.get(place)
            if self._window is not None and place is not None:
                end = place // 4
            drawn["prompt_tokens"] = _drawn(source, end, low, high, 1)
        if "new_tokens" in has:
            drawn["new_tokens"] = _TOKENS[(place or 0) % len(_TOKENS)]
        if "steps" in has:
            drawn["steps"] = self._steps(place)
        return drawn

    def _steps(self, place: int | None) -> int:
        """Return how many denoising steps there are."""
        usual = self._pipeline.defaults["steps"]
        if "steps" in self._fixed and isinstance(usual, int):
            return usual
        is_video = "frames" in self._pipeline.defaults
        listed = _MORE_STEPS_OF_VIDEO if is_video else _MORE_STEPS
        return least_steps(self._pipeline) + (1 if place is None else listed[place % len(listed)])

    def others(self, words: Words) -> Iterator[dict[str, int]]:
        """Yield numbers to hold out besides those that `numbers` draws."""
        if (batch := self.other_batch(words)) is not None:
            yield batch
        if self._window is not None and self._window.sides:
            drawn = self.numbers(None, words)
            beyond = self.numbers(0, words)["prompt_tokens"] - 1
            yield {**drawn, "prompt_tokens": beyond, "batch": min(2, drawn.get("batch", 1))}

    def _side(self, place: int | None, least: int, most: int) -> tuple[int, int]:
        """Return between what a prompt's tokens are drawn, by turns inside a window and beyond.

        Two at a time, so that there are batches of one and of several on either side.
        """
        if self._window is None:
            return least, most
        beyond = max(least, self._window.tokens), max(most, self._window.tokens)
        if not self._window.sides or (place is not None and place // 2 % 2 == 0):
            return beyond
        inside = self._window.tokens - self._window.image_tokens - max(_TOKENS) - 1
        return least, max(least, inside)

    def other_batch(self, words: Words) -> dict[str, int] | None:
        """Return numbers to hold out with a batch of one where `numbers` draws several, or several.

        Code of its own for either is found from half of the runs. None where there is no batch.
        """
        drawn = self.numbers(None, words)
        most = self.largest_batch
        if "batch" not in drawn or "batch" in self._fixed or most < 2:
            return None
        found = {**drawn, "batch": 1 if drawn["batch"] > 1 else 2}
        # no more pixels in all
        if "height" in found and found["batch"] > 1 and "image" not in self._fixed:
            step = self._side_step
            least = self._bound("image", "minimum", step)
            half = found["height"] // found["batch"] // step * step
            found["height"] = max(half, -(-least // step) * step)
        return found

    def _told(self, words: Words) -> str:
        """Return what numbers to hold out are drawn by.

        A video is held out at the same ones under all words but its dtype's and mode's: most of
        its work goes by no other, and takes long.
        """
        is_video = "frames" in self._pipeline.defaults
        kept = {key: words[key] for key in words if not is_video or key in ("dtype", "mode")}
        return f"{sorted(kept.items())}"

    def _default_video(self, place: int | None, drawn: Mapping[str, int]) -> dict[str, int]:
        """Return the default video's numbers where it is the largest, and this the place for it."""
        image, frames = self._pipeline.defaults.get("image"), self._pipeline.defaults["frames"]
        is_here = place == _DEFAULT and drawn.get("batch", 1) == self._default_batch()
        if self._times > 1 or not is_here:
            return {}
        if not isinstance(image, tuple) or not isinstance(frames, int):
            return {}
        return {"width": image[0], "height": image[1], "frames": frames}

    def _default_batch(self) -> int:
        default = self._pipeline.defaults.get("batch", 1)
        assert isinstance(default, int)
        return default

    @property
    def largest_batch(self) -> int:
        """How many are drawn at once, at most."""
        most = self._bound("batch", "maximum", _LARGEST_BATCH)
        return most if self._most_at_once is None else min(most, self._most_at_once)

    @property
    def _side_step(self) -> int:
        return lcm(self._bound("image", "multiple_of", 8), self._tile or 1)

    def _bound(self, key: str, which: str, otherwise: int) -> int:
        bounds = self._pipeline.constraints.get(key)
        found = getattr(bounds, which, None) if bounds else None
        return otherwise if found is None else int(found)

    def _most_pixels(self, frames: int) -> int:
        """Return how many pixels are recorded in an image, or in one of so many frames of videos.

        Of videos a multiple of the default one: much larger ones fail in their own code.
        """
        image, usual = self._pipeline.defaults.get("image"), self._pipeline.defaults.get("frames")
        if not isinstance(image, tuple) or not isinstance(usual, int):
            return MOST_PIXELS
        return int(self._times * image[0] * image[1] * usual) // frames

    def _sides(
        self, source: random.Random, place: int | None, most: int, is_whole: int
    ) -> tuple[int, int]:
        """Return width and height: the ends first, and together no more than is recorded.

        Of whole blocks of tokens, which few areas are, where that is asked for.
        """
        step = self._side_step * (_BLOCK if is_whole else 1)
        least = self._bound("image", "minimum", step)
        low, high = -(-least // step), self._bound("image", "maximum", _LARGEST_IMAGE) // step
        area = max(low * low, most // step**2)

        def side(other: int = low) -> int:
            return source.randint(low, max(low, min(high, area // other)))

        width = {0: min(high, area // low), 1: low}.get(place or 0, 0) if place in (0, 1) else 0
        height = low if place == 2 else 0  # the third
        width = width or side(height or low)
        height = height or (min(high, area // low) if place == 1 else side(width))
        return step * width, step * height

    def _frames(self, source: random.Random, place: int | None) -> int:
        default = self._pipeline.defaults["frames"]
        assert isinstance(default, int)
        least = self._bound("frames", "minimum", 1)
        # longer ones do the same more often, and take as much longer to record
        most = min(self._bound("frames", "maximum", default), default)
        step = self._stride or self._step or frame_step(default)
        first = 1 + (default - 1) % step  # the last part is as long in all of them
        low, high = max(0, -(-(least - first) // step)), (most - first) // step
        least, few = _LATENTS if self._step and not self._stride else _CHUNKS
        low = max(low, min(least, high))
        if place is not None:  # the longest is one of them
            low, high = (high, high) if place == 0 else (low, max(low, min(high, few)))
        if place == _NEXT_LONGER:
            return first + step * min(low + 1, high)
        end = 1 if place in _SHORTEST else place
        return first + step * _drawn(source, end, low, high, 1)


def frame_step(default: int) -> int:
    """Return by how many frames a video may be longer, where `default` is one it may have."""
    return next((step for step in (8, 6, 4, 2) if (default - 1) % step == 0), 1)


def _drawn(source: random.Random, place: int | None, low: int, high: int, step: int) -> int:
    if place == 0:
        return high
    if place == 1:
        return low
    return source.randrange(low, high + 1, step)
