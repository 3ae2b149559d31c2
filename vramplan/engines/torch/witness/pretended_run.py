"""Runs a program, unchanged, on cards that are not there, and tells what became of it.

It is a child with its own session; its processes find the cards by two variables and a folder on
Python's path. Whatever happens, an interrupt included, none of them outlives the run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

from vramplan.budget.cuda_context import context_band
from vramplan.catalog.pipelines import Entry
from vramplan.engines.torch.witness import (
    card_state,
    known_configs,
    program_record,
    torch_files,
)
from vramplan.engines.torch.witness.card_description import describe_card
from vramplan.engines.torch.witness.program_advice import advise
from vramplan.errors import MissingError, UsageError
from vramplan.measurement.tried import (
    Advice,
    CodePlace,
    FailedAllocation,
    Holder,
    Moment,
    Trial,
    TrialOutcome,
)
from vramplan.model import Card

STARTUP = Path(__file__).parent / "startup"
HOME_VARIABLE = "VRAMPLAN_PRETENDED_HOME"
#: "off" where a process is measured by other means, and nobody watches it from inside
WATCH_VARIABLE = "VRAMPLAN_PRETENDED_WATCH"
_HOME = Path(__file__).resolve().parents[4]

#: how long a program may tidy up after it was told to end
_SECONDS_TO_END = 5.0


def check_program(command: Sequence[str], cards: Sequence[Card]) -> None:
    """Raise UsageError where a program is not there, or one of the cards cannot be pretended.

    MissingError where none can be, on this machine.
    """
    torch_files.check_machine()
    found = shutil.which(command[0])
    if found is None:
        hint = "its path, or its name"
        if command[0].endswith(".py") and Path(command[0]).is_file():
            hint = f"vramplan run … -- python {command[0]}"
        raise UsageError(f"{command[0]}: there is no such program", hint=hint)
    for card in cards:
        describe_card(card)


def try_program(
    command: Sequence[str],
    card: Card,
    *,
    gpus: int = 1,
    output: IO[str] | None = None,
    known: Iterable[Entry] | None = None,
) -> Trial:
    """Run a program on so many of a card, and return what became of it.

    What it prints to stdout goes to `output`, where one is given. With `known`, entries of a
    catalogue, models that it loads are met with configs alone. Raises UsageError for what cannot be
    run or pretended, MissingError where its torch has no stand-ins.
    """
    described = describe_card(card)
    with TemporaryDirectory(prefix="vramplan-") as name:
        folder = Path(name)
        state = folder / "cards"
        card_state.write_state(state, [described] * gpus)
        environment = pretended_environment(state)
        environment.pop(card_state.WEIGHTS_VARIABLE, None)
        if known is not None:
            known_configs.write_known(folder, known)
            environment[card_state.WEIGHTS_VARIABLE] = "none"
        status = _run(command, environment, state, output)
        return _trial(card, status, state, program_record.read_records(folder))


def pretended_environment(state: Path, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables by which a process and all below it find the pretended cards."""
    found = dict(os.environ if base is None else base)
    path = found.get("PYTHONPATH")
    found["PYTHONPATH"] = os.pathsep.join([str(STARTUP), *([path] if path else [])])
    found[card_state.STATE_VARIABLE] = str(state)
    found[HOME_VARIABLE] = str(_HOME)
    return found


def _run(
    command: Sequence[str], environment: Mapping[str, str], state: Path, output: IO[str] | None
) -> int:
    """Run a program to its end, and end what it leaves behind; return its status."""
    try:
        process = subprocess.Popen(
            command, env=dict(environment), stdout=output, start_new_session=True
        )
    except OSError as problem:
        raise UsageError(f"{command[0]}: it cannot be run: {problem.strerror}") from None
    try:
        return process.wait()
    except KeyboardInterrupt:
        _signal_group(process.pid, signal.SIGINT)  # as the terminal would have
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
        raise
    finally:
        _signal_group(process.pid, signal.SIGTERM)
        _end_rest(process.pid, state)
        process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):  # nobody is left
        os.killpg(group, number)


def _end_rest(group: int, state: Path) -> None:
    """End what is left of a program: its session, and whoever else has memory on its cards."""
    end = time.monotonic() + _SECONDS_TO_END
    while _has_any(group) and time.monotonic() < end:
        time.sleep(0.02)
    _signal_group(group, signal.SIGKILL)
    for pid in card_state.read_holders(state):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _has_any(group: int) -> bool:
    """True where a group has a process that has not ended."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                return True
    return False


# ------------------------------------------------------------------------------------ the result
def _trial(card: Card, status: int, state: Path, records: list[dict[str, Any]]) -> Trial:
    problem = next((one for one in records if one.get("problem")), None)
    if problem is not None:
        raise MissingError(str(problem["problem"]), hint=problem.get("hint"))
    uses = card_state.read_use(state)
    errors = sum(int(one.get("errors", 0)) for one in records)
    failed = _last_failure(records)
    held = _most(records, "held", "bytes")
    reads = [one["value_reads"] for one in records if one.get("value_reads")]
    band = context_band(card)
    ended = next((one for one in records if one.get("uncaught")), {})
    end = ended.get("end") or {}
    return Trial(
        outcome=_outcome(status, records, errors),
        card=card.name,
        card_title=card.title,
        compute_capability=card.compute_capability,
        total_bytes=card.total_bytes - card.reserved_bytes,
        context_bytes=(band.low_bytes, band.expected_bytes, band.high_bytes),
        status=status,
        ended_by=str(ended["uncaught"]) if ended else None,
        ended_at=_place(end["where"]) if end.get("where") else None,
        ended_saying=str(end.get("saying") or ""),
        allocated_peak_bytes=_highest(records, "allocated"),
        reserved_peak_bytes=_highest(records, "reserved"),
        device_peak_bytes=max(use.peak_bytes for use in uses),
        errors=errors,
        retries=sum(peak["retries"] for one in records for peak in one.get("peaks", ())),
        failed=None if failed is None else _failure(failed),
        holders=() if held is None else tuple(_holders(held)),
        timeline=tuple(_timeline(records)),
        advice=()
        if failed is None
        else tuple(_advice(failed, card, _outcome(status, records, errors))),
        value_reads=sum(int(one["count"]) for one in reads),
        value_places=tuple(_place(place) for one in reads for place in one["places"]),
        refusals=tuple(card_state.read_notes(state)),
        notes=tuple(note for one in records for note in one.get("notes", ())),
        remarks=tuple(dict.fromkeys(told for one in records for told in one.get("remarks", ()))),
        versions=_versions(records),
    )


def _advice(failed: dict[str, Any], card: Card, outcome: TrialOutcome) -> list[Advice]:
    if outcome is not TrialOutcome.OUT_OF_MEMORY:
        return []
    room = card.total_bytes - card.reserved_bytes - context_band(card).expected_bytes
    return advise(failed, room)


def _timeline(records: list[dict[str, Any]]) -> Iterator[Moment]:
    """Yield the moments of the card that was fullest."""
    peak = _most(records, "peaks", "reserved")
    for record in records:
        if peak not in record.get("peaks", ()):
            continue
        for line in record.get("timelines", ()):
            if peak is not None and line["device"] == peak["device"]:
                yield from map(_moment, line["moments"])


def _moment(told: dict[str, Any]) -> Moment:
    return Moment(
        launches=int(told["launches"]),
        allocated_bytes=int(told["allocated_bytes"]),
        reserved_bytes=int(told["reserved_bytes"]),
        place=None if told["where"] is None else _place(told["where"]),
    )


def _outcome(status: int, records: list[dict[str, Any]], errors: int) -> TrialOutcome:
    """Return how a program ended.

    One that fails after an out-of-memory error, and not by another error, has ended by it: it may
    have caught the error, said so in its own words and gone.
    """
    if status == 0:
        return TrialOutcome.COMPLETES
    ends = {one["uncaught"] for one in records if one.get("uncaught")}
    if "OutOfMemoryError" in ends or (errors and not ends):
        return TrialOutcome.OUT_OF_MEMORY
    return TrialOutcome.FAILED


def _last_failure(records: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the last failure that reached the program, of the process that ended by one."""
    told = sorted(records, key=lambda one: one.get("uncaught") == "OutOfMemoryError")
    raised = [one for record in told for one in record.get("failures", ()) if one["is_raised"]]
    return raised[-1] if raised else None


def _most(records: list[dict[str, Any]], name: str, key: str) -> dict[str, Any] | None:
    found = [one for record in records for one in record.get(name, ())]
    return max(found, key=lambda one: int(one[key]), default=None)


def _highest(records: list[dict[str, Any]], name: str) -> int:
    found = _most(records, "peaks", name)
    return 0 if found is None else int(found[name])


def _failure(told: dict[str, Any]) -> FailedAllocation:
    return FailedAllocation(
        asked_bytes=int(told["asked_bytes"]),
        allocated_bytes=int(told["allocated_bytes"]),
        reserved_bytes=int(told["reserved_bytes"]),
        free_bytes=int(told["free_bytes"]),
        where=None if told["where"] is None else _place(told["where"]),
        inside=tuple(map(str, told["inside"])),
        operator=str(told.get("operator", "")),
        holders=tuple(_holders(told)),
    )


def _holders(told: dict[str, Any]) -> Iterator[Holder]:
    for one in told.get("modules", ()):
        yield Holder(size_bytes=int(one["bytes"]), name=str(one["name"]))
    for one in told.get("lines", ()):
        size = int(one["bytes"])
        if one["file"] is not None:
            yield Holder(size_bytes=size, place=_place(one))
        elif one["function"] == "no Python":
            yield Holder(size_bytes=size, name="autograd and others, outside of Python")
        else:
            yield Holder(size_bytes=size)


def _place(told: dict[str, Any]) -> CodePlace:
    count = told.get("count")
    return CodePlace(
        file=_short(str(told["file"])),
        line=int(told["line"] or 0),
        function=str(told["function"]),
        count=None if count is None else int(count),
    )


def _short(file: str) -> str:
    """Return a file's path, relative to where the command was given if it lies below."""
    here = f"{Path.cwd()}{os.sep}"
    return file.removeprefix(here)


def _versions(records: list[dict[str, Any]]) -> tuple[tuple[str, str], ...]:
    found = []
    for name in ("torch", "cudnn"):
        told = next((one[name] for one in records if one.get(name)), None)
        if told is not None:
            found.append((name, str(told)))
    return tuple(found)
