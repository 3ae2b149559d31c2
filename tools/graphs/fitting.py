"""Numbers of many graphs as one expression: sums of products of named quantities, exact in all."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from vramplan.engines.ggml.graph.tape import Size

_MOST_BOTTOM = 128
_MOST_TOP = 1 << 24

#: a product of quantities, and its value in each instance
_Products = tuple[list[tuple[str, ...]], "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"]


class Fitter:
    """Finds expressions over instances: in each of them every quantity has a value.

    Quantities are in the order in which they are preferred. An expression is exact in all
    instances: floats only choose what whole numbers then prove.
    """

    def __init__(self, instances: Sequence[Mapping[str, int]], preferred: Sequence[str]) -> None:
        self._instances = instances
        there = [name for name in preferred if all(name in one for one in instances)]
        seen: dict[tuple[int, ...], str] = {}
        for name in there:
            column = tuple(one[name] for one in instances)
            if len(set(column)) > 1 and min(column) > 0:
                seen.setdefault(column, name)
        self._columns = {name: column for column, name in seen.items()}
        self._floats = {
            name: np.array(column, dtype=np.float64) for name, column in self._columns.items()
        }
        self._known: dict[tuple[int, ...], tuple[tuple[Fraction, tuple[str, ...]], ...] | None] = {}
        self._made: dict[int, _Products] = {}

    def fit(self, values: Sequence[int]) -> tuple[tuple[Fraction, tuple[str, ...]], ...] | None:
        """Return terms, each a factor and names, that make `values`; None where there are none."""
        key = tuple(values)
        if key not in self._known:
            self._known[key] = self._fit(key)
        return self._known[key]

    def single(self, values: Sequence[int]) -> tuple[tuple[Fraction, tuple[str, ...]], ...] | None:
        """Return one product, of at most two quantities, that makes `values`; None without."""
        key = tuple(values)
        if len(set(key)) == 1:
            return ((Fraction(key[0]), ()),)
        wanted = np.array(key, dtype=np.float64)
        return self._single(key, wanted, 1) or self._single(key, wanted, 2)

    def _fit(self, values: tuple[int, ...]) -> tuple[tuple[Fraction, tuple[str, ...]], ...] | None:
        if len(set(values)) == 1:
            return ((Fraction(values[0]), ()),)
        wanted = np.array(values, dtype=np.float64)
        for degree in (1, 2, 3, 4, 5):
            found = self._single(values, wanted, degree)
            if found is not None:
                return found
        for degree in (1, 2, 3):
            found = self._pair(values, wanted, degree)
            if found is not None:
                return found
        return self._several(values)

    def _products(self, degree: int) -> _Products:
        """Return the products of `degree` quantities; of many only those of the likely ones."""
        if degree not in self._made:
            names = list(self._columns)
            if degree >= 4:
                names = names[:16]
            elif degree == 3:
                names = names[:40]
            chosen = list(itertools.combinations_with_replacement(names, degree))
            index = {name: at for at, name in enumerate(names)}
            matrix = np.array([self._floats[name] for name in names]) if names else np.zeros((0, 1))
            places = np.array([[index[name] for name in one] for one in chosen], dtype=np.intp)
            made = (
                np.prod(matrix[places], axis=1) if chosen else np.zeros((0, len(self._instances)))
            )
            self._made[degree] = chosen, made
        return self._made[degree]

    def _single(
        self, values: tuple[int, ...], wanted: np.ndarray, degree: int
    ) -> tuple[tuple[Fraction, tuple[str, ...]], ...] | None:
        chosen, made = self._products(degree)
        if not len(chosen) or not all(values):
            return None
        ratios = wanted[None, :] / made
        spread = np.abs(ratios / ratios[:, :1] - 1).max(axis=1)
        best: tuple[int, int, tuple[tuple[Fraction, tuple[str, ...]], ...]] | None = None
        for at in np.nonzero(spread < 1e-9)[0]:
            names = chosen[at]
            factor = Fraction(values[0], self._exact(names, 0))
            if factor.denominator > _MOST_BOTTOM or factor.numerator > _MOST_TOP:
                continue
            if all(
                factor * self._exact(names, number) == value for number, value in enumerate(values)
            ):
                cost = factor.denominator + (factor.numerator not in {1, 2, 4, 32}) * 8
                rank = sum(list(self._columns).index(name) for name in names)
                if best is None or (cost, rank) < best[:2]:
                    best = cost, rank, ((factor, names),)
        return best[2] if best else None

    def _exact(self, names: tuple[str, ...], instance: int) -> int:
        found = 1
        for name in names:
            found *= self._columns[name][instance]
        return found

    def _pair(
        self, values: tuple[int, ...], wanted: np.ndarray, degree: int
    ) -> tuple[tuple[Fraction, tuple[str, ...]], ...] | None:
        ones = np.ones((1, len(values)))
        chosen: list[tuple[str, ...]] = [()]
        stacks = [ones]
        for one in range(1, degree + 1):
            names, made = self._products(one)
            if one == 3:
                names, made = names[:4000], made[:4000]
            chosen += names
            stacks.append(made)
        matrix = np.concatenate(stacks)
        last = len(values) - 1
        first_at, second_at = 0, int(np.argmax(np.abs(wanted - wanted[0]))) or last
        most = len(chosen) if degree < 3 else 200
        for left in range(most):
            a = matrix[left]
            b = matrix[left + 1 :]
            if not len(b):
                break
            bottom = a[first_at] * b[:, second_at] - a[second_at] * b[:, first_at]
            with np.errstate(divide="ignore", invalid="ignore"):
                x = wanted[first_at] * b[:, second_at] - wanted[second_at] * b[:, first_at]
                x = x / bottom
                y = (a[first_at] * wanted[second_at] - a[second_at] * wanted[first_at]) / bottom
                error = np.abs(x[:, None] * a[None, :] + y[:, None] * b - wanted[None, :])
                good = np.nonzero((error / np.maximum(wanted, 1)).max(axis=1) < 1e-9)[0]
            for at in good[:8]:
                found = self._prove(values, (chosen[left], chosen[left + 1 + at]),
                                    (float(x[at]), float(y[at])))  # fmt: skip
                if found is not None:
                    return found
        return None

    def _several(
        self, values: tuple[int, ...]
    ) -> tuple[tuple[Fraction, tuple[str, ...]], ...] | None:
        """Return a sum of up to four single quantities with small factors."""
        names, made = self._products(1)
        wanted = np.array(values, dtype=np.float64)
        names, made = names[:28], made[:28]
        for count in (3,):
            if len(values) <= count + 1:
                return None
            for ones in itertools.combinations(range(len(names) + 1), count):
                rows = [made[one - 1] if one else np.ones(len(values)) for one in ones]
                matrix = np.array(rows).T
                square = matrix[: count + 2]
                factors, _, rank, _ = np.linalg.lstsq(square, wanted[: count + 2], rcond=None)
                if rank < count:
                    continue
                if np.abs(matrix @ factors - wanted).max() > 1e-6 * wanted.max():
                    continue
                found = self._prove(
                    values,
                    tuple(names[one - 1] if one else () for one in ones),
                    tuple(float(one) for one in factors),
                )
                if found is not None:
                    return found
        return None

    def _prove(
        self, values: tuple[int, ...], products: tuple[tuple[str, ...], ...],
        factors: tuple[float, ...],
    ) -> tuple[tuple[Fraction, tuple[str, ...]], ...] | None:  # fmt: skip
        exact = [Fraction(one).limit_denominator(_MOST_BOTTOM) for one in factors]
        if any(not one or abs(one.numerator) > _MOST_TOP for one in exact):
            return None
        for number, value in enumerate(values):
            total = sum(
                factor * self._exact(names, number)
                for factor, names in zip(exact, products, strict=True)
            )
            if total != value:
                return None
        return tuple(zip(exact, products, strict=True))


def as_size(terms: tuple[tuple[Fraction, tuple[str, ...]], ...], names: list[str]) -> Size:
    """Return terms with the places of their names in `names`, which grows by new ones."""
    found = []
    for factor, product in terms:
        for name in product:
            if name not in names:
                names.append(name)
        found.append(
            (factor.numerator, factor.denominator, tuple(names.index(name) for name in product))
        )
    return tuple(found)
