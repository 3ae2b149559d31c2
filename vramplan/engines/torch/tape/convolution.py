"""What a tape says of a convolution beside its bytes: enough to ask cuDNN for its plans.

A step of scratch names the layer in its kind, ``conv 128>256 3x3 s2 p1``, and gives as operands the
bytes of what is read, of what is written and of the filter, then the batch and the sides of the
layer's input. ``dgrad`` and ``wgrad`` instead of ``conv`` are its two gradients. A layer whose
tensors have their channels innermost (torch's `channels_last`) ends with ``nhwc``: cuDNN plans it
otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from vramplan.quick_dataclass import dataclass

#: the layer itself, the gradient of its input and that of its filter
FORWARD, INPUT_GRADIENT, FILTER_GRADIENT = "conv", "dgrad", "wgrad"

# compiled where a tape is read: a result that is known needs none
_KIND = (
    r"(conv|dgrad|wgrad) ([0-9]{1,6})>([0-9]{1,6}) ([0-9x]{1,20})"
    r"(?: s([0-9x]{1,20}))?(?: p([0-9x]{1,20}))?(?: d([0-9x]{1,20}))?(?: g([0-9]{1,6}))?( t)?"
    r"( nhwc)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """A layer, and which of its three products is worked out.

    `in_channels` and `out_channels` are the layer's; the sides of kernel, stride, padding and
    dilation are in the order of the tensor's dimensions. Channels are the innermost dimension in
    memory where `is_channels_last`.
    """

    product: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    is_transposed: bool = False
    is_channels_last: bool = False

    @property
    def kind(self) -> str:
        """The layer as a step's kind; what is usual is left out."""
        words = [self.product, f"{self.in_channels}>{self.out_channels}"]
        words.append("x".join(map(str, self.kernel)))
        for letter, sides, usual in (
            ("s", self.stride, 1),
            ("p", self.padding, 0),
            ("d", self.dilation, 1),
        ):
            if any(side != usual for side in sides):
                words.append(letter + _short(sides))
        if self.groups != 1:
            words.append(f"g{self.groups}")
        if self.is_transposed:
            words.append("t")
        if self.is_channels_last:
            words.append("nhwc")
        return " ".join(words)

    def output_sides(self, sides: Sequence[int]) -> tuple[int, ...]:
        """Return the sides of the output of an input with these (not of a transposed layer)."""
        rows = zip(sides, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple(
            (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for side, kernel, stride, padding, dilation in rows
        )


def _short(sides: tuple[int, ...]) -> str:
    return str(sides[0]) if len(set(sides)) == 1 else "x".join(map(str, sides))


@lru_cache(maxsize=4096)
def read_kind(kind: str) -> Convolution | None:
    """Return the layer that a step's kind names; None where it names none."""
    found = re.fullmatch(_KIND, kind)
    if found is None:
        return None
    product, inside, outside, kernel, stride, padding, dilation, groups, *marks = found.groups()
    try:
        sides = tuple(map(int, kernel.split("x")))
        given = [_sides(text, usual, len(sides)) for text, usual in
                 ((stride, 1), (padding, 0), (dilation, 1))]  # fmt: skip
    except ValueError:
        return None
    if any(len(one) != len(sides) for one in given) or not 0 < len(sides) <= 3:
        return None
    return Convolution(
        product=product,
        in_channels=int(inside),
        out_channels=int(outside),
        kernel=sides,
        stride=given[0],
        padding=given[1],
        dilation=given[2],
        groups=int(groups or 1),
        is_transposed=marks[0] is not None,
        is_channels_last=marks[1] is not None,
    )


def _sides(text: str | None, usual: int, count: int) -> tuple[int, ...]:
    if text is None:
        return (usual,) * count
    sides = tuple(map(int, text.split("x")))
    return sides * count if len(sides) == 1 else sides


def product_thread(kind: str) -> int:
    """Return whose cuBLAS multiplies where torch works a convolution out itself; 0 for no layer.

    1 is the program's own thread, 2 the one in which autograd works, as in a tape's step ``g``.
    """
    product = kind.partition(" ")[0]
    if product == FORWARD:
        return 1
    return 2 if product in (INPUT_GRADIENT, FILTER_GRADIENT) else 0
