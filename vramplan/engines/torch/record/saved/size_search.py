"""Sizes seen at a few settings → one exact expression, with no grammar of a family.

What sizes are made of follows from what tensors are made of: images at levels rounded up to powers
of two or to a model's patches, with a convolution's rim; frames at theirs; a prompt and the tokens
behind it; a batch. A size is a whole-number combination of at most three products of these
(sequences joined of several, squared where scores are stored). A combination must give *every*
sample, one more than it has terms at least; what it gives elsewhere is proved by fresh recordings
(`hold`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import torch

from vramplan.engines.torch.tape.expressions import compile_expressions, evaluate, evaluate_all
from vramplan.errors import RecordingError

Dims = Mapping[str, int]

#: with fewer settings nothing is found that was not found before
LEAST_SETTINGS = 3
_MOST_TERMS = 4
#: a combination that is off by more is none; what is left is held against every size exactly
_CLOSE = 1e-7
_LARGEST = float(1 << 50)

#: how far a level may be down from the image, in its pixels
_LEVELS = (1, 2, 4, 8, 16, 32, 64)
#: and from the frames
_TIMES = (1, 2, 4, 8)
#: what convolutions add to a side before they run
_RIMS = (1, 2)
_TIME_RIMS = (1, 2, 3)


class TooFewSettingsError(RecordingError):
    """A size, or a constant, that more settings would prove or refute."""


class Products:
    """What sizes may be made of: `derived` dimensions, and products of them by their texts.

    `axes` are the dimensions that settings give: ``n`` (batch), ``h`` and ``w`` (pixels), ``f``
    (frames), ``p`` (tokens of a prompt), ``token`` (how many there are behind it), ``steps``.
    `patches` are sides of patches in pixels, beside the powers of two; `indices` are the numbers
    of loops' iterations, `blocks` pixels of the blocks that an image's tokens are made up to,
    `strides` frames from one part of a video that is decoded at once to the next.
    """

    def __init__(
        self,
        axes: Iterable[str],
        patches: Iterable[int] = (),
        indices: Iterable[str] = (),
        blocks: Iterable[int] = (),
        strides: Iterable[int] = (),
    ) -> None:
        self.axes = frozenset(axes)
        self.derived: dict[str, str] = {}
        self._levels = sorted({*_LEVELS, *patches}) if "h" in self.axes else []
        self._times = sorted({*_TIMES, *strides}) if "f" in self.axes else []
        for level in self._levels:
            for side in ("h", "w"):
                self.derived[f"{side}{level}"] = _rounded(side, level)
        for time in self._times:
            self.derived[f"f{time}"] = _rounded("f", time)
        self.areas = [f"h{k}*w{k}" for k in self._levels]
        self.areas += [f"((h*w+{block - 1})//{block})" for block in blocks]
        rimmed = [f"(h{k}+{r})*(w{k}+{r})" for k in self._levels for r in _RIMS]
        sides = [f"{side}{k}" for k in self._levels for side in ("h", "w")]
        uneven = [
            f"h{a}*w{b}"
            for k in self._levels
            for a, b in ((k, 2 * k), (2 * k, k))
            if a in self._levels and b in self._levels
        ]
        indices = tuple(indices)
        #: whether an iteration is of the second half of two batches in one: guidance puts those
        #: without a prompt first, and their prompts are shorter
        self.halves = [f"({one}>=n)" for one in indices] if "n" in self.axes else []
        self.times = [*(f"f{k}" for k in self._times), *indices]
        times = [*self.times, *(f"(f{k}+{r})" for k in self._times for r in _TIME_RIMS)]
        places = [*self.areas, *rimmed, *uneven, *sides]
        lengths = [
            *(["p"] if "p" in self.axes else []),
            *(["token"] if "token" in self.axes else []),
        ]
        if len(lengths) > 1:
            lengths.append("(p+token)")
        more = ["steps"] if "steps" in self.axes else []  # schedules are tables of them
        if "p" in self.axes:  # an image's tokens before a prompt's
            lengths += [f"({length}+{a})" for length in lengths[:] for a in self.areas]
        #: what a sequence may be as long as
        self.lengths = [
            *self.areas,
            *(f"{t}*{a}" for t in self.times for a in self.areas),
            *lengths,
        ]
        plain = [*places, *times, *(f"{t}*{a}" for t in times for a in places), *lengths]
        squares = [
            _times(a, b)
            for i, a in enumerate(self.lengths)
            for b in self.lengths[i:]
            if self._is_of_one_level(a, b)
        ]
        self.squares = squares
        self.singles = ["1", *more, *plain, *squares, *self.halves]

    def families(self) -> Iterator[tuple[str, ...]]:
        """Yield what is squared of a sum: a length, and its square, with others and alone."""
        batches = ("1", "n") if "n" in self.axes else ("1",)
        for batch in batches:
            for length in self.lengths:
                yield tuple(_times(batch, t) for t in (_times(length, length), length, "1"))
            for one, other in combinations(self.lengths, 2):
                yield tuple(_times(batch, t) for t in (one, other, "1"))
                yield tuple(_times(batch, t) for t in (_times(one, other), one, other, "1"))

    @staticmethod
    def _is_of_one_level(one: str, other: str) -> bool:
        """Return whether two lengths may be multiplied: themselves, or one that is of no image."""
        return one == other or "h" not in one or "h" not in other

    def with_batch(self, products: Iterable[str]) -> list[str]:
        """Return products, each alone and with the batch."""
        found = list(products)
        return [*found, *(_times("n", one) for one in found)] if "n" in self.axes else found


def _rounded(side: str, level: int) -> str:
    return side if level == 1 else f"({side}+{level - 1})//{level}"


def _times(one: str, other: str) -> str:
    if one == "1" or other == "1":
        return other if one == "1" else one
    return f"{one}*{other}"


class SizeSearch:
    """Finds expressions (`size_fit.Fitter`): the same sizes at the same settings are looked up."""

    def __init__(self, products: Products, names: Sequence[str]) -> None:
        self._names = tuple(names)  # the dimensions that decide; the others follow from them
        self._axes = tuple(name for name in names if name in products.axes)
        self.has_several = False  # whether what is looked through was recorded at several settings
        singles = products.with_batch(products.singles)
        if "n" in products.axes:  # each text beside each image
            singles.append("n*n")
        self._singles = list(dict.fromkeys(singles))
        few = products.with_batch(["1", *products.areas, *products.times, *products.lengths])
        few += products.halves
        self._places = {text: number for number, text in enumerate(self._singles)}
        self._few = sorted({self._places[text] for text in few})
        self._families = [
            tuple(self._places[text] for text in family)
            for family in products.families()
            if all(text in self._places for text in family)
        ]
        self._code = compile_expressions(self._singles)
        self._tables: dict[tuple[tuple[int, ...], ...], _Table] = {}
        self._found: dict[tuple[object, ...], str] = {}
        #: what was found before: where the code is much the same, the sizes are multiples of these
        self._hints: dict[str, None] = {}

    def _setting(self, dims: Dims) -> tuple[int, ...]:
        return tuple(dims[name] for name in self._axes if name in dims)

    def fit(self, samples: Sequence[tuple[Dims, int]], what: str) -> str:
        """Return the expression that gives each sample's size at its dimensions.

        Raises RecordingError where none does, as TooFewSettingsError where more settings might
        give one.
        """
        names = [name for name in self._names if name in samples[0][0]]
        seen: dict[tuple[int, ...], int] = {}
        full: dict[tuple[int, ...], Dims] = {}
        for dims, size in samples:
            key = tuple([dims[name] for name in names])
            if seen.setdefault(key, size) != size:
                shown = dict(zip(names, key, strict=True))
                raise RecordingError(f"{what}: two sizes, {seen[key]} and {size}, at {shown}")
            full.setdefault(key, dims)
        keys, sizes = tuple(seen), tuple(seen.values())
        if len(set(sizes)) == 1:
            if self.has_several and len({self._setting(dims) for dims in full.values()}) < 2:
                # what a loop does the more often in one run alone is the same there, not elsewhere
                raise TooFewSettingsError(f"{what}: one setting is too few to prove a constant")
            return str(sizes[0])
        known = (keys, sizes)
        if known not in self._found and (hinted := self._hinted([*full.values()], sizes)):
            self._found[known] = hinted
        if known not in self._found:
            if len(keys) < LEAST_SETTINGS:
                raise TooFewSettingsError(
                    f"{what}: {len(keys)} settings are too few to prove a size"
                )
            if keys not in self._tables:
                rows = [evaluate_all(self._code, full[key]) for key in keys]
                self._tables[keys] = _Table(rows)
            found = self._search(self._tables[keys], sizes)
            if found is None:
                shown = dict(zip(names, keys[0], strict=True))
                problem = f"{what}: no expression gives {sizes[0]} at {shown}"
                if len(keys) <= _MOST_TERMS:  # one of as many terms would need more to be proved
                    raise TooFewSettingsError(problem)
                raise RecordingError(problem)
            self._found[known] = _written((x, self._singles[i]) for x, i in found)
            self._hints[self._found[known]] = None
        return self._found[known]

    def _hinted(self, dims: Sequence[Dims], sizes: Sequence[int]) -> str | None:
        """Return the multiple of what was found before that gives these sizes, or None."""
        for text in self._hints:
            values = [evaluate(text, one) for one in dims]
            if values[0] and sizes[0] % values[0] == 0:
                scale = sizes[0] // values[0]
                if all(scale * v == s for v, s in zip(values, sizes, strict=True)):
                    return text if scale == 1 else f"{scale}*({text})"
        return None

    def _search(self, table: _Table, sizes: Sequence[int]) -> list[tuple[int, int]] | None:
        """Try what may be, the simplest first, and always with a setting to spare."""
        everything = range(len(self._singles))
        found = table.one(sizes)
        if found is None and len(sizes) > 2:
            found = table.two(self._few, everything, sizes) or table.two(
                everything, everything, sizes
            )
        if found is None and len(sizes) > 3:
            found = table.several(self._families, sizes) or table.several(
                list(combinations(self._few, 3)), sizes
            )
        return found


class _Table:
    """The values of products at some settings, and which of them add up to sizes."""

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self._exact = list(zip(*rows, strict=True))  # a product's values at each setting
        self._values = torch.tensor(self._exact, dtype=torch.float64)
        # settings mixed at random: two products that go together in a few settings are told apart
        mixer = torch.Generator().manual_seed(1)
        shape = (len(rows), _MOST_TERMS)
        self._mix = torch.rand(shape, generator=mixer, dtype=torch.float64) + 0.5
        self._mixed = self._values @ self._mix

    def one(self, sizes: Sequence[int]) -> list[tuple[int, int]] | None:
        """Return the product of which the sizes are a multiple."""
        for place, column in enumerate(self._exact):
            if column[0] and sizes[0] % column[0] == 0:
                scale = sizes[0] // column[0]
                if all(scale * c == s for c, s in zip(column, sizes, strict=True)):
                    return [(scale, place)]
        return None

    def two(
        self, some: Sequence[int], others: Sequence[int], sizes: Sequence[int]
    ) -> list[tuple[int, int]] | None:
        """Return two products that add up to the sizes."""
        wanted = torch.tensor(sizes, dtype=torch.float64)
        s, t = (wanted @ self._mix)[:2]
        a, b = self._mixed[list(some)], self._mixed[list(others)]
        determinant = a[:, None, 0] * b[None, :, 1] - a[:, None, 1] * b[None, :, 0]
        x = (s * b[None, :, 1] - t * b[None, :, 0]) / determinant
        y = (a[:, None, 0] * t - a[:, None, 1] * s) / determinant
        x, y = x.round(), y.round()
        off = (x * a[:, None, 0] + y * b[None, :, 0] - s).abs() > _CLOSE * s.abs()
        off |= (x * a[:, None, 1] + y * b[None, :, 1] - t).abs() > _CLOSE * t.abs()
        off |= ~(x.isfinite() & y.isfinite()) | (x.abs() > _LARGEST) | (y.abs() > _LARGEST)
        for row, column in torch.nonzero(~off).tolist():
            terms = [(int(x[row, column]), some[row]), (int(y[row, column]), others[column])]
            if self._adds_up(terms, sizes):
                return terms
        return None

    def several(
        self, families: Sequence[tuple[int, ...]], sizes: Sequence[int]
    ) -> list[tuple[int, int]] | None:
        """Return the products of a family that add up to the sizes."""
        wanted = torch.tensor(sizes, dtype=torch.float64) @ self._mix
        for count in sorted({len(family) for family in families}):
            if count >= len(sizes):
                continue
            these = [family for family in families if len(family) == count]
            matrix = self._mixed[torch.tensor(these)][:, :, :count].transpose(1, 2)
            scale = matrix.abs().amax(dim=1, keepdim=True).clamp(min=1)
            solved, info = torch.linalg.solve_ex(
                matrix / scale, wanted[:count].expand(len(these), count)
            )
            solved = (solved / scale[:, 0]).round()
            near = (matrix @ solved[:, :, None])[:, :, 0] - wanted[:count]
            fine = (near.abs() <= _CLOSE * wanted[:count].abs()).all(1) & solved.isfinite().all(1)
            fine &= (info == 0) & (solved.abs() < _LARGEST).all(1)
            for row in torch.nonzero(fine)[:, 0].tolist():
                terms = [(int(x), i) for x, i in zip(solved[row].tolist(), these[row], strict=True)]
                if self._adds_up(terms, sizes):
                    return terms
        return None

    def _adds_up(self, terms: Sequence[tuple[int, int]], sizes: Sequence[int]) -> bool:
        return all(
            sum(x * self._exact[place][row] for x, place in terms) == size
            for row, size in enumerate(sizes)
        )


def _written(terms: Iterable[tuple[int, str]]) -> str:
    parts = []
    for scale, text in terms:
        if scale:
            parts.append(str(scale) if text == "1" else text if scale == 1 else f"{scale}*{text}")
    return "+".join(parts).replace("+-", "-")
