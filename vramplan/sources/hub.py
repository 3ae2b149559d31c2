"""GGUF files on the Hugging Face hub: their headers alone, by HTTP ranges, or from the local cache.

A token (HF_TOKEN) goes to the endpoint (HF_ENDPOINT) alone, over https or on this machine, and not
along when the answer sends on elsewhere. Source: huggingface_hub's documentation of its environment
variables and its cache.
"""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO
from urllib.parse import quote, urlsplit

from vramplan.codec import JsonError, Limits, parse_json
from vramplan.errors import SourceError
from vramplan.sources.gguf import (
    LONGEST_HEADER,
    GgufFile,
    join_parts,
    part_names,
    read_gguf,
    read_header,
)
from vramplan.sources.hub_address import PREFIX, REPOSITORY

#: what a header may hold
_TOKEN = re.compile(r"[!-~]{0,1000}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+/ -]{0,299}\.gguf", re.IGNORECASE)
_SECONDS = 20
#: one answer, of some MiB, takes no longer, from looking up its host's address to its last byte:
#: a server may send a byte of its headers or of its body now and then for ever
_LONGEST_ANSWER = 120
#: and all answers to one question: a header comes in steps, and a model may be of a thousand parts
_LONGEST_QUESTION = 600
_PIECE = 1 << 16
_LATER = (429, 500, 502, 503, 504)
_LISTING = Limits(text_bytes=8 << 20)
_STEP = 4 << 20


@dataclass(frozen=True, slots=True)
class _Hub:
    """The hub that the environment names, and until when it may answer."""

    environ: Mapping[str, str]
    until_s: float

    @property
    def endpoint(self) -> str:
        """Its address; raises SourceError for what is none."""
        return _endpoint(self.environ)

    @property
    def patience_s(self) -> float:
        """Seconds that its next answer may take."""
        return max(0.0, min(_LONGEST_ANSWER, self.until_s - time.monotonic()))


def read_from_hub(text: str, environment: Mapping[str, str] | None = None) -> GgufFile:
    """Return the header that ``ORG/NAME:FILE.gguf`` names.

    Raises SourceError, with the files there are where none was named.
    """
    environ = os.environ if environment is None else environment
    repository, _, file = text.partition(":")
    if not REPOSITORY.fullmatch(repository):
        raise SourceError(f"{PREFIX}{text}: not a repository", hint="hf:ORG/NAME:FILE.gguf")
    hub = _Hub(environ, time.monotonic() + _LONGEST_QUESTION)
    if not file:
        raise _name_one(repository, hub)
    if not _FILE.fullmatch(file) or ".." in file:
        raise SourceError(f"{PREFIX}{text}: not a GGUF file", hint="hf:ORG/NAME:FILE.gguf")
    cached = _cached(repository, file, environ)
    if cached is not None:
        return read_gguf(cached)
    first = _read_part(repository, file, hub)
    folder, slash, name = file.rpartition("/")
    others = [f"{folder}{slash}{part}" for part in part_names(first, name)]
    return join_parts(
        first,
        [first if part == file else _read_part(repository, part, hub) for part in others],
    )


def _read_part(repository: str, file: str, hub: _Hub) -> GgufFile:
    url = f"{hub.endpoint}/{repository}/resolve/main/{quote(file)}"
    reader = _Ranges(url, hub)
    return read_header(reader.read(1 << 20), f"{PREFIX}{repository}:{file}", reader.read)


def _cached(repository: str, file: str, environ: Mapping[str, str]) -> Path | None:
    """Return the file in the hub's local cache, of several snapshots any."""
    home = environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    root = Path(environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    snapshots = root / f"models--{repository.replace('/', '--')}" / "snapshots"
    return next((path for path in sorted(snapshots.glob(f"*/{file}")) if path.is_file()), None)


def _endpoint(environ: Mapping[str, str]) -> str:
    endpoint = environ.get("HF_ENDPOINT", "").strip().rstrip("/") or "https://huggingface.co"
    if not _is_address(endpoint):  # it may hold a password: it is not shown
        hint = "such as https://huggingface.co, without a name and a password in it"
        raise SourceError("HF_ENDPOINT: not the address of a hub", hint=hint)
    return endpoint


def _is_address(text: str) -> bool:
    """Return whether a text is an address of the web, with a host and nobody's password in it."""
    try:
        parts = urlsplit(text)
        _ = parts.port
        host = parts.hostname or ""
        host.encode("idna")
    except ValueError:  # brackets that do not close, a port that is no number, a name too long
        return False
    is_plain = text.isascii() and text.isprintable() and " " not in text
    return parts.scheme in ("http", "https") and bool(host) and is_plain and "@" not in parts.netloc


def _token(environ: Mapping[str, str]) -> str:
    """Return HF_TOKEN; raises SourceError, without showing it, for one that no header can carry."""
    token = environ.get("HF_TOKEN", "").strip()
    if not _TOKEN.fullmatch(token):
        hint = "it is one word, hf_...: look for a line end, a blank or a quote in it"
        raise SourceError("HF_TOKEN: not a token", hint=hint)
    return token


class _NoTokenElsewhere(urllib.request.HTTPRedirectHandler):
    """Follows a redirection without the token where it leads to another host."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the next request."""
        found = super().redirect_request(req, fp, code, msg, headers, newurl)
        if found is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            found.remove_header("Authorization")
        return found


class _Ranges:
    """Reads a file from its beginning, a range at a time."""

    def __init__(self, url: str, hub: _Hub) -> None:
        self._url = url
        self._hub = hub
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer at the file's end."""
        size = min(size, LONGEST_HEADER - self._at)
        if size <= 0:
            return b""
        last = self._at + size - 1
        data = _get(self._url, self._hub, size, {"Range": f"bytes={self._at}-{last}"})
        self._at += len(data)
        return data


def _get(url: str, hub: _Hub, most: int, headers: Mapping[str, str]) -> bytes:
    """Return at most `most` bytes of an answer; an endless one is cut off there."""
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310  # http(s) alone
    token = _token(hub.environ)
    parts = urlsplit(url)
    if token and (parts.scheme == "https" or parts.hostname in ("127.0.0.1", "localhost")):
        request.add_header("Authorization", f"Bearer {token}")
    until = time.monotonic() + hub.patience_s
    try:
        return _in_time(lambda: _ask(request, most, until), hub.patience_s)
    except urllib.error.HTTPError as problem:
        problem.close()
        if problem.code == 416:  # beyond the file's end
            return b""
        raise _refused(url, problem.code) from None
    except (OSError, ValueError, HTTPException) as problem:
        reason = getattr(problem, "reason", problem)
        raise SourceError(f"{url}: cannot be read: {reason}") from None


def _in_time(ask: Callable[[], bytes], seconds: float) -> bytes:
    """Return what `ask` returns; raises what it raises, and TimeoutError where it takes too long.

    A socket's own limit begins anew with each byte, and there is none for a name's look-up: so
    somebody else waits. What is given up ends with its socket, or with this process.
    """
    ended: SimpleQueue[bytes | Exception] = SimpleQueue()

    def run() -> None:
        try:
            ended.put(ask())
        except Exception as problem:  # noqa: BLE001  # raised again where it is waited for
            ended.put(problem)

    threading.Thread(target=run, name="hub", daemon=True).start()
    try:
        answer = ended.get(timeout=seconds)
    except Empty:
        raise TimeoutError(f"not there after {seconds:.3g} seconds") from None
    if isinstance(answer, bytes):
        return answer
    try:
        raise answer
    finally:
        del answer  # it holds this frame, and an answer that is still open


def _ask(request: urllib.request.Request, most: int, until: float) -> bytes:
    opener = urllib.request.build_opener(_NoTokenElsewhere())
    with opener.open(request, timeout=_SECONDS) as answer:
        asked = request.get_header("Range") or ""
        if asked and answer.status != 206 and not asked.startswith("bytes=0-"):
            raise SourceError(f"{request.full_url}: the server does not answer ranges")
        return _body(answer, most, until)


def _body(answer: HTTPResponse, most: int, until: float) -> bytes:
    """Return the beginning of an answer; what nobody waits for any more is not read on."""
    data = b""
    while len(data) < most:
        piece = answer.read1(min(_PIECE, most - len(data)))
        if not piece:
            break
        data += piece
        if time.monotonic() > until:
            raise TimeoutError("it does not come to an end")
    return data


def _refused(url: str, code: int) -> SourceError:
    if code in (401, 403):
        hint = "accept its terms on the hub, and set HF_TOKEN"
        return SourceError(f"{url}: not for everybody (HTTP {code})", hint=hint)
    if code == 404 and "/api/models/" in url:
        return SourceError(f"{url}: there is no such repository", hint="hf:ORG/NAME:FILE.gguf")
    if code == 404:
        return SourceError(f"{url}: there is no such file", hint="hf:ORG/NAME lists the files")
    if 300 <= code < 400:
        return SourceError(f"{url}: sent on in a circle, or to no web address (HTTP {code})")
    later = "the server is busy or has a fault: try again later" if code in _LATER else None
    return SourceError(f"{url}: HTTP {code}", hint=later)


def _name_one(repository: str, hub: _Hub) -> SourceError:
    """Return the error that lists a repository's GGUF files."""
    url = f"{hub.endpoint}/api/models/{repository}/tree/main"
    try:
        listed = parse_json(_get(url, hub, _LISTING.text_bytes, {}), url, _LISTING)
    except JsonError:
        listed = []
    names = [
        str(one.get("path", ""))
        for one in (listed if isinstance(listed, list) else [])
        if isinstance(one, dict) and str(one.get("path", "")).lower().endswith(".gguf")
    ][:20]
    if not names:
        message = f"{PREFIX}{repository}: no GGUF file at its top"
        return SourceError(message, hint="other models are in the catalogue: vramplan catalog list")
    return SourceError(
        f"{PREFIX}{repository}: name a file", hint=f"{PREFIX}{repository}:" + ", ".join(names)
    )
