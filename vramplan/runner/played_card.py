"""A smaller card, played by a larger one whose rest another process holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from vramplan.errors import MeasurementError, MissingError
from vramplan.measurement.reading import DeviceMemory, ProcessMemory
from vramplan.measurement.run import Emulation
from vramplan.model import Card
from vramplan.probe.protocol import Probe
from vramplan.runner.channel import Child
from vramplan.units import format_size

#: torch's import and a CUDA context, on a slow disk
START_SECONDS = 180.0


def leave_bytes(card: Card, probe: Probe) -> int:
    """Return what `card` has free with nothing on it; the real card must have more than that.

    Raises MissingError where it has not, and says who holds the rest.
    """
    leave = card.total_bytes - card.reserved_bytes
    memory = probe.read().device
    assert memory is not None
    if memory.free_bytes < leave:
        raise MissingError(
            f"{card.title} has {format_size(leave, up=False)} free and this card now "
            f"{format_size(memory.free_bytes, up=False)}: it cannot play it",
            hint=holders(memory) or "name a smaller card with --as-card",
        )
    return leave


def holders(memory: DeviceMemory) -> str:
    """Return who holds memory on a card, the largest first, or nothing where nobody is listed."""
    named = sorted(memory.processes or (), key=lambda one: -(one.used_bytes or 0))[:5]
    return "it is held by " + ", ".join(map(_holder, named)) if named else ""


def _holder(one: ProcessMemory) -> str:
    size = "an unknown size" if one.used_bytes is None else format_size(one.used_bytes)
    return f"{one.name} ({one.pid}): {size}"


def fill(ballast: Child, leave: int, seconds: float = START_SECONDS) -> int:
    """Have a process fill the card up to `leave` bytes; return what is free then.

    Raises MeasurementError where it does not.
    """
    ballast.send(str(leave))
    try:
        said = ballast.hear(seconds)
    except TimeoutError:
        raise MeasurementError("the process that fills the card does not answer") from None
    if said is None or said["say"] != "held":
        raise MeasurementError(f"the process that fills the card {ballast.how_it_ended()}")
    return int(said["free_bytes"])


@contextmanager
def playing(
    card: Card, probe: Probe, command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[Emulation]:
    """Hold the rest of a larger card, through a process that `command` starts, while `card` plays.

    Raises MissingError for a card that is not larger, MeasurementError where it cannot be filled.
    """
    leave = leave_bytes(card, probe)
    try:
        ballast = Child(command, environment)
    except OSError as problem:
        raise MeasurementError(f"no process can be started: {problem.strerror}") from None
    try:
        yield Emulation(
            card=card.name,
            free_bytes=fill(ballast, leave),
            compute_capability=card.compute_capability,
        )
    finally:
        ballast.stop()
