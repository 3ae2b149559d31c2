"""The page's server: a few fixed files and the answers, for the browsers that may ask.

It listens on the loopback interface unless told otherwise and answers no name but its own, so that
no other site can ask through a visitor's browser (DNS rebinding). It reads no path from a browser.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit

from vramplan.errors import UsageError, VramplanError
from vramplan.page.answers import Page, problem_object
from vramplan.page.query import LONGEST
from vramplan.report.serial import Json

ASSETS = Path(__file__).parent / "assets"
LOOPBACK = "127.0.0.1"
#: the first port that is tried where none is asked for, and how many
PORT, _MOST_PORTS = 8760, 20

#: so many browsers' connections at once; more are turned away
_MOST_CONNECTIONS = 48
#: a browser that says nothing for so long is forgotten
_SILENCE_S = 30
#: how often somebody who waits for a turn is looked after
_TURN_S = 0.2

#: route -> file and type; nothing else is ever read from the disk
FILES: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/elements.js": ("elements.js", "text/javascript; charset=utf-8"),
    "/knobs.js": ("knobs.js", "text/javascript; charset=utf-8"),
    "/answers.js": ("answers.js", "text/javascript; charset=utf-8"),
    "/transport.js": ("transport.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_ANSWERS = "/answer/"

#: what the page may do: run its own scripts, take its own styles, ask this server
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


#: is told what went wrong here, which is nobody's business in a browser
Complain = Callable[[str], None]


class _BrowserLeft(Exception):
    """Nobody waits for the answer any more."""


class PageServer(ThreadingHTTPServer):
    """Serves a page on an address until it is shut down; a thread a connection, one at work."""

    daemon_threads = True
    block_on_close = False
    #: on Windows it would let two programs have one port
    allow_reuse_address = sys.platform != "win32"

    def __init__(self, host: str, port: int, page: Page, complain: Complain) -> None:
        """Listen; raises OSError where the address or the port cannot be had."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.address_family, _, _, _, address = found[0]
        self.page = page
        self.complain = complain
        self.turn = threading.Lock()
        self._places = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._names = {host.lower(), "localhost"}
        super().__init__((str(address[0]), port), _Handler)
        if not self.is_loopback:
            name = socket.gethostname().lower()
            self._names |= {name, f"{name}.local"}

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine reach it."""
        return is_loopback(str(self.server_address[0]))

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the page."""
        address = ipaddress.ip_address(str(self.server_address[0]))
        shown = LOOPBACK if address.is_unspecified else str(address)
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}/"

    def is_own_name(self, host: str) -> bool:
        """Return whether a request's ``Host`` is one that this server goes by, on whatever port.

        Every number is: who rebinds a name to this machine (DNS rebinding) asks by that name. On
        the loopback interface only its own numbers are.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name.rstrip(".") in self._names
        return address.is_loopback or not self.is_loopback

    def server_bind(self) -> None:
        """Bind without looking up this machine's name, which may take seconds."""
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, unless there are too many of them."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, then give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # its own names
        """Say nothing of a browser that goes away; a fault of ours is a line, not a traceback."""
        problem = sys.exception()
        if not isinstance(problem, OSError):
            self.complain(f"internal error: {type(problem).__name__}: {problem}")


class _Handler(BaseHTTPRequestHandler):
    """One browser's requests, one after the other."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "vramplan", ""
    timeout = _SILENCE_S
    _thread = 0

    def do_GET(self) -> None:
        """Send a file of the page, or an answer."""
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # what stands there is not read
        if not self.server.is_own_name(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "this server does not go by that name")
            return
        route, _, link = self.path.partition("?")
        question = route.removeprefix(_ANSWERS)
        if route in FILES:
            name, kind = FILES[route]
            self._send(HTTPStatus.OK, (ASSETS / name).read_bytes(), kind)
        elif route.startswith(_ANSWERS) and question in self.server.page.questions:
            self._answer(question, link)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def do_HEAD(self) -> None:
        """Send what `do_GET` would, without its body."""
        self.do_GET()

    def _answer(self, question: str, link: str) -> None:
        if self.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            self.send_error(HTTPStatus.FORBIDDEN, "only this page may ask")
            return
        if len(link) > LONGEST:
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
            return
        status, found = HTTPStatus.OK, None
        self._thread = threading.get_ident()
        try:
            with self._turn():
                found = self.server.page.answer(question, link, self._hear)
        except _BrowserLeft:
            self.close_connection = True
            return
        except VramplanError as problem:
            status, found = HTTPStatus.UNPROCESSABLE_ENTITY, self._problem(problem)
        except Exception as problem:  # noqa: BLE001  # as in cli.main: a line, and the next question
            self.server.complain(f"internal error: {type(problem).__name__}: {problem}")
            said = UsageError("this cannot be answered: a fault of vramplan's, which it has noted")
            status, found = HTTPStatus.INTERNAL_SERVER_ERROR, problem_object(said)
        self._send(status, json.dumps(found, separators=(",", ":")).encode(), "application/json")

    def _problem(self, problem: VramplanError) -> dict[str, Json]:
        """Return an error as the browser gets it: files are named to this machine's alone."""
        has_place = any(sign in str(problem) for sign in "/\\")
        if self.server.is_loopback or isinstance(problem, UsageError) or not has_place:
            return problem_object(problem)
        self.server.complain(str(problem))
        return problem_object(UsageError("this model cannot be judged: a file of it is at fault"))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until nobody else is being answered: the work is done one after the other."""
        while not self.server.turn.acquire(timeout=_TURN_S):
            self._hear("")
        try:
            yield
        finally:
            self.server.turn.release()

    def _hear(self, _step: str) -> None:
        """End the work where the browser has gone away, or asks for something else by now."""
        if threading.get_ident() != self._thread:
            return  # a helper of the work's tells: ending that would end nothing
        readable, _, _ = select.select([self.connection], [], [], 0)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise _BrowserLeft

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002  # the base's
        """Send a line of text: nothing of what was asked is in it."""
        self.close_connection = True
        said = message if code == HTTPStatus.MISDIRECTED_REQUEST else None
        self._send(code, f"{code} {said or HTTPStatus(code).phrase}\n".encode(), "text/plain")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
        """Keep no list of who asked what."""


def is_loopback(host: str) -> bool:
    """Return whether an address is reached by programs on this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def open_server(host: str, port: int | None, page: Page, complain: Complain) -> PageServer:
    """Return the server on a port, or on the first free one where none is asked for.

    Raises UsageError where the port is in use or the address is none of this machine's.
    """
    tried = [port] if port is not None else [*range(PORT, PORT + _MOST_PORTS), 0]
    for one in tried:
        try:
            return PageServer(host, one, page, complain)
        except UnicodeError as problem:  # a name that no resolver takes
            raise _refusal(host, one, socket.gaierror()) from problem
        except OSError as problem:
            if problem.errno == errno.EADDRINUSE and one != tried[-1]:
                continue
            raise _refusal(host, one, problem) from problem
    raise AssertionError("a port of 0 is free, or refused for another reason")


def _refusal(host: str, port: int, problem: OSError) -> UsageError:
    if isinstance(problem, socket.gaierror):
        return UsageError(f"--host {host[:80]}: no address has that name")
    if problem.errno == errno.EADDRINUSE:
        hint = "leave --port out and a free one is taken"
        return UsageError(f"port {port} of {host} is in use", hint=hint)
    if problem.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"--host {host[:80]} is no address of this machine")
    return UsageError(f"port {port} of {host[:80]}: {problem.strerror}")
