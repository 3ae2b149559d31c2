"""The largest image, batch or context that fits: exact, though success is not monotone.

A larger size may fit where a smaller one does not: the cache is cut in other places. What is alive
at the peak grows with every size, so a bisection finds the largest size for which that fits on
every candidate; from there downwards each legal size is tried until one is good enough.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from math import gcd

from vramplan.ask.trial import Trial
from vramplan.budget.plan import Largest
from vramplan.errors import VramplanError
from vramplan.model import Card, Constraint, SettingValue

#: where the pipeline has no bound of its own: no card runs a larger batch, image or context
_LARGEST = {"image": 1 << 14, "batch": 1 << 20, "context": 1 << 24, "frames": 1 << 16}
#: sizes that a band without a tape, or a pipeline, may not count
_MAYBE_LEFT_OUT = frozenset({"frames", "image"})
#: contexts are padded to whole ones of these: llama.cpp, src/llama-context.cpp (GGML_PAD)
_STEP = {"context": 256}
#: of numbers in ten binary digits so many lie between a power of two and the next
_DENSE = 512


def find_largest(
    trial: Trial, key: str, progress: Callable[[str], None] = lambda _: None
) -> Largest | None:
    """Return the largest legal value of a size that is good enough; None where none is.

    An image keeps its shape. Contexts are counted in whole 256 tokens, as the engine makes them;
    numbers above 1,024 in ten binary digits.
    """
    sizes = legal_sizes(trial.job.settings[key], trial.job.pipeline.constraints.get(key), key)
    last = len(sizes) - 1
    slope = 0.0
    for card, budget in trial.budgets:

        def least(place: int, card: Card = card, budget: int = budget) -> int | None:
            return trial.least_bytes({key: sizes[place]}, card, budget)

        room = _Room(sizes, least, budget, slope)
        last, slope = room.last_with_room(last), room.slope
    for place in range(last, -1, -1):
        progress(f"{key} {sizes[place]}")
        verdict = trial.accepted({key: sizes[place]})
        if verdict is not None:
            next_one = sizes[place + 1] if place + 1 < len(sizes) else None
            is_last = next_one is not None and _ends_between(trial, key, sizes[place], next_one)
            return Largest(value=sizes[place], verdict=verdict, is_last_known=is_last)
    return None


def has_answer(trial: Trial, key: str) -> bool:
    """Return whether the need depends on a size: otherwise it has no largest.

    A band may not count it, and a pipeline may make one image of every size (HiDream).
    """
    sizes = legal_sizes(trial.job.settings[key], trial.job.pipeline.constraints.get(key), key)
    if key not in _MAYBE_LEFT_OUT or len(sizes) < 2:
        return True
    try:
        least, most = (trial.look({key: value}) for value in (sizes[0], sizes[-1]))
    except VramplanError:
        return True
    if least.least_bytes != most.least_bytes:
        return True
    if key == "image":
        return least.is_assumed or most.is_assumed
    return not (least.is_assumed and most.is_assumed)


def _ends_between(trial: Trial, key: str, here: SettingValue, beyond: SettingValue) -> bool:
    """Return whether the need is known here and assumed beyond."""
    try:
        return trial.look({key: beyond}).is_assumed and not trial.look({key: here}).is_assumed
    except VramplanError:
        return False


class _Room:
    """Which sizes have room in a budget for what is needed at least: up to one, and no further.

    `least` gives what a size needs at least, None where nothing is known of it. It rises almost
    evenly with pixels, rows or tokens, so that two sizes tell about where it meets the budget:
    `slope`, in bytes each, which of another architecture is much the same.
    """

    def __init__(
        self,
        sizes: Sequence[SettingValue],
        least: Callable[[int], int | None],
        budget_bytes: int,
        slope: float = 0.0,
    ) -> None:
        self._sizes = sizes
        self._least = least
        self._budget_bytes = budget_bytes
        self._seen: tuple[int, int] | None = None  # of the last place that told: pixels and bytes
        self.slope = slope

    def last_with_room(self, last: int) -> int:
        """Return the last place up to `last` that has room, -1 for none."""
        if last < 0 or self._has_room(last):
            return last
        below, above = -1, last
        while above - below > 1:
            width = above - below
            for place in self._guesses(below, above):
                if below < place < above:
                    below, above = (place, above) if self._has_room(place) else (below, place)
            if above - below > max(width // 2, 1):
                # of an open range almost all sizes are far too large to be looked at
                place = min(max(2 * below + 1, 0), (below + above) // 2)
                below, above = (place, above) if self._has_room(place) else (below, place)
        return below

    def _guesses(self, below: int, above: int) -> Iterator[int]:
        """Yield the place whose need should be just within the budget, and the one behind it."""
        if self._seen is None or self.slope <= 0:
            return
        amount, need_bytes = self._seen
        wanted = amount + (self._budget_bytes - need_bytes) / self.slope
        low = bisect_right(self._sizes, wanted, below + 1, above, key=_amount)
        yield min(max(low - 1, below + 1), above - 1)
        yield min(max(low, below + 1), above - 1)

    def _has_room(self, place: int) -> bool:
        need_bytes = self._least(place)
        if need_bytes is None:
            return False
        amount = _amount(self._sizes[place])
        if self._seen is not None and amount != self._seen[0]:
            self.slope = (need_bytes - self._seen[1]) / (amount - self._seen[0])
        self._seen = amount, need_bytes
        return need_bytes <= self._budget_bytes


def _amount(size: SettingValue) -> int:
    """Return the pixels of an image, or the number itself."""
    return size[0] * size[1] if isinstance(size, tuple) else int(size)


def legal_sizes(now: SettingValue, bounds: Constraint | None, key: str) -> Sequence[SettingValue]:
    """Return the values of a size that a pipeline takes, rising; images of the shape of `now`."""
    step = (bounds.multiple_of if bounds else None) or 1
    least = (bounds.minimum if bounds else None) or 1
    most = (bounds.maximum if bounds else None) or _LARGEST[key]
    if isinstance(now, tuple):
        return _Images(now, step, least, most)
    step = step * _STEP.get(key, 1)
    return _Counts(step, -(-least // step), most // step)


class _Counts(Sequence[int]):
    """The multiples of a step from a first to a last, in ten binary digits.

    That is each of them up to 1,024 steps, and 512 from there to twice as many, and so on: who
    computes a million rows at once does not ask for one more.
    """

    def __init__(self, step: int, first: int, last: int) -> None:
        self._step = step
        self._places = range(_place_of(max(first, 1)), _place_of(last + 1))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: int) -> int:  # type: ignore[override]  # no slices
        return _count_at(self._places[place]) * self._step


def _count_at(place: int) -> int:
    """Return the number in ten binary digits that has so many before it, 0 among them."""
    if place < _DENSE:
        return place
    doublings, rest = divmod(place - _DENSE, _DENSE)
    return (_DENSE + rest) << doublings


def _place_of(count: int) -> int:
    """Return how many numbers in ten binary digits are below `count`."""
    low, high = 0, _DENSE * 64
    while low < high:
        middle = (low + high) // 2
        if _count_at(middle) < count:
            low = middle + 1
        else:
            high = middle
    return low


class _Images(Sequence[tuple[int, int]]):
    """Images of one shape, whose sides are multiples of a step, from a least to a largest side."""

    def __init__(self, shape: tuple[int, int], step: int, least: int, most: int) -> None:
        common = gcd(*shape)
        width, height = shape[0] // common, shape[1] // common
        unit = step // gcd(step, gcd(width, height) % step or step)
        self._unit = width * unit, height * unit
        first = -(-least // min(self._unit))
        self._counts = range(max(first, 1), most // max(self._unit) + 1)

    def __len__(self) -> int:
        return len(self._counts)

    def __getitem__(self, place: int) -> tuple[int, int]:  # type: ignore[override]  # no slices
        count = self._counts[place]
        return self._unit[0] * count, self._unit[1] * count
