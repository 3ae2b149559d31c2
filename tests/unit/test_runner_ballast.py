"""The process that holds a larger card's rest, over a card that is counted out here."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from vramplan.engines.torch.run import torch_ballast as ballast
from vramplan.runner.ballast import STEP_BYTES, fill

MIB = 1 << 20
GIB = 1 << 30


class Card:
    """Memory that is handed out in pages of 2 MiB, and of which the tables take a little."""

    def __init__(self, free: int, *, largest: int = 1 << 60) -> None:
        self.free = free
        self.largest = largest
        self.taken: list[int] = []

    def take(self, size: int) -> int:
        if size > self.largest or size > self.free:
            raise RuntimeError("out of memory")
        self.free -= -(-size // STEP_BYTES) * STEP_BYTES
        if len(self.taken) % 16 == 0:
            self.free -= STEP_BYTES
        self.taken.append(size)
        return size


@pytest.mark.parametrize("leave", [0, 5 * MIB, 7937 * MIB, 8 * GIB - 1, 40 * GIB, 80 * GIB])
def test_what_is_left_is_what_the_smaller_card_has(leave: int) -> None:
    card = Card(80 * GIB)
    fill(leave, lambda: card.free, card.take)
    assert card.free - leave < STEP_BYTES
    assert card.free >= leave - 2 * STEP_BYTES, "not less than the card has"
    assert all(size % STEP_BYTES == 0 for size in card.taken)


def test_a_card_in_pieces_is_filled_with_smaller_ones() -> None:
    card = Card(GIB, largest=24 * MIB)
    fill(100 * MIB, lambda: card.free, card.take)
    assert 0 <= card.free - 100 * MIB < STEP_BYTES


def test_each_piece_is_taken_as_it_is_not_from_segments_of_20_mib(monkeypatch, capfd) -> None:
    """torch's caching allocator must be off before the first piece is taken."""
    card, seen = Card(100 * MIB), []

    class Ended(Exception):
        pass

    class Channel:
        def say(self, kind: str, **said: object) -> None:
            print(json.dumps({"say": kind, **said}))

        def __init__(self) -> None:
            self.lines = [str(93 * MIB)]

        def hear(self) -> str:
            if not self.lines:
                raise Ended
            assert not seen, "the card is touched when it is told how much to leave"
            return self.lines.pop()

    def empty(size: int, **options: object) -> int:
        import os

        seen.append(os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING"))
        assert options["device"] == ("cuda", 0)
        return card.take(size)

    monkeypatch.setenv("PYTORCH_NO_CUDA_MEMORY_CACHING", "")
    monkeypatch.delenv("PYTORCH_NO_CUDA_MEMORY_CACHING")
    # not torch's memory: which functions are called, and under what
    stand_in = SimpleNamespace(empty=empty, uint8="uint8", device=lambda *words: words)
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    monkeypatch.setattr(ballast, "Channel", Channel)
    with pytest.raises(Ended):
        ballast.hold_rest(lambda: card.free)
    assert set(seen) == {"1"}
    said = json.loads(capfd.readouterr().out)
    assert said["say"] == "held"
    assert 93 * MIB - STEP_BYTES <= said["free_bytes"] < 95 * MIB
