"""GGUF files on the Hugging Face hub: their headers, by HTTP ranges or from the local cache.

Which file a quantisation names, and which projector comes with it, is as llama.cpp's ``-hf`` has
it. Source: ggml-org/llama.cpp, common/download.cpp (find_best_model, find_best_sibling).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from vramplan.errors import SourceError
from vramplan.quick_dataclass import dataclass
from vramplan.sources.gguf import LONGEST_HEADER, join_parts, part_names, read_gguf, read_header
from vramplan.sources.gguf_header import GgufFile
from vramplan.sources.hub_address import PREFIX, REPOSITORY
from vramplan.sources.hub_web import Hub, Ranges, ask_hub, is_offline, list_files, snapshots

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+/ -]{0,299}\.gguf", re.IGNORECASE)
#: what llama.cpp's users name a file by: Q4_K_M, IQ4_XS, UD-Q4_K_XL, F16, BF16
_QUANTISATION = re.compile(r"(?!.*\.gguf$)[A-Za-z]{1,4}[A-Za-z0-9_-]{1,30}", re.IGNORECASE)
_LATER_PART = re.compile(r"-(?!00001)[0-9]{5}-of-[0-9]{5}\.gguf$", re.IGNORECASE)
#: files beside models, by what llama.cpp knows them by
_BESIDE = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
#: what is taken of a repository of which no file was named
_USUAL = ("Q4_K_M", "Q8_0")
_TAG = re.compile(r"[-.]([A-Z0-9_]+?)(?:-[0-9]{5}-of-[0-9]{5})?\.gguf$", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,4}")
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OnHub:
    """A model's header, and that of the projector in its repository, with their files."""

    file: str
    header: GgufFile
    projector_file: str = ""
    projector: GgufFile | None = None


def find_on_hub(
    text: str, environment: Mapping[str, str] | None = None, *, wants_projector: bool = True
) -> OnHub:
    """Return the model that ``ORG/NAME``, with a file or a quantisation behind it, stands for.

    The projector is that in the model's folder or above it, the nearest in folders and then in the
    bits of its type; that of the local cache is enough for a file that is there. Raises SourceError
    as `read_from_hub`.
    """
    environ = os.environ if environment is None else environment
    repository, _, file = text.partition(":")
    listed: list[str] | None = None
    if REPOSITORY.fullmatch(repository) and (not file or _QUANTISATION.fullmatch(file)):
        listed = _there(repository, environ)
        file = _quantised(repository, file, listed) if file else _usual(repository, listed)
    header = read_from_hub(f"{repository}:{file}" if file else text, environ)
    if not wants_projector:
        return OnHub(file=file, header=header)
    projector = _projector_of(file, listed or _cached_names(repository, environ))
    if projector is None and listed is None:
        try:
            projector = _projector_of(file, _there(repository, environ))
        except SourceError:  # the file was read, from the cache or a server that lists nothing
            return OnHub(file=file, header=header)
    if projector is None:
        return OnHub(file=file, header=header)
    found = read_from_hub(f"{repository}:{projector}", environ)
    return OnHub(file=file, header=header, projector_file=projector, projector=found)


def read_from_hub(text: str, environment: Mapping[str, str] | None = None) -> GgufFile:
    """Return the header that ``ORG/NAME:FILE.gguf`` names, or ``ORG/NAME:Q4_K_M``.

    The latter is llama.cpp's way (``-hf``): the file with that quantisation in its name. Raises
    SourceError, with the files there are where none was named, or several have it.
    """
    environ = os.environ if environment is None else environment
    repository, _, file = text.partition(":")
    if not REPOSITORY.fullmatch(repository):
        raise SourceError(f"{PREFIX}{text}: not a repository", hint="hf:ORG/NAME:FILE.gguf")
    hub = ask_hub(environ)
    if not file:
        raise _name_one(repository, _there(repository, environ))
    if _QUANTISATION.fullmatch(file):
        file = _quantised(repository, file, _there(repository, environ))
    if not _FILE.fullmatch(file) or ".." in file:
        raise SourceError(f"{PREFIX}{text}: not a GGUF file", hint="hf:ORG/NAME:FILE.gguf")
    cached = _cached(repository, file, environ)
    if cached is not None:
        return read_gguf(cached)
    if is_offline(environ):
        raise _not_cached(f"{repository}:{file}")
    first = _read_part(repository, file, hub)
    folder, slash, name = file.rpartition("/")
    others = [f"{folder}{slash}{part}" for part in part_names(first, name)]
    return join_parts(
        first,
        [first if part == file else _read_part(repository, part, hub) for part in others],
    )


def _read_part(repository: str, file: str, hub: Hub) -> GgufFile:
    url = f"{hub.endpoint}/{repository}/resolve/main/{quote(file)}"
    reader = Ranges(url, hub, LONGEST_HEADER)
    return read_header(reader.read(1 << 20), f"{PREFIX}{repository}:{file}", reader.read)


def _cached(repository: str, file: str, environ: Mapping[str, str]) -> Path | None:
    """Return the file in the hub's local cache, of several snapshots any."""
    there = snapshots(repository, environ).glob(f"*/{file}")
    return next((path for path in sorted(there) if path.is_file()), None)


def _cached_names(repository: str, environ: Mapping[str, str]) -> list[str]:
    """Return a repository's GGUF files in the hub's local cache."""
    there = snapshots(repository, environ)
    found = {path.relative_to(there) for path in there.glob("*/**/*.gguf")}
    names = {Path(*path.parts[1:]).as_posix() for path in found}
    return sorted(name for name in names if _FILE.fullmatch(name))


def _there(repository: str, environ: Mapping[str, str]) -> list[str]:
    """Return a repository's GGUF files: the hub's, else those in its local cache."""
    kept = _cached_names(repository, environ)
    if not is_offline(environ):
        try:
            return _listed(repository, ask_hub(environ)) or kept
        except SourceError:
            if not kept:
                raise
    elif not kept:
        raise _not_cached(repository)
    return kept


def _not_cached(name: str) -> SourceError:
    message = f"{PREFIX}{name}: not in the local cache, and HF_HUB_OFFLINE is set"
    return SourceError(message, hint=f"hf download {name.replace(':', ' ')} fetches it")


def _quantised(repository: str, quantisation: str, names: list[str]) -> str:
    """Return the file with a quantisation in its name, the first of its parts where it is split."""
    word = re.compile(rf"(?<![a-z0-9]){re.escape(quantisation)}(?![a-z0-9_])", re.IGNORECASE)
    found = [name for name in names if word.search(name) and _is_model(name)]
    if len(found) != 1:
        raise _name_one(repository, found or names)
    return found[0]


def _usual(repository: str, names: list[str]) -> str:
    """Return the file of a repository of which none was named."""
    models = [name for name in names if _is_model(name)]
    for quantisation in _USUAL:
        found = [name for name in models if quantisation.lower() in name.lower()]
        if len(found) > 1:
            raise _name_one(repository, found)
        if found:
            return found[0]
    if len(models) != 1:
        raise _name_one(repository, names)
    return models[0]


def _is_model(name: str) -> bool:
    last = name.rpartition("/")[2].lower()
    return not any(word in last for word in _BESIDE) and not _LATER_PART.search(name)


def _projector_of(file: str, names: list[str]) -> str | None:
    """Return the projector that goes with a model; of several as near the first in the list."""
    folder, found, best = file.rpartition("/")[0], None, (0, 0)
    for name in names:
        at, _, last = name.rpartition("/")
        if "mmproj" not in last or not (not at or folder == at or folder.startswith(f"{at}/")):
            continue
        rank = (at.count("/") + bool(at), -abs(_bits(name) - _bits(file)))
        if found is None or rank > best:
            found, best = name, rank
    return found


def _bits(name: str) -> int:
    """Return the first number of a file's type: 4 of Q4_K_M, 16 of BF16; 0 where it has none."""
    tag = _TAG.search(name)
    digits = _DIGITS.search(tag[1]) if tag else None
    return int(digits[0]) if digits else 0


def _listed(repository: str, hub: Hub) -> list[str]:
    """Return a repository's GGUF files, those in its folders too; none where it lists nothing."""
    return [name for name in list_files(repository, hub) if _FILE.fullmatch(name)]


def _name_one(repository: str, names: list[str]) -> SourceError:
    """Return the error that lists GGUF files of a repository."""
    if not names:
        message = f"{PREFIX}{repository}: no GGUF file in it"
        return SourceError(message, hint="other models are in the catalogue: vramplan catalog list")
    return SourceError(
        f"{PREFIX}{repository}: name a file",
        hint=f"{PREFIX}{repository}:" + ", ".join(names[:_MOST_NAMED]),
    )
