"""Sizes seen at a few settings → one exact expression in the setting's dimensions.

A size is a whole-number combination of at most two products of dimensions (a convolution's scratch
is input plus output), or the square of a length (a mask of every token before every token). The
candidate products come from the recipe. A fit must reproduce *every*
sample exactly, one more than it needs at least; anything else is a RecordingError, never a
rounding matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

from vramplan.engines.torch.tape.expressions import compile_expressions, evaluate_all
from vramplan.errors import RecordingError

Dims = Mapping[str, int]

#: a square has two numbers to be found: a third sample is the proof
_LEAST_ROOTS = 3


class Fitter:
    """Finds expressions over fixed samples; equal size lists are looked up, not searched again."""

    def __init__(self, products: Sequence[str], pinned: frozenset[str] = frozenset()) -> None:
        self._pinned = pinned  # dimensions that have one value: nothing is to be found in them
        self.products = list(dict.fromkeys(products))
        self._code = compile_expressions(self.products) if self.products else None
        self._values: dict[tuple[tuple[str, int], ...], tuple[int, ...]] = {}
        self._found: dict[tuple[object, ...], str] = {}

    def fit(self, samples: Sequence[tuple[Dims, int]], what: str) -> str:
        """Return the expression that gives each sample's size at its dimensions."""
        distinct: dict[tuple[tuple[str, int], ...], int] = {}
        for dims, size in samples:
            key = tuple(sorted(dims.items()))
            if distinct.setdefault(key, size) != size:
                raise RecordingError(
                    f"{what}: two sizes, {distinct[key]} and {size}, at the same dimensions"
                )
        sizes = list(distinct.values())
        if len(sizes) < 3 and not self._pinned >= set(samples[0][0]):
            raise RecordingError(
                f"{what}: {len(sizes)} settings are too few to find a size and to prove it"
            )
        if all(size == sizes[0] for size in sizes):
            return str(sizes[0])
        cache_key = (tuple(distinct), tuple(sizes))
        if cache_key not in self._found:
            rows = [self._evaluate(key) for key in distinct]
            self._found[cache_key] = self._search(rows, sizes, what, list(distinct))
        return self._found[cache_key]

    def _evaluate(self, key: tuple[tuple[str, int], ...]) -> tuple[int, ...]:
        if self._code is None:
            return ()
        if key not in self._values:
            self._values[key] = evaluate_all(self._code, dict(key))
        return self._values[key]

    def _search(
        self,
        rows: list[tuple[int, ...]],
        sizes: list[int],
        what: str,
        keys: list[tuple[tuple[str, int], ...]],
    ) -> str:
        columns = [[row[i] for row in rows] for i in range(len(self.products))]
        for product, column in zip(self.products, columns, strict=True):
            scale = _single(column, sizes)
            if scale is not None:
                return _written(scale, product)
        ones = [1] * len(rows)
        pairs = [("1", ones), *zip(self.products, columns, strict=True)]
        for i, (first, a) in enumerate(pairs):
            for second, b in pairs[i + 1 :]:
                scales = _pair(a, b, sizes)
                if scales is not None:
                    return _sum([(scales[0], first), (scales[1], second)])
        for product, column in zip(self.products, columns, strict=True):
            square = _square(product, column, sizes)
            if square is not None:
                return square
        raise RecordingError(
            f"{what}: no expression gives {sizes[:4]} at {[dict(k) for k in keys[:4]]} "
            f"({len(sizes)} samples, products {self.products[:12]})"
        )


def _single(column: list[int], sizes: list[int]) -> int | None:
    if not column[0] or sizes[0] % column[0]:
        return None
    scale = sizes[0] // column[0]
    return scale if all(scale * c == s for c, s in zip(column, sizes, strict=True)) else None


def _pair(a: list[int], b: list[int], sizes: list[int]) -> tuple[int, int] | None:
    for j in range(1, len(sizes)):
        determinant = a[0] * b[j] - a[j] * b[0]
        if determinant:
            break
    else:
        return None
    x = Fraction(sizes[0] * b[j] - sizes[j] * b[0], determinant)
    y = Fraction(a[0] * sizes[j] - a[j] * sizes[0], determinant)
    if x.denominator != 1 or y.denominator != 1:
        return None
    p, q = x.numerator, y.numerator
    return (p, q) if all(p * u + q * v == s for u, v, s in zip(a, b, sizes, strict=True)) else None


def _square(product: str, column: list[int], sizes: list[int]) -> str | None:
    """Return the square of a length that is the product and a number, by which sizes go."""
    if not product.isidentifier() or len(set(column)) < _LEAST_ROOTS or min(sizes) <= 0:
        return None
    least, most = (column.index(find(column)) for find in (min, max))
    roots = math.sqrt(sizes[least]), math.sqrt(sizes[most])
    scale = round(((roots[1] - roots[0]) / (column[most] - column[least])) ** 2)
    if scale < 1:
        return None
    more = round(math.sqrt(sizes[least] / scale)) - column[least]
    if any(scale * (one + more) ** 2 != size for one, size in zip(column, sizes, strict=True)):
        return None
    length = f"({product}{more:+})" if more else product
    return _written(scale, f"{length}*{length}")


def _written(scale: int, product: str) -> str:
    if product == "1":
        return str(scale)
    return product if scale == 1 else f"{scale}*{product}"


def _sum(terms: list[tuple[int, str]]) -> str:
    written = "+".join(_written(scale, product) for scale, product in reversed(terms) if scale)
    return written.replace("+-", "-")
