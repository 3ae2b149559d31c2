"""What people paste for a model that is elsewhere: addresses of the hub and of Ollama's library.

``https://huggingface.co/ORG/NAME/tree/main`` names a repository as ``hf:ORG/NAME`` does; a page of
a GGUF file (``/blob/main/FILE.gguf``, ``/resolve/main/FILE.gguf``) names the file. What ``ollama
run`` takes of the hub, ``hf.co/ORG/NAME:Q4_K_M``, is Ollama's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from vramplan.errors import UsageError

PREFIX = "hf:"

#: ORG/NAME
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
#: a single file of a model, which is none of those that a config lies beside
FILE_OF_WEIGHTS = re.compile(
    r"(?!(?:.*/)?(?:diffusion_pytorch_model|model)[.-])"
    r"[A-Za-z0-9][A-Za-z0-9_.+/ -]{0,299}\.safetensors",
    re.IGNORECASE,
)
_HUBS = frozenset({"huggingface.co", "hf.co"})
_LIBRARY = "ollama.com"
_SCHEME = re.compile(r"https?://", re.IGNORECASE)
#: pages of the hub that show a file or a folder of one revision
_SHOWS = ("blob", "resolve", "raw", "tree")
_MAIN = "main"
#: what else has an owner and a name there
_OTHERS = {"datasets": "data set", "spaces": "space", "collections": "collection"}
_LONGEST = 2_000


def read_address(text: str, environment: Mapping[str, str] | None = None) -> str | None:
    """Return the TARGET that an address stands for: ``hf:ORG/NAME``, with ``:FILE`` behind it.

    None for what is no address. Raises UsageError for one that is no model's, and for a file of
    another revision than main.
    """
    text = text.strip()
    environ = os.environ if environment is None else environment
    is_bare = not _SCHEME.match(text)
    if is_bare:
        host = text.partition("/")[0].lower().removeprefix("www.")
        if host not in (*_HUBS, _LIBRARY) or "/" not in text:
            return None
        text = f"https://{text}"
    parts = _split(text)
    host = (parts.hostname or "").removeprefix("www.") if parts is not None else ""
    if parts is None or len(text) > _LONGEST:
        raise _unknown(text)
    steps = [unquote(step) for step in parts.path.split("/") if step]
    if host == _LIBRARY:
        return _from_library(text, steps)
    if host in _HUBS and is_bare and len(steps) == 2 and ":" in steps[1]:
        return f"ollama:{host}/{'/'.join(steps)}"  # as `ollama run` takes it
    if host not in _HUBS and not _is_endpoint(parts, environ):
        raise _unknown(text)
    return _from_hub(text, steps)


def repository_of(revision: Path) -> str | None:
    """Return the NAME of ``models--ORG--NAME/snapshots/COMMIT``, a folder of the hub's cache."""
    *_, home, between, _ = ("", "", *revision.resolve().parts)
    if between != "snapshots" or not home.startswith("models--"):
        return None
    return home.rpartition("--")[2] or None


def repository_named(text: str) -> str | None:
    """Return the repository that ``hf:ORG/NAME`` or a bare ``ORG/NAME`` names, else None."""
    name = text.strip()
    if name[: len(PREFIX)].lower() == PREFIX:
        name = name[len(PREFIX) :]
    name = name.strip("/")
    return name if REPOSITORY.fullmatch(name) else None


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text)
        _ = parts.port  # read late, and refused late
    except ValueError:  # brackets that do not close, a port that is no number
        return None
    return parts


def _is_endpoint(parts: SplitResult, environ: Mapping[str, str]) -> bool:
    """Return whether the address is of the hub that HF_ENDPOINT names."""
    endpoint = _split(environ.get("HF_ENDPOINT", ""))
    return endpoint is not None and bool(endpoint.netloc) and endpoint.netloc == parts.netloc


def _from_hub(text: str, steps: list[str]) -> str:
    if steps and steps[0] in _OTHERS:
        message = f"{text[:200]}: a {_OTHERS[steps[0]]}, not a model"
        raise UsageError(message, hint="a model's address is https://huggingface.co/ORG/NAME")
    repository = "/".join(steps[:2])
    if not REPOSITORY.fullmatch(repository):
        raise _unknown(text)
    file = "/".join(steps[4:])
    is_file = file.lower().endswith(".gguf") or FILE_OF_WEIGHTS.fullmatch(file)
    if len(steps) < 5 or steps[2] not in _SHOWS or not is_file:
        return f"{PREFIX}{repository}"
    if steps[3] != _MAIN:
        raise UsageError(f"{text[:200]}: only the revision main is read")
    return f"{PREFIX}{repository}:{file}"


def _from_library(text: str, steps: list[str]) -> str:
    match steps:
        case ["library", name, *_] | [name]:
            return f"ollama:{name}"
        case [owner, name]:
            return f"ollama:{owner}/{name}"
        case _:
            raise _unknown(text)


def _unknown(text: str) -> UsageError:
    hint = "such as https://huggingface.co/ORG/NAME, or hf:ORG/NAME:FILE.gguf"
    return UsageError(f"{text[:200]}: not the address of a model", hint=hint)
