"""One class's result, each made in a process of its own, and the file in which results are kept."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TextIO

#: what a class may take, in CPU seconds and bytes of data
_SECONDS, _MOST_BYTES = 120, 8 << 30
#: the longest reason that is kept
_LONGEST = 160
_UNSAID = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A class that is tried: which kind of model it is, what it is called, and where it is from."""

    kind: str
    name: str
    class_name: str
    place: str = ""  # a test's file that has its dummies
    lenders: tuple[str, ...] = ()  # those of others, where it has none
    is_compared: bool = True  # with the same run with real data


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one class. `stage`: recorded | built | none; `how` it was called.

    `fidelity` says how the recording is like the same run with real data (`real_run.compare`).
    """

    kind: str
    name: str
    class_name: str
    stage: str
    how: str = ""
    reason: str = ""
    fidelity: str = ""
    cpu_seconds: float = 0.0


class Report(Protocol):
    """Tells what is known of a class as it becomes known: `stage`, `how`, `reason`, `fidelity`."""

    def __call__(self, **known: str) -> None:
        """Tell it."""


#: does what is to be done
Try = Callable[[Subject, Report], None]


def try_apart(subject: Subject, work: Try) -> Result:
    """Return what becomes of a class in a process of its own, which has bounds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
        with os.fdopen(writing, "w") as pipe:
            _try_here(subject, work, pipe)
        os._exit(0)
    os.close(writing)
    known = {"stage": "none"}
    with os.fdopen(reading) as pipe:
        for line in pipe.read(_UNSAID).splitlines():
            known |= json.loads(line)
    _, status, used = os.wait4(child, 0)
    if status:
        ended = f"its process was ended by signal {status & 127}"
        known |= {"fidelity": ended} if known["stage"] == "recorded" else {"reason": ended}
    return Result(
        kind=subject.kind,
        name=subject.name,
        class_name=subject.class_name,
        cpu_seconds=round(used.ru_utime + used.ru_stime, 1),
        **{name: value[:_LONGEST] for name, value in known.items()},
    )


def _try_here(subject: Subject, work: Try, pipe: TextIO) -> None:
    from vramplan.engines.torch.record.saved.build import said

    def report(**known: str) -> None:
        pipe.write(json.dumps(known) + "\n")
        pipe.flush()

    try:
        work(subject, report)
    except Exception as problem:  # noqa: BLE001  # whatever a class does is its result
        report(reason=said(problem))
    except SystemExit as problem:
        report(reason=f"it ended the program: {problem}")


def kept(path: Path) -> Iterator[Result]:
    """Yield what an earlier run kept; the last line of a class counts."""
    if not path.is_file():
        return
    found: dict[tuple[str, str], Result] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        result = Result(**json.loads(line))
        found[result.kind, result.name] = result
    yield from found.values()


def keep(path: Path, result: Result) -> None:
    """Write a result behind those that are kept."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")
