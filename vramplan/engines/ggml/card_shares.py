"""Which of several cards has which layer.

Layers are shared out in order: the first ones to the first card, the output layer, which comes
last, to the last. Each card gets its part of the number of layers, by what is free on it or by
``--tensor-split``; bytes are not looked at. Numbers are rounded as the engine's are, to 32 bits,
since half a layer more or less is a layer. Source: ggml-org/llama.cpp, src/llama-model.cpp
(load_tensors, get_layer_buft_list).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate

#: where a tensor is that no card has
HOST = -1


@lru_cache(maxsize=1024)
def cards_of(layers: int, shares: tuple[float, ...]) -> tuple[int, ...]:
    """Return the card of each of `layers`, from the first that is on a card to the output layer.

    `shares` are the cards' parts, in any unit; with none or one there is one card.
    """
    if len(shares) < 2 or not layers:
        return (0,) * layers
    from bisect import bisect_right  # one card is shared out among nobody

    sums = list(accumulate(map(_single, shares), lambda one, other: _single(one + other)))
    points = [_single(one / sums[-1]) for one in sums]
    return tuple(bisect_right(points, _single(number / layers)) for number in range(layers))


def _single(number: float) -> float:
    """Return the nearest number of 32 bits."""
    import struct

    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded
