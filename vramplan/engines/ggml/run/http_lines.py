"""JSON over HTTP from an engine on this machine or in this network, bounded and line by line."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from typing import Any

from vramplan.codec import JsonError, Limits, parse_json
from vramplan.errors import MeasurementError

_LIMITS = Limits(text_bytes=4 << 20, parsed_bytes=64 << 20)
_MOST_LINES = 1_000_000

Json = dict[str, Any]


class RefusedError(MeasurementError):
    """The engine answered that it will not; `status` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def ask(url: str, body: Json | None = None, *, seconds: float) -> Json:
    """Return the JSON object that `url` answers with; with a body it is posted."""
    for answer in ask_lines(url, body, seconds=seconds):
        return answer
    return {}


def ask_lines(url: str, body: Json | None = None, *, seconds: float) -> Iterator[Json]:
    """Yield the JSON objects of an answer, one a line; server-sent events' ``data:`` is taken off.

    Raises RefusedError for an answer that is an error, also one in the middle of a stream (HTTP's
    status was sent by then; both Ollama and llama-server write ``{"error": …}``), MeasurementError
    where nobody answers, or something that is not HTTP.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310  # http and https alone are made by callers
        url, data=data, headers={"Content-Type": "application/json"}
    )
    try:
        # no proxy: the engine is here or in this network
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=seconds) as answer:
            for _ in range(_MOST_LINES):
                line = answer.readline(_LIMITS.text_bytes)
                if not line:
                    return
                found = _parse(line)
                if found is not None and found.get("error"):
                    raise RefusedError(f"{url}: {_error_text(found)}"[:400], answer.status)
                if found is not None:
                    yield found
    except urllib.error.HTTPError as problem:
        text = str(problem.reason)
        with suppress(OSError, HTTPException):  # its body may be cut off
            text = _error_text(_parse(problem.read(10_000)) or {}) or text
        raise RefusedError(f"{url}: {text}"[:400], problem.code) from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "reason", problem)
        raise MeasurementError(f"{url}: nobody answers ({reason})") from None
    except HTTPException as problem:  # a connection that was closed is an OSError too
        said = f"{type(problem).__name__}: {problem}"[:200]
        raise MeasurementError(f"{url}: answers, but not as HTTP does ({said})") from None


def _error_text(answer: Json) -> str:
    """Return an error's message: Ollama's is a string, llama-server's an object."""
    error = answer.get("error", "")
    return str(error.get("message", "") if isinstance(error, dict) else error)


def _parse(line: bytes) -> Json | None:
    text = line.decode("utf-8", errors="replace").strip().removeprefix("data:").strip()
    if not text.startswith("{"):
        return None
    try:
        found = parse_json(text, "an answer", _LIMITS)
    except JsonError:
        return None
    return found if isinstance(found, dict) else None
