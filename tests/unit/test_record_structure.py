"""Streams become trees whose frees are relative addresses: iterations read alike."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from vramplan.engines.torch.record.assemble import Grammar, assemble
from vramplan.engines.torch.record.stream import (
    Alloc,
    Birth,
    Free,
    LoopBegin,
    LoopEnd,
    LoopNext,
    Stream,
)
from vramplan.engines.torch.record.structure import Address, At, FreeRun, Loop, build_tree
from vramplan.errors import RecordingError


class Script:
    """Writes a stream the way a device does."""

    def __init__(self, **dims: int) -> None:
        self.stream = Stream("script", dims)

    def take(self, size: int) -> Birth:
        birth = self.stream.new_birth()
        self.stream.events.append(Alloc(birth, size, "op"))
        return birth

    def free(self, *births: Birth) -> None:
        self.stream.events.extend(Free(birth) for birth in births)

    def begin(self, loop: str) -> None:
        self.stream.events.append(LoopBegin(loop))

    def next(self) -> None:
        self.stream.events.append(LoopNext())

    def end(self) -> None:
        self.stream.events.append(LoopEnd())


def frees(stream: Stream, *path: int) -> list[Address]:
    """Return the addresses of the last run of frees, in the iterations `path` of first loops."""
    place = build_tree(stream)
    for number in path:
        place = next(i for i in place.items if isinstance(i, Loop)).iterations[number]
    return [item for item in place.items if isinstance(item, FreeRun)][-1].addresses


def test_an_iteration_frees_what_the_one_before_it_left():
    script = Script()
    script.begin("step")
    previous = None
    for _ in range(3):
        script.next()
        birth = script.take(512)
        if previous is not None:
            script.free(previous)
        previous = birth
    script.end()
    assert frees(script.stream, 2) == [Address(1, ((0, ("back", 1)),), 0)]


def test_a_layer_frees_what_the_same_layer_of_the_pass_before_left():
    """A growing cache: each layer gives its own keys back, not those of the layer before it."""
    script = Script()
    caches: dict[int, Birth] = {}
    script.begin("token")
    for _ in range(2):
        script.next()
        script.begin("layer")
        for layer in range(3):
            script.next()
            grown = script.take(512)
            if layer in caches:
                script.free(caches[layer])
            caches[layer] = grown
        script.end()
    script.end()
    address = Address(2, ((0, ("back", 1)), (0, ("same", "layer"))), 0)
    assert [frees(script.stream, 1, layer) for layer in range(3)] == [[address]] * 3


def looped(count: int, *keep: int, batch: int = 1) -> Stream:
    """Return a loop of `count` iterations; iterations `keep` of it are freed behind it."""
    script = Script(count=count, batch=batch)
    script.begin("step")
    births = []
    for number in range(count):
        script.next()
        births.append(script.take(512))
        if number not in [k % count for k in keep]:
            script.free(births[-1])
    script.end()
    script.free(*(births[k] for k in sorted({k % count for k in keep})))
    return script.stream


def test_an_iteration_is_known_from_both_ends_of_its_loop():
    assert frees(looped(5, 0)) == [Address(0, ((0, At(0, -5)),), 0)]
    assert frees(looped(5, -1)) == [Address(0, ((0, At(4, -1)),), 0)]
    assert frees(looped(1, 0)) == [Address(0, ((0, "only"),), 0)]
    assert frees(looped(3, 0, 1, 2)) == [Address(0, ((0, "all"),), 0)]


def freed_behind_loops_of(counts: tuple[int, ...], keep: int) -> object:
    """Return how a tape of loops that ran so often frees iteration `keep` behind them."""
    streams = [looped(count, keep, batch=batch) for batch, count in enumerate(counts, 1)]
    (variant,) = assemble("script", streams, Grammar(counts={"step": "count"}, splits=()))
    return variant["code"][-1]


@pytest.mark.parametrize("counts", [(4, 5, 7), (4, 4, 4)])
def test_the_first_iteration_is_written_from_the_start(counts):
    """Also where all the loops ran equally often and it might be the last but three."""
    assert freed_behind_loops_of(counts, 0) == ["f", 0, [[0, 0]], 0]


@pytest.mark.parametrize("counts", [(4, 5, 7), (4, 4, 4), (5, 1, 6)])
def test_the_last_iteration_is_written_from_the_end(counts):
    assert freed_behind_loops_of(counts, -1) == ["f", 0, [[0, -1]], 0]


def test_an_iteration_that_is_neither_is_refused():
    """The fourth of seven, the fourth of eight from behind: no rule that a tape could write."""
    streams = [looped(count, keep, batch=1) for count, keep in ((7, 3), (8, 4), (9, 3))]
    with pytest.raises(RecordingError, match="the events differ between settings"):
        assemble("script", streams, Grammar(counts={"step": "count"}, splits=()))


def test_slots_of_one_place_are_freed_together_and_runs_of_them_are_ranges():
    def stream(n: int) -> Stream:
        script = Script(n=n)
        births = [script.take(512) for _ in range(8)]
        script.free(births[0], births[2], *births[4:8])
        return script.stream

    (variant,) = assemble("script", [stream(n) for n in (1, 2, 3)], Grammar(splits=()))
    assert variant["code"] == [0] * 8 + [-1, -3, ["f", 0, [], [4, 7]]]
    assert variant["outputs"] == [1, 3]
