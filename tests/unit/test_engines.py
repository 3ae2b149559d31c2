"""Engines measured from outside: logs as they were posted, and servers that answer as they do."""

from __future__ import annotations

import itertools
import json
import os
import socket
import stat
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from vramplan.engines.ggml.run.llama_server import (
    ServerJob,
    command_of,
    find_server,
    measure_server,
)
from vramplan.engines.ggml.run.load_log import read_log
from vramplan.engines.ggml.run.ollama import OllamaJob, measure_ollama, own_share, server_address
from vramplan.engines.ggml.run.ollama import _read_ps as read_ps
from vramplan.engines.ggml.run.served_run import EngineOutcome, EngineTools, a_picture, a_prompt
from vramplan.errors import MissingError, UsageError
from vramplan.measurement.reading import DeviceMemory, ProcessMemory, Reading
from vramplan.measurement.run import FailureKind
from vramplan.probe.smi_probe import SmiLook

LOGS = Path(__file__).parents[1] / "data" / "engine_logs"
ANSWERS = Path(__file__).parents[1] / "data" / "engine_answers"
MIB = 1 << 20


def buffers_of(name: str) -> dict[tuple[str, str], float]:
    log = read_log((LOGS / name).read_text().splitlines())
    return {(one.device, one.name): one.size_bytes / MIB for one in log.buffers}


# -- logs ---------------------------------------------------------------------------------------


def test_a_log_of_2024_with_a_projector_and_a_part_of_the_layers() -> None:
    found = buffers_of("ollama-2706.log")
    expected = {
        ("GPU", "projector"): 595.49,
        ("GPU", "projector compute"): 32.89,
        ("CPU", "model"): 3917.87,
        ("CUDA0", "model"): 702.19,
        ("CUDA_Host", "KV"): 208.00,
        ("CUDA0", "KV"): 48.00,
        ("CUDA0", "compute"): 164.01,
        ("CUDA_Host", "compute"): 168.00,
    }
    assert found == {key: pytest.approx(size, abs=0.001) for key, size in expected.items()}
    log = read_log((LOGS / "ollama-2706.log").read_text().splitlines())
    assert log.layers == (6, 33)
    assert log.failure is None


def test_a_context_that_is_made_again_counts_once() -> None:
    log = read_log((LOGS / "llama.cpp-b4863.log").read_text().splitlines())
    found = buffers_of("llama.cpp-b4863.log")
    assert found["CUDA0", "KV"] == pytest.approx(200)
    assert found["CPU", "KV"] == pytest.approx(440)
    assert found["CUDA0", "compute"] == pytest.approx(203.99, abs=0.001)
    assert (log.build, log.layers, log.compute_capability) == ("b4863", (10, 33), "7.0")
    assert log.settings["n_ubatch"] == "512"


def test_what_was_refused_is_known_to_the_byte() -> None:
    failure = read_log((LOGS / "ik-llama.cpp-235.log").read_text().splitlines()).failure
    assert failure is not None
    assert failure.kind is FailureKind.OOM
    assert failure.asked_bytes == 9332334592
    assert "allocating 8900.01 MiB" in failure.message


def test_colours_and_what_flash_attention_became_are_read() -> None:
    log = read_log(
        [
            "\x1b[34m1.16\x1b[0m \x1b[32mI \x1b[0mllama_context: flash_attn    = auto",
            "\x1b[34m1.16\x1b[0m \x1b[32mI \x1b[0mclip_ctx: CUDA0 compute buffer size = 32.89 MiB",
            "llama_context: Flash Attention was auto, set to enabled",
        ]
    )
    assert log.settings["flash_attn"] == "enabled"
    assert [one.name for one in log.buffers] == ["projector compute"]


def test_a_log_behind_the_journals_words_and_several_gpus() -> None:
    found = buffers_of("ollama-2266.log")
    assert found["CUDA0", "model"] == pytest.approx(4695.56, abs=0.001)
    assert found["CUDA1", "model"] == pytest.approx(3912.97, abs=0.001)


def test_the_log_of_todays_engine() -> None:
    """The forms that llama.cpp b11549 prints (src/llama-model.cpp, src/llama-context.cpp)."""
    lines = """\
build: 11549 (abcdef0) with cc for x86_64-linux-gnu
ggml_cuda_init: found 1 CUDA devices:
  Device 0: NVIDIA GeForce RTX 3060, compute capability 8.6, VMM: yes
load_tensors: offloaded 33/33 layers to GPU
load_tensors:   CPU_Mapped model buffer size =    70.31 MiB
load_tensors:        CUDA0 model buffer size =  3847.55 MiB
llama_context: n_ctx         = 4096
llama_context: n_ubatch      = 512
llama_context: flash_attn    = auto
llama_context:  CUDA_Host  output buffer size =     0.12 MiB
llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB
llama_memory_recurrent:      CUDA0 RS buffer size =     1.25 MiB
sched_reserve:      CUDA0 compute buffer size =   164.01 MiB
sched_reserve:      CUDA0 compute buffer size =   160.01 MiB
clip_ctx: CLIP using CUDA0 backend
load_hparams: model size:         595.49 MiB
alloc_compute_meta:      CUDA0 compute buffer size =    32.89 MiB
""".splitlines()
    log = read_log(lines)
    found = {(one.device, one.name): one.size_bytes / MIB for one in log.buffers}
    assert found["CUDA0", "model"] == pytest.approx(3847.55, abs=0.001)
    assert found["CUDA_Host", "output"] == pytest.approx(0.12, abs=0.001)
    assert found["CUDA0", "RS"] == 1.25
    assert found["CUDA0", "compute"] == pytest.approx(160.01, abs=0.001), "printed again: the last"
    assert found["CUDA0", "projector compute"] == pytest.approx(32.89, abs=0.001)
    assert found["GPU", "projector"] == pytest.approx(595.49, abs=0.001)
    assert (log.build, log.compute_capability) == ("b11549", "8.6")
    assert log.settings["n_ctx"] == "4096"


def test_the_log_that_todays_server_printed() -> None:
    log = read_log((LOGS / "llama-server-b11549-cpu.log").read_text().splitlines())
    found = {(one.device, one.name): one.size_bytes / MIB for one in log.buffers}
    assert found == {
        ("CPU_Mapped", "model"): pytest.approx(0.46, abs=0.001),
        ("CPU", "output"): 0,
        ("CPU", "KV"): 0.25,
        ("CPU", "compute"): pytest.approx(1.64, abs=0.001),
    }
    assert log.settings["flash_attn"] == "enabled", "auto, and what it became"
    assert (log.settings["n_ctx"], log.failure) == ("512", None)


@pytest.mark.parametrize(
    ("line", "build"),
    [
        ("build: 11549 (abcdef0) with cc for x86_64-linux-gnu", "b11549"),
        ("main: build = 4863 (4e39a3c33)", "b4863"),
        ("0.00.002.721 I srv          init: build_info: b9554-d403f00ec", "b9554"),
        ("0.00.002.721 I srv          init: build_info: b0-unknown", None),
    ],
)
def test_the_build_is_known_however_it_is_said(line: str, build: str | None) -> None:
    assert read_log([line]).build == build


def test_what_the_card_refused_is_known() -> None:
    log = read_log(
        [
            "alloc_buffer: allocating 9216.00 MiB on device 0: cudaMalloc failed: out of memory",
            "alloc_tensor_range: failed to allocate CUDA0 buffer of size 9663676416",
            "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        ]
    )
    assert log.failure.kind is FailureKind.OOM
    assert log.failure.asked_bytes == 9216 * MIB


class LongLine(str):
    """A line of which no more than its beginning is looked at."""

    __slots__ = ()
    looks = 0

    def __getitem__(self, key):
        assert isinstance(key, slice)
        assert 0 < key.stop <= 2_000
        LongLine.looks += 1
        return super().__getitem__(key)


def test_a_strangers_log_is_bounded(calls) -> None:
    line = LongLine("load_tensors: CUDA0 model buffer size = 1.2.3 MiB" + " x" * 100_000)
    LongLine.looks = 0
    with calls:
        log = read_log([line] * 2_000)
    assert log.buffers[0].size_bytes == 0
    assert LongLine.looks == 2_000
    assert calls.made < 100_000, calls.made
    assert read_log(itertools.repeat("x")).buffers == [], "a log without an end has one here"


# -- servers ------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Answers as Ollama does; what was asked is kept."""

    daemon_threads = True

    def __init__(self, handler: type[Handler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or Handler)
        self.asked: list[tuple[str, dict]] = []
        self.error: dict | None = None
        self.listed: object = [{"name": "llava:7b"}, {"name": "llama3:latest"}]
        self.last: dict = {"response": "", "done": True}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.path, {}))
        answers = {
            "/api/version": {"version": "0.14.2"},
            "/api/tags": {"models": self.server.listed},
            "/api/ps": {
                "models": [
                    {
                        "name": "llava:7b",
                        "size": 6 << 30,
                        "size_vram": 5 << 30,
                        "context_length": 4096,
                    }
                ]
            },
        }
        self.answer([answers[self.path]])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        if self.server.error is not None and "prompt" in body:
            self.answer([self.server.error], 500)
        elif body.get("stream"):
            self.answer([{"response": "a", "done": False}, self.server.last])
        else:
            self.answer([{"done": True}])

    def answer(self, lines: list[dict], status: int = 200) -> None:
        self.send_response(status)
        self.end_headers()
        for line in lines:
            self.wfile.write(json.dumps(line).encode() + b"\n")


class RecordedHandler(Handler):
    """Answers in the very bytes that were recorded, and in chunks as Ollama sends them."""

    protocol_version = "HTTP/1.1"
    ps = "ollama-ps.json"

    def do_GET(self) -> None:
        files = {"/api/version": "ollama-version.json", "/api/tags": "ollama-tags.json"}
        self.send(files.get(self.path, self.ps), "application/json; charset=utf-8")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body))
        name = "ollama-generate.ndjson" if body.get("stream") else "ollama-load.json"
        self.send(name, "application/x-ndjson" if body.get("stream") else "application/json")

    def send(self, name: str, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in (ANSWERS / name).read_bytes().splitlines(keepends=True):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def server() -> Iterator[Server]:
    yield from serving(Server())


@pytest.fixture
def recorded() -> Iterator[Server]:
    yield from serving(Server(RecordedHandler))


def serving(one: Server) -> Iterator[Server]:
    with one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


class Card:
    """A card on which Ollama's runner holds what is said."""

    def read(self) -> Reading:
        memory = DeviceMemory(
            total_bytes=16 << 30,
            used_bytes=5 << 30,
            free_bytes=11 << 30,
            reserved_bytes=None,
            processes=(
                ProcessMemory(pid=1, name="/usr/bin/ollama", used_bytes=4 << 30),
                ProcessMemory(pid=2, name="Xorg", used_bytes=1 << 30, kind="G"),
            ),
        )
        return Reading(at_s=time.monotonic(), device=memory)


def a_job(server: Server, **more: object) -> OllamaJob:
    settings = {"context": 4096, "ubatch": 512, "gpu_layers": "all"}
    job = OllamaJob(model="llava:7b", settings=settings, has_vision=True, address=server.address)
    return replace(job, **more)


def test_a_model_of_ollama_is_loaded_asked_with_a_picture_and_unloaded(server) -> None:
    outcome = measure_ollama(a_job(server), EngineTools(probe=Card(), own=own_share))
    assert outcome.failure is None
    assert outcome.versions == {"ollama": "0.14.2"}
    places = [(one.turn, one.phase) for one in outcome.stretches]
    assert places == [
        ("load", "load"),
        ("cold", "encode_image"),
        ("cold", "generate"),
        ("warm", "encode_image"),
        ("warm", "generate"),
    ]
    assert {one.process_used_bytes for one in outcome.stretches} == {4 << 30}
    assert outcome.held.process_used_bytes == 4 << 30
    sizes = {one.device: one.size_bytes for one in outcome.buffers}
    assert sizes == {"GPU": 5 << 30, "CPU": 1 << 30}
    bodies = [body for path, body in server.asked if path == "/api/generate"]
    assert bodies[0]["keep_alive"] == 0, "what was loaded before does not count"
    assert bodies[1]["options"] == {"num_ctx": 4096, "num_batch": 512, "num_gpu": 999}
    assert bodies[2]["images"]
    assert bodies[-1]["keep_alive"] == 0
    assert outcome.phase_ends == []


class Smi:
    """nvidia-smi's eyes, which see for `looks` times."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.problem: str | None = None

    def look(self) -> SmiLook | None:
        if not self.looks:
            self.problem = "it took longer than 3 s"
            return None
        self.looks -= 1
        memory = Card().read().device
        assert memory is not None
        return SmiLook(text="words", memory=replace(memory, used_bytes=6 << 30))


def test_the_end_of_each_phase_of_an_engine_is_seen_by_nvidia_smi_too(server) -> None:
    eyes = Smi(looks=2)
    tools = EngineTools(probe=Card(), own=own_share, smi_eyes=eyes)
    outcome = measure_ollama(a_job(server), tools)
    assert [(one.turn, one.phase, one.component) for one in outcome.phase_ends] == [
        ("load", "load", "language_model"),
        ("cold", "encode_image", "language_model"),
    ]
    one = outcome.phase_ends[0]
    assert (one.device_used_bytes, one.smi_used_bytes) == (5 << 30, 6 << 30)
    assert (one.process_used_bytes, one.smi_process_bytes) == (4 << 30, 4 << 30)
    assert outcome.notes == [
        "nvidia-smi was not asked again at the ends of phases: it took longer than 3 s"
    ]
    for before, after in pairwise(outcome.stretches):  # what it did meanwhile is of what follows
        assert after.began_s == before.ended_s


def test_what_ollama_answered_is_understood(recorded) -> None:
    job = a_job(recorded, model="granite3.3:2b", has_vision=False)
    outcome = measure_ollama(job, EngineTools(probe=Card(), own=own_share))
    assert outcome.failure is None
    assert outcome.versions == {"ollama": "0.10.1"}
    assert [(one.turn, one.phase) for one in outcome.stretches] == [
        ("load", "load"),
        ("cold", "prefill"),
        ("cold", "generate"),
        ("warm", "prefill"),
        ("warm", "generate"),
    ]
    assert (outcome.buffers, outcome.facts) == ([], {}), "it holds another model by then"
    with pytest.raises(MissingError, match="does not have minicpm-v:7b") as raised:
        measure_ollama(replace(job, model="minicpm-v:7b"), EngineTools())
    assert "minicpm-v:8b" in raised.value.hint


@pytest.mark.parametrize(
    ("name", "ps", "size", "facts"),
    [
        (
            "hf.co/bartowski/Ministral-8B-Instruct-2410-GGUF:IQ4_XS",
            "ollama-ps.json",
            5668653056,
            {"ollama_context": "4096"},
        ),
        ("gemma3:latest", "ollama-ps-no-context.json", 5964735424, {}),
    ],
)
def test_what_ollama_said_it_holds_is_taken_down(
    recorded, monkeypatch, name, ps, size, facts
) -> None:
    monkeypatch.setattr(RecordedHandler, "ps", ps)
    outcome = EngineOutcome()
    read_ps(a_job(recorded), name, outcome)
    assert {one.device: one.size_bytes for one in outcome.buffers} == {"GPU": size, "CPU": 0}
    assert outcome.facts == facts


def test_an_ollama_that_runs_out_of_memory_is_a_result(server) -> None:
    server.error = {
        "error": "llama runner process has terminated: cudaMalloc failed: out of memory"
    }
    outcome = measure_ollama(a_job(server), EngineTools())
    assert outcome.failure.kind is FailureKind.OOM
    assert outcome.failure.phase == "encode_image"
    bodies = [body for path, body in server.asked if path == "/api/generate"]
    assert bodies[-1]["keep_alive"] == 0


@pytest.mark.parametrize(
    ("last", "kind", "said"),
    [
        ({"error": "CUDA error: out of memory"}, FailureKind.OOM, "out of memory"),
        ({"error": "model runner has unexpectedly stopped"}, FailureKind.ERROR, "unexpectedly"),
        ({"response": "b", "done": False}, FailureKind.CRASH, "broke off"),
    ],
)
def test_an_ollama_that_fails_in_the_middle_of_its_answer_is_a_failure(
    server, last, kind, said
) -> None:
    """HTTP's status is long sent by then: the error is a line of the stream."""
    server.last = last
    outcome = measure_ollama(a_job(server), EngineTools())
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.failure.phase) == (kind, "generate")
    assert said in outcome.failure.message


@pytest.mark.parametrize("listed", [None, {}, [None, 3], "llava:7b"])
def test_a_server_without_models_does_not_have_this_one(server, listed) -> None:
    server.listed = listed
    with pytest.raises(MissingError, match="does not have llava:7b"):
        measure_ollama(a_job(server), EngineTools())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"\x00\x01 no HTTP\r\n\r\n", "not as HTTP does"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>a router</html>", "but not as one"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"version": "0.', "but not as one"),
        (b'HTTP/1.1 500 Oh\r\nContent-Length: 99\r\n\r\n{"error": "bo', "Oh"),
        (b"", "nobody answers"),
    ],
)
def test_what_answers_and_is_no_ollama_is_one_line(answer, said) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def reply() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threading.Thread(target=reply, daemon=True).start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        job = OllamaJob(model="llava:7b", settings={}, has_vision=False, address=address)
        with pytest.raises(MissingError, match=said):
            measure_ollama(job, EngineTools())


def test_a_model_that_is_not_there_is_named_with_the_nearest(server) -> None:
    with pytest.raises(MissingError, match="does not have llava:8b") as raised:
        measure_ollama(a_job(server, model="llava:8b"), EngineTools())
    assert raised.value.hint == "ollama pull llava:8b; did you mean 'llava:7b'?"


def test_a_server_that_does_not_answer_is_one_line() -> None:
    job = OllamaJob(model="x", settings={}, has_vision=False, address="http://127.0.0.1:9")
    with pytest.raises(MissingError, match="no Ollama server") as raised:
        measure_ollama(job, EngineTools())
    assert "ollama serve" in raised.value.hint


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", "http://127.0.0.1:11434"),
        ("10.0.0.5", "http://10.0.0.5:11434"),
        ("10.0.0.5:80", "http://10.0.0.5:80"),
        ("0.0.0.0", "http://127.0.0.1:11434"),  # noqa: S104  # what a server listens on
        ("https://example.org", "https://example.org:443"),
        ("http://example.org", "http://example.org:80"),
        ("[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_the_address_is_what_ollamas_client_takes(text, address) -> None:
    assert server_address({"OLLAMA_HOST": text}) == address


@pytest.mark.parametrize("text", ["ftp://x", "http://x:99999", "http://"])
def test_an_address_that_is_none_is_refused(text) -> None:
    with pytest.raises(UsageError, match="not an address"):
        server_address({"OLLAMA_HOST": text})


def test_the_picture_is_a_png() -> None:
    data = a_picture(8)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    packed = data[data.index(b"IDAT") + 4 : data.index(b"IEND") - 8]
    assert len(zlib.decompress(packed)) == 8 * (1 + 3 * 8)


#: a server that loads at once, answers, and logs as llama.cpp does
FAKE_SERVER = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
words = sys.argv
open({seen!r}, "w").write(json.dumps(words))
print("load_tensors: offloaded 33/33 layers to GPU", file=sys.stderr)
print("load_tensors:        CUDA0 model buffer size =  3847.55 MiB", file=sys.stderr)
print("llama_kv_cache:      CUDA0 KV buffer size =   512.00 MiB", file=sys.stderr, flush=True)
{early}
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self): self.reply(b'{{"status":"ok"}}')
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        {late}
        self.reply({first}, {rest})
    def reply(self, data, rest=b""):
        self.send_response(200); self.end_headers(); self.wfile.write(data + rest)
HTTPServer(("127.0.0.1", int(words[words.index("--port") + 1])), Handler).serve_forever()
"""


#: how an answer ends
LAST = b'data: {"choices":[{"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


#: how it begins
FIRST = b'data: {"choices":[{"finish_reason":null}]}\n\n'


def a_server(
    tmp_path: Path,
    early: str = "",
    late: str = "pass",
    first: bytes = FIRST,
    rest: bytes = LAST,
) -> ServerJob:
    path = tmp_path / "llama-server"
    seen = str(tmp_path / "seen")
    path.write_text(
        FAKE_SERVER.format(
            python=sys.executable, seen=seen, early=early, late=late, first=first, rest=rest
        )
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    settings = {"context": 4096, "gpu_layers": 20, "kv_type": "q8_0", "flash_attention": "on"}
    return ServerJob(model=Path("m.gguf"), settings=settings, command=(str(path),))


def test_a_server_of_our_own_is_started_asked_and_ended(tmp_path) -> None:
    outcome = measure_server(a_server(tmp_path), EngineTools())
    assert outcome.failure is None
    assert outcome.facts["layers_on_gpu"] == "33 of 33"
    assert {one.name: one.size_bytes for one in outcome.buffers}["KV"] == 512 * MIB
    assert [one.phase for one in outcome.stretches] == [
        "load", "prefill", "generate", "prefill", "generate",
    ]  # fmt: skip
    words = json.loads((tmp_path / "seen").read_text())
    assert words[words.index("-ngl") + 1] == "20"
    assert words[words.index("-ctk") + 1] == "q8_0"
    assert words[words.index("-lv") + 1] == "4", "today's server is silent about buffers below"
    assert not _runs(words[0])


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({"parallel": "auto", "kv_unified": "auto", "swa_full": "off"}, []),
        ({"parallel": 4, "kv_unified": "auto"}, ["-np", "4"]),
        ({"parallel": 4, "kv_unified": "on"}, ["-np", "4", "--kv-unified"]),
        ({"parallel": 4, "kv_unified": "off"}, ["-np", "4", "--no-kv-unified"]),
        ({"swa_full": "on"}, ["--swa-full"]),
    ],
)
def test_a_server_is_told_of_its_caches_where_the_settings_do(settings, flags) -> None:
    def words(chosen) -> list[str]:
        return command_of(ServerJob(model=Path("m.gguf"), settings=chosen), 1)

    plain = words({})
    assert words(settings) == plain + flags


@pytest.mark.parametrize(
    ("early", "late", "phase"),
    [
        ("sys.exit('failed to allocate: out of memory')", "pass", "load"),
        ("", "import os; os._exit(3)", "prefill"),
    ],
)
def test_a_server_that_dies_is_a_result_with_its_place(tmp_path, early, late, phase) -> None:
    outcome = measure_server(a_server(tmp_path, early, late), EngineTools())
    assert outcome.failure.phase == phase
    kinds = {"load": FailureKind.OOM, "prefill": FailureKind.CRASH}
    assert outcome.failure.kind is kinds[phase]
    assert outcome.buffers, "what it had allocated is kept"


@pytest.mark.parametrize(
    ("rest", "said", "kind"),
    [
        (b"", "broke off", FailureKind.CRASH),
        (b'data: {"error":{"message":"decode failed"}}\n\n', "decode failed", FailureKind.ERROR),
    ],
)
def test_an_answer_of_our_server_that_does_not_end_well_is_a_failure(
    tmp_path, rest, said, kind
) -> None:
    outcome = measure_server(a_server(tmp_path, rest=rest), EngineTools())
    assert outcome.failure is not None
    assert (outcome.failure.kind, outcome.failure.phase) == (kind, "generate")
    assert said in outcome.failure.message


def answered(name: str) -> bytes:
    return (ANSWERS / name).read_bytes()


def test_what_todays_server_answered_is_understood(tmp_path) -> None:
    events = answered("llama-server-b11549-chat.sse")
    outcome = measure_server(a_server(tmp_path, first=b"", rest=events), EngineTools())
    assert outcome.failure is None
    assert len(outcome.stretches) == 5


def test_an_answer_that_was_cut_off_has_not_ended(tmp_path) -> None:
    """Two events of b9554, where each carries timings and the model thinks aloud."""
    events = answered("llama-server-b9554-reasoning.sse")
    outcome = measure_server(a_server(tmp_path, first=b"", rest=events), EngineTools())
    assert (outcome.failure.kind, outcome.failure.phase) == (FailureKind.CRASH, "generate")


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("llama-server-b11549-too-long.json", 400, "exceeds the available context size"),
        ("llama-server-b11549-no-projector.json", 500, "you may need to provide the mmproj"),
    ],
)
def test_what_todays_server_refuses_is_told_in_its_words(tmp_path, name, status, said) -> None:
    late = f"self.send_response({status}); self.end_headers()"
    late += f"; self.wfile.write({answered(name)!r}); return"
    outcome = measure_server(a_server(tmp_path, late=late), EngineTools())
    assert (outcome.failure.kind, outcome.failure.phase) == (FailureKind.ERROR, "prefill")
    assert said in outcome.failure.message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, 512),
        ({"context": "auto", "ubatch": 2048}, 512),
        ({"context": 4096, "ubatch": 128}, 128),
        ({"context": 512}, 256),
        ({"context": 1024, "parallel": 4}, 128),
        ({"context": 1}, 1),
    ],
)
def test_a_prompt_fills_a_batch_and_leaves_room_in_the_context(settings, words) -> None:
    assert a_prompt(settings) == "word " * words


def test_a_server_that_never_loads_is_ended(tmp_path) -> None:
    job = a_server(tmp_path, "import time; time.sleep(60)")
    outcome = measure_server(job, EngineTools(limit_seconds=1.0))
    assert "has not loaded the model" in outcome.failure.message
    assert not _runs(job.command[0])


def test_all_layers_and_the_projector_are_words_of_the_command() -> None:
    job = ServerJob(model=Path("m.gguf"), mmproj=Path("p.gguf"), settings={"gpu_layers": "all"})
    words = command_of(job, 1234)
    assert words[words.index("--mmproj") + 1] == "p.gguf"
    assert words[words.index("-ngl") + 1] == "999"


@pytest.mark.parametrize(
    ("experts", "said"), [(0, []), (12, ["--n-cpu-moe", "12"]), ("all", ["--cpu-moe"])]
)
def test_what_is_left_to_the_engine_is_not_said(experts: object, said: list[str]) -> None:
    chosen = {"context": "auto", "ubatch": 256, "gpu_layers": "auto", "cpu_moe": experts}
    words = command_of(ServerJob(model=Path("m.gguf"), settings=chosen), 1234)
    assert words[words.index("1234") + 1 :] == ["-ub", "256", *said]


def test_a_server_that_is_not_installed_is_one_line(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match="not on the PATH"):
        find_server()


def _runs(binary: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if binary.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                return True
        except OSError:
            continue
    return False
