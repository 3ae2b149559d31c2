"""Asking the Hugging Face hub: its address, the token, ranges of files, and patience with servers.

A token (HF_TOKEN) goes to the endpoint (HF_ENDPOINT) alone, over https or on this machine, and not
along when the answer sends on elsewhere. Source: huggingface_hub's documentation of its environment
variables and its cache.
"""

from __future__ import annotations

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
from urllib.parse import urljoin, urlsplit

from vramplan.codec import JsonError, Limits, parse_json
from vramplan.errors import SourceError

#: what a header may hold
_TOKEN = re.compile(r"[!-~]{0,1000}")
_SECONDS = 20
#: one answer, of some MiB, takes no longer, from looking up its host's address to its last byte:
#: a server may send a byte of its headers or of its body now and then for ever
_LONGEST_ANSWER = 120
#: and all answers to one question: a header comes in steps, and a model may be of a thousand parts
_LONGEST_QUESTION = 600
_PIECE = 1 << 16
_LISTING = Limits(text_bytes=8 << 20)
#: the hub lists a thousand files a page, and says in a header where it goes on (RFC 8288)
_MOST_PAGES, _LONGEST_LINK = 100, 4_000
_NEXT = re.compile(r'<(?P<url>[!-;=?-~]{1,2000})>; ?rel="next"', re.ASCII)
_OFFLINE = ("1", "on", "yes", "true")
_LATER = (429, 500, 502, 503, 504)


class RefusedError(SourceError):
    """A server's answer that is none; `code` is HTTP's."""

    def __init__(self, message: str, *, hint: str | None, code: int) -> None:
        super().__init__(message, hint=hint)
        self.code = code


@dataclass(frozen=True, slots=True)
class Hub:
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


def ask_hub(environ: Mapping[str, str]) -> Hub:
    """Return the hub that the environment names, which may answer from now on."""
    return Hub(environ, time.monotonic() + _LONGEST_QUESTION)


def is_offline(environ: Mapping[str, str]) -> bool:
    """Return whether the local cache alone may be asked."""
    return environ.get("HF_HUB_OFFLINE", "").lower() in _OFFLINE


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the hub's local cache, there or not."""
    home = environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    return Path(environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def snapshots(repository: str, environ: Mapping[str, str]) -> Path:
    """Return where the hub's local cache keeps a repository's revisions, there or not."""
    return cache_folder(environ) / f"models--{repository.replace('/', '--')}" / "snapshots"


def _endpoint(environ: Mapping[str, str]) -> str:
    endpoint = environ.get("HF_ENDPOINT", "").strip().rstrip("/") or "https://huggingface.co"
    if not is_address(endpoint):  # it may hold a password: it is not shown
        hint = "such as https://huggingface.co, without a name and a password in it"
        raise SourceError("HF_ENDPOINT: not the address of a hub", hint=hint)
    return endpoint


def is_address(text: str) -> bool:
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


class Ranges:
    """Reads a file from its beginning, a range at a time; beyond `most` bytes it has none."""

    def __init__(self, url: str, hub: Hub, most: int) -> None:
        self._url = url
        self._hub = hub
        self._most = most
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, fewer at the file's end."""
        size = min(size, self._most - self._at)
        if size <= 0:
            return b""
        last = self._at + size - 1
        data = get(self._url, self._hub, size, {"Range": f"bytes={self._at}-{last}"})
        self._at += len(data)
        return data


def get(url: str, hub: Hub, most: int, headers: Mapping[str, str]) -> bytes:
    """Return at most `most` bytes of an answer; an endless one is cut off there."""
    return _answer(url, hub, most, headers).data


def list_files(repository: str, hub: Hub) -> list[str]:
    """Return the paths of a repository's files, those in its folders too, from all of its pages.

    Raises SourceError for an answer that is no JSON, and where there is no end to them.
    """
    url = f"{hub.endpoint}/api/models/{repository}/tree/main?recursive=true"
    found: list[str] = []
    for _ in range(_MOST_PAGES):
        answer = _answer(url, hub, _LISTING.text_bytes, {})
        try:
            listed = parse_json(answer.data, url, _LISTING)
        except JsonError as problem:
            hint = "a page for people, such as a login's? see HF_ENDPOINT, and the proxy"
            raise SourceError(str(problem), hint=hint) from None
        found += [
            str(one["path"])
            for one in (listed if isinstance(listed, list) else [])
            if isinstance(one, dict) and one.get("type") in ("file", None) and one.get("path")
        ]
        if answer.next_url is None:
            return found
        url = urljoin(url, answer.next_url)
        if not url.startswith(f"{hub.endpoint}/"):
            raise SourceError(f"{url[:200]}: the list of files goes on at another host")
    raise SourceError(f"{url[:200]}: more files than {_MOST_PAGES} pages of them")


@dataclass(frozen=True, slots=True)
class _Answer:
    data: bytes
    next_url: str | None = None


def _answer(url: str, hub: Hub, most: int, headers: Mapping[str, str]) -> _Answer:
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
            return _Answer(b"")
        raise _refused(url, problem.code, problem.headers.get("X-Error-Code")) from None
    except (OSError, ValueError, HTTPException) as problem:
        reason = getattr(problem, "reason", problem)
        hint = (
            "without a network the model's own folder is enough: vramplan check ./FOLDER, with its "
            "config files and safetensors headers"
        )
        raise SourceError(f"{url}: cannot be read: {reason}", hint=hint) from None


def _in_time(ask: Callable[[], _Answer], seconds: float) -> _Answer:
    """Return what `ask` returns; raises what it raises, and TimeoutError where it takes too long.

    A socket's own limit begins anew with each byte, and there is none for a name's look-up: so
    somebody else waits. What is given up ends with its socket, or with this process.
    """
    ended: SimpleQueue[_Answer | Exception] = SimpleQueue()

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
    if isinstance(answer, _Answer):
        return answer
    try:
        raise answer
    finally:
        del answer  # it holds this frame, and an answer that is still open


def _ask(request: urllib.request.Request, most: int, until: float) -> _Answer:
    opener = urllib.request.build_opener(_NoTokenElsewhere())
    with opener.open(request, timeout=_SECONDS) as answer:
        asked = request.get_header("Range") or ""
        if asked and answer.status != 206 and not asked.startswith("bytes=0-"):
            raise SourceError(f"{request.full_url}: the server does not answer ranges")
        following = _NEXT.search(answer.headers.get("Link", "")[:_LONGEST_LINK])
        return _Answer(_body(answer, most, until), following["url"] if following else None)


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


def _refused(url: str, code: int, named: str | None = None) -> RefusedError:
    """Return the error for an answer that is none; `named` is what the hub calls it.

    Who has no token is told 401 of what is not there too. Source: huggingface_hub,
    utils/_http.py, hf_raise_for_status.
    """
    said = f"HTTP {code}"
    hint: str | None = None
    if code == 401 and named == "RepoNotFound":
        said, hint = (
            "no such repository, or one that is not for everybody (HTTP 401)",
            "look at its name; for a private or gated one set HF_TOKEN",
        )
    elif code in (401, 403):
        said, hint = (
            f"not for everybody (HTTP {code})",
            "accept its terms on the hub, and set HF_TOKEN",
        )
    elif code == 404 and "/api/models/" in url:
        said, hint = "there is no such repository", "hf:ORG/NAME:FILE.gguf"
    elif code == 404:
        said, hint = "there is no such file", "hf:ORG/NAME lists the files"
    elif 300 <= code < 400:
        said = f"sent on in a circle, or to no web address (HTTP {code})"
    elif code in _LATER:
        hint = "the server is busy or has a fault: try again later"
    return RefusedError(f"{url}: {said}", hint=hint, code=code)
