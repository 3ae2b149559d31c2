"""The files of what cuDNN was asked on cards that were not there: which there are, and their heads.

A result that is known needs no more of them: what is in them, `witnessed_plans` reads. Beside one
file for each architecture there is one of the sizes at which all of them were asked.
"""

from __future__ import annotations

import json
import zlib
from functools import lru_cache
from pathlib import Path

from vramplan.errors import CatalogError
from vramplan.quick_typing import Any

FOLDER = "witnessed"
#: by layer, the sizes at which every architecture was asked about it in every dtype
ASKED_FILE = "asked.json"
SCHEMA_VERSION = 1

#: architectures that were asked about, and which one stands for another that was not
CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0", "12.0")
NEAREST = {"8.7": "8.6", "10.3": "10.0", "11.0": "10.0", "12.1": "12.0"}

_LARGEST_FILE = 4 << 20


def file_name(capability: str) -> str:
    """Return the name of an architecture's file."""
    return f"cudnn-{capability}.json"


@lru_cache(maxsize=16)
def checksum(profiles: Path, capability: str) -> int:
    """Return what tells what was witnessed on an architecture from every other; 0 for no file."""
    folder, told = profiles / FOLDER, 0
    try:
        for name in (ASKED_FILE, file_name(capability)):
            told = zlib.crc32((folder / name).read_bytes(), told)
    except OSError:  # whoever needs what is in it says so
        return 0
    return told


def read_file(profiles: Path, capability: str) -> dict[str, Any]:
    """Return what was witnessed on an architecture, as the file has it: its form is looked at.

    Raises CatalogError for a file that is not there, or not what the tool writes.
    """
    return read_named(profiles / FOLDER / file_name(capability))


def read_named(path: Path) -> dict[str, Any]:
    """Return the contents of one of the files. Raises CatalogError as `read_file` does."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_LARGEST_FILE))  # one that is larger is cut: no JSON
        if found["schema_version"] != SCHEMA_VERSION:
            raise not_ours(path, f"version {found['schema_version']!r}")
        versions = found.get("versions", {})
        found["versions"] = {name: str(versions[name]) for name in versions}
    except OSError as problem:
        raise CatalogError(f"{path}: cannot be read: {problem.strerror}") from None
    except (KeyError, TypeError, ValueError) as problem:
        raise not_ours(path, problem) from None
    return found  # type: ignore[no-any-return]  # what has such keys is a mapping


def not_ours(path: Path, problem: object) -> CatalogError:
    """Return the error for a file that is not what the tool writes."""
    return CatalogError(f"{path}: not what tools/cudnn_plans writes: {problem}")


@lru_cache(maxsize=16)
def versions_of(profiles: Path, capability: str) -> dict[str, str]:
    """Return the versions of what was asked, ``torch`` and ``cudnn``. Raises CatalogError."""
    path = profiles / FOLDER / file_name(capability)
    versions: dict[str, str] = read_file(profiles, capability)["versions"]
    if not {"torch", "cudnn"} <= versions.keys():
        raise not_ours(path, "it does not say the versions of torch and cuDNN")
    return versions
