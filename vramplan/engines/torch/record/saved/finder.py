"""Runs of an entry → the code of its routines: what differs between settings, loops, and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vramplan.engines.torch.record.assemble import Grammar, assemble
from vramplan.engines.torch.record.saved.constant_tape import TOKENS
from vramplan.engines.torch.record.saved.size_search import (
    Products,
    SizeSearch,
    TooFewSettingsError,
)
from vramplan.engines.torch.record.saved.unmarked_loops import WAYS, find_repeats
from vramplan.engines.torch.record.stream import Alloc, Birth, Call, Event, Free, Stream
from vramplan.engines.torch.tape.expressions import derive, evaluate
from vramplan.errors import RecordingError

#: the routine that is a whole run
MAIN = "main"


class GrowingResultError(RecordingError):
    """A routine leaves more of its results the larger the batch is: a list of images."""


class Finder:
    """Finds the code of routines: the loops that differ, and sizes."""

    def __init__(
        self,
        inner: Sequence[str],
        outer: Sequence[str],
        patches: Iterable[int],
        sides: Sequence[str] = (),
        strides: Iterable[int] = (),
    ) -> None:
        self._inner, self._outer = tuple(inner), tuple(outer)  # dimensions of routines, of the run
        self._patches = tuple(patches)
        self._strides = tuple(strides)
        self._sides = tuple(sides)  # conditions on a run that lead to code of their own
        self.counts: dict[str, str] = {}  # how often the loops run that are marked
        self._searches: dict[tuple[str, ...], tuple[Products, SizeSearch]] = {}

    def assembled(self, routine: str, streams: list[Stream]) -> list[dict[str, object]]:
        """Return the variants of a routine under one set of words."""
        if routine != MAIN or not self._sides:
            return self._by_batch(routine, streams)
        return [
            _under(f"({side})", variant)
            for side in self._sides
            if (those := [one for one in streams if evaluate(side, one.dims)])
            for variant in self._by_batch(routine, those)
        ]

    def _by_batch(self, routine: str, streams: list[Stream]) -> list[dict[str, object]]:
        """Return the variants, with code of its own for a batch of one where that differs."""
        splits = ("n==1",) if "n" in self._inner else ()
        try:
            return self._assembled(routine, streams, splits)
        except GrowingResultError:
            raise
        except RecordingError:
            if not splits:
                return self._by_area(routine, streams)
        return [
            _under(condition, variant)
            for condition, is_one in (("(n==1)", True), ("(not (n==1))", False))
            if (those := [one for one in streams if (one.dims["n"] == 1) == is_one])
            for variant in self._by_area(routine, those)
        ]

    def _by_area(self, routine: str, streams: list[Stream]) -> list[dict[str, object]]:
        """Return the variants, with code of its own for areas of whole blocks.

        Where an image's tokens fill no whole block, some code adds what lacks.
        """
        try:
            return self._assembled(routine, streams, ())
        except RecordingError:
            blocks = _blocks(streams) if {"h", "w"} <= {*self._inner} else []
            if not blocks:
                raise
        # sizes tell which block it is, where they depend on it
        found: list[list[list[dict[str, object]]]] = []
        problem = RecordingError(f"{routine}: no block of {blocks} pixels explains its sizes")
        for block in blocks:
            try:
                found.append(self._in_blocks(routine, streams, block))
            except TooFewSettingsError as too_few:
                problem = too_few
            except RecordingError:
                continue
        if not found:
            raise problem
        # what is between the least and the largest that do is in neither
        known = found[0] if len(found) == 1 else [found[-1][0], found[0][1]]
        return [variant for variants in known for variant in variants]

    def _in_blocks(
        self, routine: str, streams: list[Stream], block: int
    ) -> list[list[dict[str, object]]]:
        """Return the variants for areas of whole blocks, and for others.

        Raises RecordingError where sizes do not fit, or too few settings tell.
        """
        found = []
        for condition, is_whole in ((f"(h*w%{block}==0)", True), (f"(h*w%{block}>0)", False)):
            those = [one for one in streams if (_area(one) % block == 0) == is_whole]
            if len({(one.dims["h"], one.dims["w"]) for one in those}) < 2:
                raise TooFewSettingsError(f"{routine}: too few areas in blocks of {block} pixels")
            variants = self._assembled(routine, those, (), (block,))
            found.append([_under(condition, variant) for variant in variants])
        return found

    def _assembled(
        self,
        routine: str,
        streams: list[Stream],
        splits: tuple[str, ...],
        blocks: tuple[int, ...] = (),
    ) -> list[dict[str, object]]:
        if routine != MAIN and "n" in self._inner and len(set(map(_left, streams))) > 1:
            raise GrowingResultError(f"{routine}: it leaves more of its results in a larger batch")
        first: RecordingError | None = None
        for way in WAYS:
            copied = [_copied(stream) for stream in streams]
            try:
                looped = find_repeats(copied, way)
                return self._folded(routine, copied, looped, splits, blocks)
            except RecordingError as problem:
                first = first or problem
        assert first is not None
        raise first

    def _folded(
        self,
        routine: str,
        streams: list[Stream],
        looped: Mapping[str, Sequence[int]],
        splits: tuple[str, ...],
        blocks: tuple[int, ...],
    ) -> list[dict[str, object]]:
        """Return the variants of a routine whose loops are marked."""
        names = self._outer if routine == MAIN else self._inner
        products, search = self._search(names, tuple(looped), blocks)
        settings = {tuple(one.dims[name] for name in names if name in one.dims) for one in streams}
        search.has_several = len(settings) > 1
        counts = dict(self.counts) if routine == MAIN else {}
        for name, found in looped.items():
            full = [derive(products.derived, one.dims) for one in streams]
            samples = [
                ({**dict.fromkeys(looped, 0), TOKENS: 0, **dims}, count)
                for dims, count in zip(full, found, strict=True)
            ]
            counts[name] = search.fit(samples, f"{routine}: how often a loop runs")
        grammar = Grammar(
            derived=products.derived, counts=counts, splits=splits, fixed=frozenset(self.counts)
        )
        variants = assemble(routine, streams, grammar, search)
        left = _left(streams[0])
        if routine != MAIN and any(len(one["outputs"]) != left for one in variants):  # type: ignore[arg-type]  # a list
            # what several do alike was taken for a loop, and its caller gets what is made inside
            raise RecordingError(f"{routine}: what it leaves is made in a loop")
        return variants

    def _search(
        self, names: tuple[str, ...], indices: tuple[str, ...], blocks: tuple[int, ...]
    ) -> tuple[Products, SizeSearch]:
        decide = (*names, *indices)
        key = (*decide, *map(str, blocks))
        if key not in self._searches:
            products = Products(names, self._patches, indices, blocks, self._strides)
            self._searches[key] = products, SizeSearch(products, decide)
        return self._searches[key]


def _blocks(streams: Sequence[Stream]) -> list[int]:
    """Return the powers of two, in pixels, whose multiples are alike, as are the others."""
    kinds = [
        tuple(_kind(event) for event in stream.events if not isinstance(event, Free))
        for stream in streams
    ]
    found: list[int] = []
    for block in (1 << bits for bits in range(1, 31)):
        whole = {kind for kind, one in zip(kinds, streams, strict=True) if not _area(one) % block}
        others = {kind for kind, one in zip(kinds, streams, strict=True) if _area(one) % block}
        if len(whole) == len(others) == 1 and whole != others:
            found.append(block)
    return found


def _area(stream: Stream) -> int:
    return stream.dims["h"] * stream.dims["w"]


def _kind(event: Event) -> tuple[str, str | None]:
    return type(event).__name__, event.operator if isinstance(event, Alloc) else None


def _copied(stream: Stream) -> Stream:
    """Return a stream that loops may be marked in, with births of its own."""
    twin = Stream(stream.routine, stream.dims, slots=stream.slots)
    births: dict[Birth, Birth] = {}

    def ours(birth: Birth) -> Birth:
        return births.setdefault(birth, Birth(twin, birth.slot))

    for event in stream.events:
        if isinstance(event, Alloc):
            twin.events.append(Alloc(ours(event.birth), event.size_bytes, event.operator))
        elif isinstance(event, Free):
            twin.events.append(Free(ours(event.birth)))
        elif isinstance(event, Call):
            twin.events.append(Call(event.routine, event.dims, list(map(ours, event.outputs))))
        else:
            twin.events.append(event)
    return twin


def _under(condition: str, variant: dict[str, object]) -> dict[str, object]:
    """Return a variant that holds under one more condition."""
    known = variant["if"]
    return {**variant, "if": condition if known is None else f"{condition} and {known}"}


def _left(stream: Stream) -> int:
    """Return how many storages outlive a routine."""
    born = {
        id(birth)
        for event in stream.events
        for birth in (
            event.outputs
            if isinstance(event, Call)
            else [event.birth]
            if isinstance(event, Alloc)
            else []
        )
    }
    return len(born - {id(event.birth) for event in stream.events if isinstance(event, Free)})
