"""Replay results that are known: of this process, shipped beside the tapes, of earlier runs.

Those that ship are made for every torch pipeline with a tape, at the catalogue's default settings,
on every architecture that differs in kernels or scratch; those that do not differ share a result.
``python -m tools.results`` makes them anew; a test replays each of them again. A result that is
damaged, or not of this form, is none: what it would say is replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vramplan.catalog.shipped import profiles_dir
from vramplan.engines.torch.result import LeastLimits, Replayed
from vramplan.engines.torch.result_json import from_json, limits_from_json, limits_to_json, to_json
from vramplan.known_results import KnownResults, find_shipped, has_shipped

FILE = "results.json"

#: architectures the results are made for: one of each that differs in kernels or scratch
CAPABILITIES = ("6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")

#: what replays say; cards of one architecture share a result
REPLAYS = KnownResults[Replayed]("replay", to_json, from_json)
#: what the replays of a verdict say, of which no estimate was asked for
LIMITS = KnownResults[LeastLimits]("limits", limits_to_json, limits_from_json)


def find_result(tapes: Path, key: str) -> Replayed | None:
    """Return the shipped result for `key`, or None where it has to be replayed."""
    return find_shipped(tapes / FILE, key, from_json)


def was_replayed(tapes: Path, tape_key: str) -> bool:
    """True for a tape of ours, as it stood when the results that ship were made from it.

    Whoever can write among our files could change the code; the checksum is against accidents.
    """
    return tapes == profiles_dir() / "tapes" and has_shipped(tapes / FILE, f"{tape_key} ")


def remembered(
    tape: Path, key: str, replay: Callable[[], Replayed], proof: Callable[[], str]
) -> Replayed:
    """Return the result for `key` of a tape, known or replayed; see `KnownResults.get`."""
    return REPLAYS.get(key, replay, shipped=tape.parent / FILE, proof=proof)


def known_replay(tape: Path, key: str, proof: Callable[[], str]) -> Replayed | None:
    """Return the result for `key` of a tape where it is known."""
    return REPLAYS.find(key, shipped=tape.parent / FILE, proof=proof)


def forget() -> None:
    """Forget the results of this process."""
    REPLAYS.forget()
    LIMITS.forget()
