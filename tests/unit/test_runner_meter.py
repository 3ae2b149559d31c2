"""When a phase has ended it is told, and nothing is measured until whoever heard of it returns."""

from __future__ import annotations

import time

from vramplan.engines.torch.run.meter import Meter
from vramplan.measurement.reading import DeviceMemory, Reading
from vramplan.measurement.run import Stretch


class Card:
    def __init__(self) -> None:
        self.looks = 0

    def read(self) -> Reading:
        self.looks += 1
        memory = DeviceMemory(total_bytes=9, used_bytes=1, free_bytes=8, reserved_bytes=None)
        return Reading(at_s=time.monotonic(), device=memory)


class Listener:
    """Hears stretches and the ends of phases; looking at the card takes it a while."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.heard: list[tuple[str, ...]] = []
        self.windows: list[tuple[float, float]] = []
        self.pauses: list[tuple[float, float]] = []

    def stretch(self, one: Stretch, windows: list[tuple[float, float]]) -> None:
        self.heard.append(("stretch", one.turn, one.phase, one.component))
        self.windows += windows

    def phase(self, *place: str) -> None:
        self.heard.append(("phase", *place))

    def end(self, *place: str) -> None:
        began, looks = time.monotonic(), self.card.looks
        time.sleep(0.02)
        assert self.card.looks == looks
        self.pauses.append((began, time.monotonic()))
        self.heard.append(("end", *place))


def a_meter() -> tuple[Meter, Listener]:
    card = Card()
    listener = Listener(card)
    meter = Meter(
        counters=None,
        device=card,
        own_share=lambda memory: memory.used_bytes,
        tell=listener.stretch,
        tell_phase=listener.phase,
        tell_end=listener.end,
    )
    return meter, listener


def test_each_loaded_component_and_each_phase_of_a_turn_ends_once() -> None:
    meter, listener = a_meter()
    meter.begin("load", "unet")
    meter.begin("load", "vae")
    meter.end()
    meter.turn = "cold"
    for component in ("pipeline", "unet", "pipeline", "unet"):
        meter.begin("denoise", component)
    meter.begin("decode_image", "vae")
    meter.end()
    meter.end()
    assert listener.heard == [
        ("phase", "load", "load", "unet"),
        ("stretch", "load", "load", "unet"),
        ("end", "load", "load", "unet"),
        ("phase", "load", "load", "vae"),
        ("stretch", "load", "load", "vae"),
        ("end", "load", "load", "vae"),
        ("phase", "cold", "denoise", "pipeline"),
        ("stretch", "cold", "denoise", "pipeline"),
        ("stretch", "cold", "denoise", "unet"),
        ("end", "cold", "denoise", ""),
        ("phase", "cold", "decode_image", "vae"),
        ("stretch", "cold", "decode_image", "vae"),
        ("end", "cold", "decode_image", ""),
    ]


def test_what_is_looked_at_in_between_is_in_no_stretch() -> None:
    meter, listener = a_meter()
    for phase in ("encode", "denoise", "decode"):
        meter.begin(phase, "pipeline")
    meter.end()
    assert len(listener.pauses) == len(listener.windows) == 3
    for began, ended in listener.windows:
        assert all(ended <= first or last <= began for first, last in listener.pauses)
