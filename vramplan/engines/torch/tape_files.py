"""Where the tape of a pipeline lies, and what is in it."""

from __future__ import annotations

import zlib
from functools import lru_cache
from pathlib import Path

from vramplan.engines.torch.pipeline import TorchPipeline
from vramplan.engines.torch.shipped_results import was_replayed
from vramplan.errors import TapeError
from vramplan.opened_file import open_file
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.torch.tape.contents import Tape

#: a tape's file: as it is made, or compressed as those are that ship
TAPE_SUFFIXES = (".json", ".json.gz")

#: part of every key: raise it when the replay or a model behind it changes its figures
MODEL_VERSION = 8


def find_tape(pipeline: TorchPipeline) -> Path:
    """Return the path of a pipeline's tape; raises TapeError where none of its folders has it."""
    if pipeline.counted is not None:
        hint = "check, estimate and sweep answer with what is counted"
        raise TapeError(f"{pipeline.name}: its architecture has no tape", hint=hint)
    found = look_for_tape(pipeline)
    if found is not None:
        return found
    name, folders = pipeline.tape or pipeline.name, pipeline.folders
    raise TapeError(
        f"{pipeline.name}: no tape {name}.json in {', '.join(str(f / 'tapes') for f in folders)}",
        hint=f"record it with: vramplan record {pipeline.name}",
    )


def look_for_tape(pipeline: TorchPipeline) -> Path | None:
    """Return the path of a pipeline's tape, or None where none of its folders has it."""
    name = pipeline.tape or pipeline.name
    beside = Path(pipeline.path).parent
    for folder in (*(folder / "tapes" for folder in pipeline.folders), beside):
        for suffix in TAPE_SUFFIXES:
            path = folder / f"{name}{suffix}"
            if path.is_file():
                return path
    return None


def open_tape(path: Path) -> Tape:
    """Return the tape in `path`, read once for as long as the file stays as it is."""
    state = path.stat()
    return _open_tape(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _open_tape(path: Path, _size: int, _changed: int) -> Tape:
    # a shipped result needs no tape
    from vramplan.engines.torch.tape.checked import read_checked_tape
    from vramplan.engines.torch.tape.format import read_tape

    return read_checked_tape(path) if was_replayed(path.parent, tape_key(path)) else read_tape(path)


def tape_proof(path: Path) -> str:
    """Return what tells a tape from every other where its key, a checksum, might not.

    Ours are told by the key; another may have been made to have the key of one of them.
    """
    if was_replayed(path.parent, tape_key(path)):
        return "ours"
    from hashlib import sha256

    with open_file(path) as file:
        return sha256(file.read()).hexdigest()


@lru_cache(maxsize=32)
def _crc32(path: Path, _size: int, _changed: int) -> int:
    """Return the checksum of a tape; a check asks for it once an architecture."""
    with open_file(path) as file:
        return zlib.crc32(file.read())


def tape_key(path: Path) -> str:
    """Return how a tape's keys begin: our version, its name and its checksum."""
    state = path.stat()
    return f"v{MODEL_VERSION} {path.name} {_crc32(path, state.st_size, state.st_mtime_ns):08x}"
