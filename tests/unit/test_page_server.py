"""The page's server: who may ask, what is given, and browsers that misbehave or go away."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from vramplan.ask.targets import silent
from vramplan.errors import SourceError, TapeError, UsageError
from vramplan.page import server as page_server
from vramplan.page.answers import Page
from vramplan.page.offered import open_models
from vramplan.page.server import ASSETS, FILES, PORT, PageServer, is_loopback, open_server

#: listens on every interface
EVERYBODY = "0.0.0.0"  # noqa: S104  # for the moment of a test, or as a name


class FakePage:
    """Answers at once, slowly, or not at all."""

    questions = frozenset({"start", "verdicts", "slow", "fault", "file", "long"})

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()

    def answer(self, question: str, link: str, hear) -> dict[str, object]:
        if question == "fault":
            raise ZeroDivisionError("/home/somebody/secret")
        if question == "file":
            raise SourceError("/home/somebody/secret.gguf: is damaged")
        if question == "long":
            raise TapeError("tape sd15: the run at these settings is too long")
        if question == "slow":
            told = threading.Thread(target=hear, args=("a helper's step",))
            self.began.set()
            try:
                for _ in range(4_000):
                    hear("on it")
                    time.sleep(0.01)
            finally:
                told.start()  # by now nobody listens, and it must not matter
                told.join()
                self.ended.set()
        return {"question": question, "link": link}


class Serving:
    """A server that runs, and what it complained of."""

    def __init__(self, host: str = "127.0.0.1", page=None) -> None:
        self.complaints: list[str] = []
        self.page = page or FakePage()
        self.server = PageServer(host, 0, self.page, self.complaints.append)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def get(self, path: str, method: str = "GET", **headers: str):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        return reply, body

    def send(self, raw: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as asked:
            asked.sendall(raw)
            asked.shutdown(socket.SHUT_WR)
            found = b""
            while piece := asked.recv(65536):
                found += piece
        return found


@pytest.fixture(scope="module")
def serving() -> Iterator[Serving]:
    with Serving() as found:
        yield found


# ---------------------------------------------------------------------- what is given
def test_the_files_of_the_page_are_given_under_a_strict_policy(serving: Serving) -> None:
    for route, (name, kind) in FILES.items():
        reply, body = serving.get(route)
        assert reply.status == 200
        assert body == (ASSETS / name).read_bytes()
        assert reply.getheader("Content-Type") == kind
        policy = reply.getheader("Content-Security-Policy")
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert reply.getheader("X-Content-Type-Options") == "nosniff"
        assert "Python" not in reply.getheader("Server")


def test_every_file_of_the_page_has_a_route_and_no_inline_script_or_style() -> None:
    assert {name for name, _ in FILES.values()} == {path.name for path in ASSETS.iterdir()}
    page = (ASSETS / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|javascript:", page)
    everything = "".join(path.read_text() for path in ASSETS.iterdir())
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", everything
    )
    addresses = set(re.findall(r"https?://[^\s\"'`)]*", everything))
    assert addresses == {"http://www.w3.org/2000/svg"}, "a name, not a place that is asked"


def test_no_figure_is_computed_in_the_browser() -> None:
    """Scripts put words where they belong: no product, quotient, rounding or parsing of numbers."""
    for path in ASSETS.glob("*.js"):
        code = re.sub(r"(?m)//.*$|/\*\*?.*?\*/", "", path.read_text())
        assert not re.search(r"Math\.|parseInt|parseFloat|Number\(|toFixed|\s[*/%]\s", code), path


def test_an_answer_is_json_and_is_not_kept(serving: Serving) -> None:
    reply, body = serving.get("/answer/verdicts?target=sd15&card=8gb")
    assert (reply.status, reply.getheader("Content-Type")) == (200, "application/json")
    assert reply.getheader("Cache-Control") == "no-store"
    assert json.loads(body) == {"question": "verdicts", "link": "target=sd15&card=8gb"}
    reply, body = serving.get("/answer/verdicts?", method="HEAD")
    assert (reply.status, body) == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/../pyproject.toml", "/page.css/..", "//etc/passwd", "/%2e%2e/server.py",
     "/answer/", "/answer/other", "/answer/../page.css", "/assets/page.css", "/server.py"],
)  # fmt: skip
def test_other_routes_are_not_there(serving: Serving, path: str) -> None:
    reply, body = serving.get(path)
    assert reply.status == 404
    assert body == b"404 Not Found\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT"])
def test_other_methods_are_refused(serving: Serving, method: str) -> None:
    reply, _ = serving.get("/", method=method)
    assert reply.status == 501
    assert "Access-Control-Allow-Origin" not in reply.headers


# ---------------------------------------------------------------------- who may ask
@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:9999", "[::1]:80", "127.1.2.3"]
)
def test_the_server_goes_by_the_loopback_s_names_on_any_port(serving: Serving, host: str) -> None:
    assert serving.get("/answer/start", Host=host)[0].status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.0.7", EVERYBODY,
     "[::", "", "a@localhost@evil.example", "<script>", "x" * 5000],
)  # fmt: skip
def test_it_answers_to_no_other_name(serving: Serving, host: str) -> None:
    for path in ("/", "/answer/start"):
        reply, body = serving.get(path, Host=host)
        assert reply.status == 421
        assert body == b"421 this server does not go by that name\n"


def test_without_a_host_nothing_is_answered(serving: Serving) -> None:
    assert serving.send(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 421")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_other_sites_may_not_ask(serving: Serving, site: str) -> None:
    assert serving.get("/answer/start", Sec_Fetch_Site=site)[0].status == 403
    assert serving.get("/", Sec_Fetch_Site=site)[0].status == 200, "a link to the page is fine"
    assert serving.get("/answer/start", Sec_Fetch_Site="same-origin")[0].status == 200


def test_an_open_server_goes_by_its_numbers_and_its_own_names() -> None:
    server = PageServer(EVERYBODY, 0, FakePage(), print)
    try:
        assert not server.is_loopback
        assert server.url.startswith("http://127.0.0.1:")
        for host in ("192.168.0.7:80", "localhost", socket.gethostname(), "[fe80::1]"):
            assert server.is_own_name(host), host
        assert not server.is_own_name("evil.example")
    finally:
        server.server_close()


@pytest.mark.parametrize(
    ("host", "found"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), (EVERYBODY, False), ("::", False),
     ("10.0.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_what_is_loopback(host: str, found: bool) -> None:
    assert is_loopback(host) is found


# ---------------------------------------------------------------------- bounds
def test_long_requests_are_refused(serving: Serving) -> None:
    assert serving.get("/answer/verdicts?x=" + "a" * 10_000)[0].status == 414
    assert serving.send(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 414")
    many = b"".join(b"X-%d: 1\r\n" % n for n in range(300))
    assert serving.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + many + b"\r\n").startswith(
        b"HTTP/1.1 431"
    )


def test_what_comes_behind_a_question_is_not_read_as_another(serving: Serving) -> None:
    hidden = b"GET /answer/start HTTP/1.1\r\nHost: localhost\r\n\r\n"
    asked = b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    found = serving.send(asked + hidden)
    assert found.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in found


@pytest.mark.parametrize(
    "raw", [b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b""]
)
def test_nonsense_ends_the_connection_and_nothing_else(serving: Serving, raw: bytes) -> None:
    serving.send(raw)
    assert serving.get("/icon.svg")[0].status == 200
    assert serving.complaints == []


def test_so_many_connections_and_no_more(monkeypatch) -> None:
    monkeypatch.setattr(page_server, "_MOST_CONNECTIONS", 2)
    with Serving() as serving:
        held = [socket.create_connection(("127.0.0.1", serving.port)) for _ in range(2)]
        with pytest.raises((http.client.HTTPException, OSError)):
            serving.get("/")  # connections are taken in the order in which they came
        for one in held:
            one.close()
        assert answers_soon(serving)


def answers_soon(serving: Serving) -> bool:
    """Whether the server answers once it has noticed that others are gone."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            return serving.get("/")[0].status == 200
        except (http.client.HTTPException, OSError):
            time.sleep(0.02)
    return False


def test_silence_ends_a_connection(monkeypatch) -> None:
    monkeypatch.setattr(page_server._Handler, "timeout", 0.1)
    with Serving() as serving, socket.create_connection(("127.0.0.1", serving.port)) as asked:
        asked.settimeout(5)
        asked.sendall(b"GET / HTTP/1.1\r\n")
        assert asked.recv(10) == b""


# ---------------------------------------------------------------------- misfortune
def test_a_browser_that_goes_away_ends_its_question_quietly(capfd) -> None:
    with Serving() as serving:
        asked = socket.create_connection(("127.0.0.1", serving.port))
        asked.sendall(b"GET /answer/slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert serving.page.began.wait(5)
        asked.close()
        assert serving.page.ended.wait(10), "the work went on for nobody"
        assert serving.get("/answer/start")[0].status == 200
    assert serving.complaints == []
    assert capfd.readouterr().err == ""


def test_one_who_waits_for_a_turn_may_leave(capfd) -> None:
    with Serving() as serving:
        first = socket.create_connection(("127.0.0.1", serving.port))
        first.sendall(b"GET /answer/slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert serving.page.began.wait(5)
        second = socket.create_connection(("127.0.0.1", serving.port))
        second.sendall(b"GET /answer/start HTTP/1.1\r\nHost: localhost\r\n\r\n")
        second.close()
        first.close()
        assert serving.page.ended.wait(10)
    assert serving.complaints == []
    assert capfd.readouterr().err == ""


def test_a_fault_is_a_line_here_and_no_secret_there(serving: Serving) -> None:
    reply, body = serving.get("/answer/fault")
    assert reply.status == 500
    assert b"secret" not in body
    assert serving.complaints.pop() == "internal error: ZeroDivisionError: /home/somebody/secret"


def test_a_file_at_fault_is_named_on_this_machine_alone(monkeypatch) -> None:
    with Serving() as serving:
        reply, body = serving.get("/answer/file")
        assert (reply.status, b"secret" in body) == (422, True)
        monkeypatch.setattr(PageServer, "is_loopback", property(lambda _self: False))
        reply, body = serving.get("/answer/file")
        assert (reply.status, b"secret" in body) == (422, False)
        assert serving.complaints == ["/home/somebody/secret.gguf: is damaged"]
        assert b"too long" in serving.get("/answer/long")[1]


def test_a_refusal_says_what_is_wrong() -> None:
    with Serving(page=Page(open_models([], silent), is_local=False)) as serving:
        reply, body = serving.get("/answer/verdicts?target=sd15&image=513")
        assert reply.status == 422
        assert json.loads(body)["key"] == "image"


# ---------------------------------------------------------------------- ports
def test_a_busy_port_is_one_clear_line_where_it_was_asked_for() -> None:
    with open_server("127.0.0.1", 0, FakePage(), print) as first:
        port = first.server_address[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is in use") as caught:
            open_server("127.0.0.1", port, FakePage(), print)
        assert "leave --port out" in caught.value.hint


def test_without_a_port_the_next_free_one_is_taken() -> None:
    with (
        open_server("127.0.0.1", None, FakePage(), print) as first,
        open_server("127.0.0.1", None, FakePage(), print) as second,
    ):
        ports = [server.server_address[1] for server in (first, second)]
    assert ports[0] >= PORT
    assert ports[0] != ports[1]


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-name.invalid", "x" * 300, "-", "a b"])
def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="--host"):
        open_server(host, 0, FakePage(), print)


def test_the_page_lies_in_the_package() -> None:
    assert Path(page_server.__file__).parent == ASSETS.parent
