"""Models of Ollama's library that are not installed, read from a registry by ranges."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vramplan.errors import SourceError
from vramplan.sources.ollama_registry import is_on_hub, read_from_registry

pytest.importorskip("gguf")

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

MEDIA = "application/vnd.ollama.image."


class Registry(ThreadingHTTPServer):
    """Manifests and blobs, as Ollama's registry serves them: blobs lie on another host."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.status = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, name: str, **layers: bytes) -> None:
        """Serve a model of these layers."""
        listed = []
        for kind, data in layers.items():
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            self.blobs[digest] = data
            listed.append({"mediaType": f"{MEDIA}{kind}", "digest": digest, "size": len(data)})
        config = b"{}"
        digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
        self.blobs.setdefault(digest, config)
        self.manifests[name] = json.dumps(
            {"schemaVersion": 2, "config": {"digest": digest}, "layers": listed}
        ).encode()


class Answer(BaseHTTPRequestHandler):
    server: Registry

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        headers = self.headers
        self.server.asked.append((self.path, headers["Range"], headers["Authorization"]))
        if self.server.status:
            self.reply(self.server.status, b"no")
        elif "/manifests/" in self.path:
            found = self.server.manifests.get(self.path.removeprefix("/v2/"))
            self.reply(404 if found is None else 200, found or b"{}")
        elif self.path.startswith("/v2/"):
            self.send_response(307)
            place = self.path.rpartition("/")[2]
            self.send_header("Location", f"http://localhost:{self.server.server_port}/{place}")
            self.end_headers()
        else:
            data = self.server.blobs.get(self.path[1:], b"")
            told = headers["Range"]
            first, last = told.removeprefix("bytes=").split("-") if told else ("0", str(len(data)))
            self.reply(206 if told else 200, data[int(first) : int(last) + 1])

    def reply(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        with suppress(OSError):  # the reader has what it wanted
            self.wfile.write(data)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as one:
        threading.Thread(target=one.serve_forever, args=[0.01], daemon=True).start()
        yield one
        one.shutdown()


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("m") / "m.gguf"
    with sparse.write(path, sparse.dense_layers(sparse.language_model())).open("rb") as file:
        return file.read(1 << 20)


def at(registry: Registry, **more: str) -> dict[str, str]:
    return {"VRAMPLAN_OLLAMA_REGISTRY": registry.address, "HF_TOKEN": "secret", **more}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("some:7b", "library/some/manifests/7b"),
        ("some", "library/some/manifests/latest"),
        ("me/some:q8", "me/some/manifests/q8"),
        ("registry.ollama.ai/library/some:7b", "library/some/manifests/7b"),
    ],
)
def test_a_model_is_read_by_the_names_that_ollama_pull_takes(registry, header, name, place) -> None:
    registry.put(place, model=header, params=b'{"num_ctx": 2048}', license=b"long")
    found = read_from_registry(name, at(registry))
    assert found.model.architecture == "llama"
    assert found.parameters == {"num_ctx": 2048}
    assert found.projector is None
    assert found.left_out == ()
    assert {token for _, _, token in registry.asked} == {None}  # the hub's token is not its
    blobs = [asked for asked in registry.asked if "/manifests/" not in asked[0]]
    assert all(bytes_ is None or bytes_.startswith("bytes=0-") for _, bytes_, _ in blobs)


def test_what_only_an_installed_model_is_planned_with_is_named(registry, header) -> None:
    registry.put(
        "library/some/manifests/7b", model=header, projector=header, adapter=b"a", draft=b"d"
    )
    found = read_from_registry("some:7b", at(registry))
    assert found.left_out == ("an adapter", "a model that guesses ahead")
    assert found.projector is not None


def test_a_repository_of_the_hub_is_asked_at_the_hub(registry, header) -> None:
    registry.put("org/name-GGUF/manifests/Q4_K_M", model=header)
    environment = {"HF_ENDPOINT": registry.address, "HF_TOKEN": "secret"}
    found = read_from_registry("hf.co/org/name-GGUF:Q4_K_M", environment)
    assert found.model.architecture == "llama"
    assert is_on_hub("hf.co/org/name-GGUF:Q4_K_M")
    assert not is_on_hub("me/hf.co:7b")
    tokens = {path: token for path, _, token in registry.asked}
    assert tokens["/v2/org/name-GGUF/manifests/Q4_K_M"] == "Bearer secret"
    assert all(token is None for path, token in tokens.items() if not path.startswith("/v2/"))


def test_a_name_that_there_is_not_says_where_names_are(registry) -> None:
    with pytest.raises(SourceError, match="neither installed, nor in the library") as raised:
        read_from_registry("nothing:7b", at(registry))
    assert "ollama.com/search" in str(raised.value.hint)


def test_other_registries_are_not_asked(registry) -> None:
    with pytest.raises(SourceError, match=r"registry\.example is not asked for models"):
        read_from_registry("registry.example/me/some:7b", at(registry))
    assert registry.asked == []


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_refusal_is_one_line(registry, status) -> None:
    registry.status = status
    with pytest.raises(SourceError, match=f"HTTP {status}") as raised:
        read_from_registry("some:7b", at(registry))
    assert "\n" not in str(raised.value)


def test_nobody_there_is_one_line_and_says_what_to_do() -> None:
    environment = {"VRAMPLAN_OLLAMA_REGISTRY": "http://127.0.0.1:1"}
    with pytest.raises(SourceError, match="some:7b: not installed, and http") as raised:
        read_from_registry("some:7b", environment)
    assert raised.value.hint == "ollama pull some:7b, where there is a network"


@pytest.mark.parametrize("address", ["nowhere", "ftp://a", "https://me:word@host", "https://"])
def test_an_address_that_is_none_is_one_line_and_not_shown(address) -> None:
    with pytest.raises(SourceError, match="VRAMPLAN_OLLAMA_REGISTRY: not the address") as raised:
        read_from_registry("some:7b", {"VRAMPLAN_OLLAMA_REGISTRY": address})
    assert address not in str(raised.value)


@pytest.mark.parametrize(
    "manifest",
    [
        b"{",
        b"[]",
        b'{"layers": 1}',
        b'{"layers": []}',
        b'{"layers": [], "config": {"digest": "../../x"}}',
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "../x"}]}',
        b'{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": 7}]}',
        b"[" * 100_000,
    ],
)
def test_a_hostile_manifest_is_one_line(registry, manifest) -> None:
    registry.manifests["library/some/manifests/7b"] = manifest
    with pytest.raises(SourceError) as raised:
        read_from_registry("some:7b", at(registry))
    assert "\n" not in str(raised.value)


def test_models_without_a_gguf_are_named_for_what_they_are(registry) -> None:
    registry.put("library/mlx/manifests/7b", tensor=b"t", params=b"{}")
    with pytest.raises(SourceError, match="1 tensors in safetensors"):
        read_from_registry("mlx:7b", at(registry))
    registry.put("library/far/manifests/cloud", params=b"{}")
    digest = json.loads(registry.manifests["library/far/manifests/cloud"])["config"]["digest"]
    registry.blobs[digest] = b'{"remote_host": "https://ollama.com"}'
    with pytest.raises(SourceError, match="a model of Ollama's cloud"):
        read_from_registry("far:cloud", at(registry))


def test_what_is_no_gguf_is_one_line(registry) -> None:
    registry.put("library/some/manifests/7b", model=b"\0" * 100)
    with pytest.raises(SourceError):
        read_from_registry("some:7b", at(registry))


def test_an_installed_model_is_found_without_its_prefix(tmp_path: Path) -> None:
    from vramplan.sources.ollama_store import is_installed

    place = tmp_path / "manifests/registry.ollama.ai/library/some/7b"
    place.parent.mkdir(parents=True)
    place.write_text("{}")
    environment = {"OLLAMA_MODELS": str(tmp_path)}
    assert is_installed("some:7b", environment)
    assert not is_installed("some:8b", environment)
    assert not is_installed("../some:7b", environment)
