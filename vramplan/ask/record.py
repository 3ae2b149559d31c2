"""The tape of a pipeline: recorded and proved, or held against the one that is there."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from vramplan.ask.targets import find_target, home_of, open_pipelines
from vramplan.catalog import profiles_dir
from vramplan.engines.door import engine_of
from vramplan.errors import TapeError, UsageError
from vramplan.quick_dataclass import dataclass, replace
from vramplan.quick_typing import TYPE_CHECKING
from vramplan.runner.tools import Hear, unheard

if TYPE_CHECKING:
    from vramplan.budget.drift import Drift
    from vramplan.catalog import Catalog
    from vramplan.model import Pipeline


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The text of a tape, and the file that is its place."""

    path: Path
    text: str
    pipeline: Pipeline

    @property
    def data(self) -> bytes:
        """What the file holds: compressed where its name says so, the same each time."""
        plain = self.text.encode()
        return gzip.compress(plain, 9, mtime=0) if self.path.suffix == ".gz" else plain

    def _known(self) -> str:
        data = self.path.read_bytes()
        return (gzip.decompress(data) if self.path.suffix == ".gz" else data).decode()

    def difference(self) -> str | None:
        """Return what the file has else than this text, in words; None where it is the same.

        Raises UsageError for a file that cannot be read.
        """
        try:
            known = self._known()
        except FileNotFoundError:
            return f"{self.path}: no such tape"
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as problem:
            raise UsageError(f"{self.path}: cannot be read: {problem}") from problem
        if known != self.text:
            return f"{self.path}: not what is recorded now; make it anew with vramplan record"
        return None

    def drift(self) -> tuple[Drift, ...]:
        """Return what this text changes of the figures of the tape in the file.

        Nothing where there is no file, or one of them is no whole tape.
        """
        engine = engine_of(self.pipeline)
        try:
            return tuple(engine.tape_drift(self.pipeline, self._known(), self.text))
        except (FileNotFoundError, TapeError):
            return ()


def record(
    target: str,
    catalog: Catalog,
    *,
    output: str | None = None,
    dtype: str | None = None,
    is_proved: bool = True,
    progress: Hear = unheard,
) -> Recorded:
    """Return the tape of a TARGET as it is recorded now, for its place or for the file `output`.

    With a `dtype` it is that one's tape. Unless `is_proved` is False it has been held against fresh
    runs. Raises UsageError for a pipeline that uses no tape, or none for that dtype alone, or whose
    place is not ours to write to, MissingError without the libraries, RecordingError where what was
    recorded does not hold.
    """
    (pipeline,) = open_pipelines([find_target(target, catalog)], catalog)
    engine = engine_of(pipeline)
    name = engine.tape_name(pipeline, dtype)
    if dtype is not None:
        pipeline = replace(pipeline, defaults={**pipeline.defaults, "dtype": dtype})
    path = Path(output) if output is not None else _place(pipeline, name)
    text = engine.make_tape(pipeline, progress, is_proved=is_proved)
    return Recorded(path=path, text=text, pipeline=pipeline)


def _place(pipeline: Pipeline, name: str) -> Path:
    """Return where a tape belongs; raises UsageError for one that ships in an installation."""
    home = home_of(pipeline)
    if home == profiles_dir() and home.name == "_profiles":
        hint = "say where with -o FILE; --catalog DIR finds it in DIR/tapes"
        raise UsageError(f"{pipeline.name}: its tape is part of the installed vramplan", hint=hint)
    packed = home / "tapes" / f"{name}.json.gz"
    return packed if packed.is_file() else home / "tapes" / f"{name}.json"
