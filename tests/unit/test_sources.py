"""Where models are found: folders, Ollama's store, and the hub by ranges."""

from __future__ import annotations

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
from vramplan.sources import hub_web
from vramplan.sources.hub import find_on_hub, read_from_hub
from vramplan.sources.model_folder import (
    find_in_lm_studio,
    find_projector_file,
    model_files,
)
from vramplan.sources.ollama_store import find_installed, nearest_installed, store_folders

pytest.importorskip("gguf")

_PATH = Path(__file__).parents[1] / "sparse_gguf.py"
_SPEC = importlib.util.spec_from_file_location("sparse_gguf", _PATH)
sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(_SPEC))
_SPEC.loader.exec_module(sparse)

DIGEST = "a" * 64


# -- folders ------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"")


def test_the_one_model_of_a_folder_is_found_and_its_projector(tmp_path) -> None:
    touch(tmp_path, "m.Q4_K_M.gguf", "mmproj-m-f32.gguf", "mmproj-m-f16.gguf", "README.md")
    (model,) = model_files(tmp_path)
    assert model.name == "m.Q4_K_M.gguf"
    assert find_projector_file(model).name == "mmproj-m-f16.gguf"


def test_of_a_split_model_the_first_part_stands_for_all(tmp_path) -> None:
    touch(tmp_path, "m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
    assert [path.name for path in model_files(tmp_path)] == ["m-00001-of-00002.gguf"]
    assert find_projector_file(tmp_path / "m-00001-of-00002.gguf") is None


def test_several_models_are_listed_and_none_is_said(tmp_path) -> None:
    with pytest.raises(SourceError, match="no GGUF file"):
        model_files(tmp_path)
    touch(tmp_path, "a.gguf", "b.gguf")
    assert [path.name for path in model_files(tmp_path)] == ["a.gguf", "b.gguf"]


# -- Ollama -------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path) -> Path:
    """A store with llava:7b, as Ollama lays it out."""
    folder = tmp_path / "models"
    (folder / "blobs").mkdir(parents=True)
    kinds = {"model": "1" * 64, "projector": "2" * 64, "params": "3" * 64}
    for digest in kinds.values():
        (folder / "blobs" / f"sha256-{digest}").write_bytes(b"")
    (folder / "blobs" / f"sha256-{kinds['params']}").write_text('{"num_ctx": 2048}')
    manifest = {
        "schemaVersion": 2,
        "config": {"digest": f"sha256:{DIGEST}"},
        "layers": [
            {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"}
            for kind, digest in kinds.items()
        ],
    }
    for place in ("registry.ollama.ai/library/llava/7b", "registry.ollama.ai/me/mine/latest"):
        path = folder / "manifests" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    "name", ["llava:7b", "library/llava:7b", "registry.ollama.ai/library/llava:7b", "me/mine"]
)
def test_an_installed_model_is_found_by_its_names(store, name) -> None:
    found = find_installed(name, {"OLLAMA_MODELS": str(store)})
    assert found.model.name == "sha256-" + "1" * 64
    assert found.projector.name == "sha256-" + "2" * 64
    assert found.parameters == {"num_ctx": 2048}


def test_a_model_that_is_not_installed_names_the_nearest(store) -> None:
    environment = {"OLLAMA_MODELS": str(store)}
    assert find_installed("llava:13b", environment) is None
    assert nearest_installed("llava:13b", environment) == "did you mean 'llava:7b'?"
    assert nearest_installed("x", environment) == "installed: llava:7b, me/mine:latest"
    assert nearest_installed("x", {"OLLAMA_MODELS": str(store / "none")}) is None


def test_a_blob_that_is_gone_is_named(store) -> None:
    (store / "blobs" / ("sha256-" + "1" * 64)).unlink()
    with pytest.raises(SourceError, match="a file of it is gone") as raised:
        find_installed("llava:7b", {"OLLAMA_MODELS": str(store)})
    assert raised.value.hint == "ollama pull llava:7b"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/../b:c", "..", "a:..", "a//b", "", "a:b:c/d", "a b", "x/y/z/w"]
)
def test_a_name_leads_nowhere_else(store, name) -> None:
    with pytest.raises(SourceError):
        find_installed(name, {"OLLAMA_MODELS": str(store)})


@pytest.mark.parametrize(
    "manifest",
    [
        "{",
        "[]",
        '{"layers": 1}',
        '{"layers": []}',
        '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "../x"}]}',
        '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": 7}]}',
        "[" * 100_000,
    ],
)
def test_a_hostile_manifest_is_one_line(store, manifest) -> None:
    (store / "manifests/registry.ollama.ai/library/llava/7b").write_text(manifest)
    with pytest.raises(SourceError) as raised:
        find_installed("llava:7b", {"OLLAMA_MODELS": str(store)})
    assert "\n" not in str(raised.value)


def test_the_store_is_where_the_environment_says_or_where_ollama_keeps_it() -> None:
    assert store_folders({"OLLAMA_MODELS": "/x"}) == [Path("/x")]
    assert store_folders({"HOME": "/h"})[0] == Path("/h/.ollama/models")


# -- LM Studio ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".lmstudio", ".cache/lm-studio", "elsewhere"])
def test_lm_studios_models_are_found_by_name(tmp_path, place) -> None:
    folder = tmp_path / place / "models" / "pub" / "Model-7B-GGUF"
    folder.mkdir(parents=True)
    touch(folder, "m.gguf")
    if place == "elsewhere":
        (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path / place}\n")
    home = {"HOME": str(tmp_path)}
    assert find_in_lm_studio("pub/Model-7B-GGUF", home) == folder
    assert find_in_lm_studio("pub/Model-7B-GGUF/m.gguf", home) == folder / "m.gguf"
    assert find_in_lm_studio("pub/Other", home) is None


@pytest.mark.parametrize(
    "name", ["../x", "pub/../..", "pub", "/etc/passwd", "pub/a\0b", "a/" * 500]
)
def test_lm_studios_names_lead_nowhere_else(tmp_path, name) -> None:
    (tmp_path / ".lmstudio-home-pointer").write_text("\0\0")
    assert find_in_lm_studio(name, {"HOME": str(tmp_path)}) is None
    assert find_in_lm_studio("pub/model", {"HOME": str(tmp_path)}) is None


# -- the hub ------------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """A hub with one file behind a redirection; what was asked is kept."""

    daemon_threads = True

    def __init__(self, data: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.status = 206
        self.elsewhere = ""
        self.parts: dict[str, bytes] = {}
        self.listing = json.dumps([{"path": "a.gguf"}, {"path": "README.md"}]).encode()
        self.is_over = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        headers = self.headers
        self.server.asked.append((self.path, headers["Range"], headers["Authorization"]))
        if "/api/models/" in self.path:
            self.reply(200, self.server.listing)
        elif self.server.status == 0:
            self.wfile.write(b"\0\xff\r\n\r\n")
        elif self.server.status in (1, 2):  # a byte of the body, or a header, now and then
            self.send_response(206)
            if self.server.status == 1:
                self.end_headers()
            self.drip(b"G" if self.server.status == 1 else b"X: y\r\n")
        elif self.server.status == 302:
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
        elif self.server.status != 206:
            self.reply(self.server.status, b"no")
        elif self.server.parts:
            self.server.data = self.server.parts.get(self.path.rpartition("/")[2], b"")
            whole = self.server.data
            first, last = headers["Range"].removeprefix("bytes=").split("-")
            self.reply(206 if whole else 404, whole[int(first) : int(last) + 1])
        elif "resolve" in self.path:
            self.send_response(302)
            self.send_header("Location", f"{self.server.elsewhere or self.server.address}/blob")
            self.end_headers()
        else:
            first, last = headers["Range"].removeprefix("bytes=").split("-")
            if int(first) >= len(self.server.data):
                self.reply(416, b"")
            else:
                self.reply(206, self.server.data[int(first) : int(last) + 1])

    def drip(self, piece: bytes) -> None:
        self.flush_headers()
        with suppress(OSError):
            while not self.server.is_over.wait(0.02):
                self.wfile.write(piece)
                self.wfile.flush()

    def reply(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        with suppress(OSError):  # the reader has what it wanted
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path) -> Iterator[Hub]:
    model = sparse.dense_layers(sparse.language_model(words=40_000))
    path = sparse.write(tmp_path / "m.gguf", model)
    with path.open("rb") as file, Hub(file.read(6 << 20)) as one:
        threading.Thread(target=one.serve_forever, args=[0.01], daemon=True).start()
        yield one
        one.is_over.set()
        one.shutdown()


def at(hub: Hub, tmp_path: Path, **more: str) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "none"), **more}


def test_a_header_is_read_by_ranges_and_no_more_than_it(hub, tmp_path) -> None:
    file = read_from_hub("org/name:m.gguf", at(hub, tmp_path))
    assert file.architecture == "llama"
    assert file.lengths["tokenizer.ggml.tokens"] == 40_000
    ranges = [asked[1] for asked in hub.asked if asked[0] == "/blob"]
    assert ranges[0] == "bytes=0-1048575"
    assert sum(int(r.split("-")[1]) - int(r.split("=")[1].split("-")[0]) for r in ranges) < 5 << 20


def test_all_parts_of_a_split_model_are_read(hub, tmp_path) -> None:
    parts = {}
    for number in range(2):
        model = sparse.Model("llama", words=0)
        model.general = {"split.count": 2, "split.no": number}
        model.add(f"blk.{number}.attn_q.weight", 256, 256)
        path = sparse.write(tmp_path / f"part{number}", model)
        parts[f"m-{number + 1:05}-of-00002.gguf"] = path.read_bytes()
    hub.parts = parts
    file = read_from_hub("org/name:q4/m-00001-of-00002.gguf", at(hub, tmp_path))
    assert [one.name for one in file.tensors] == ["blk.0.attn_q.weight", "blk.1.attn_q.weight"]
    del parts["m-00002-of-00002.gguf"]
    with pytest.raises(SourceError, match="no such file"):
        read_from_hub("org/name:q4/m-00001-of-00002.gguf", at(hub, tmp_path))


def test_a_token_goes_to_the_hub_and_not_along_to_another_host(hub, tmp_path) -> None:
    hub.elsewhere = hub.address.replace("127.0.0.1", "localhost")
    read_from_hub("org/name:m.gguf", at(hub, tmp_path, HF_TOKEN="secret"))
    tokens = {path: token for path, _, token in hub.asked}
    assert tokens["/org/name/resolve/main/m.gguf"] == "Bearer secret"
    assert tokens["/blob"] is None


def test_without_a_file_the_files_are_listed(hub, tmp_path) -> None:
    with pytest.raises(SourceError, match="name a file") as raised:
        read_from_hub("org/name", at(hub, tmp_path))
    assert raised.value.hint == "hf:org/name:a.gguf"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, "cannot be read"),
        (302, "sent on in a circle"),
        (401, "not for everybody"),
        (404, "no such file"),
        (500, "HTTP 500"),
    ],
)
def test_a_refusal_is_one_line(hub, tmp_path, status, said) -> None:
    hub.status = status
    with pytest.raises(SourceError, match=said):
        read_from_hub("org/name:m.gguf", at(hub, tmp_path))


@pytest.mark.parametrize(
    ("named", "said", "hint"),
    [
        ("RepoNotFound", "no such repository, or one that is not for everybody", "its name"),
        ("GatedRepo", "not for everybody", "accept its terms"),
    ],
)
def test_who_has_no_token_is_told_of_what_is_not_there_too(named, said, hint) -> None:
    refused = hub_web._refused("https://huggingface.co/api/models/a/b", 401, named)
    assert f": {said} (HTTP 401)" in str(refused)
    assert hint in str(refused.hint)


@pytest.mark.parametrize("status", [1, 2], ids=["body", "headers"])
def test_a_server_that_drips_is_left(hub, tmp_path, monkeypatch, status) -> None:
    monkeypatch.setattr("vramplan.sources.hub_web._LONGEST_ANSWER", 0.3)
    hub.status = status
    said = r"cannot be read: (not there after 0\.3 seconds|it does not come to an end)"
    with pytest.raises(SourceError, match=said):
        read_from_hub("org/name:m.gguf", at(hub, tmp_path))
    assert not hub.is_over.is_set(), "it still drips, and would for ever"


def test_all_answers_together_have_a_limit(hub, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("vramplan.sources.hub_web._LONGEST_QUESTION", 0)
    with pytest.raises(SourceError, match="cannot be read: "):
        read_from_hub("org/name:m.gguf", at(hub, tmp_path))


@pytest.mark.parametrize(
    ("asked", "file"),
    [
        ("Q4_K_M", "m-Q4_K_M.gguf"),
        ("q8_0", "big/m-q8_0-00001-of-00002.gguf"),
        ("UD-Q4_K_XL", "m-UD-Q4_K_XL.gguf"),
        ("bf16", "m.BF16.gguf"),
    ],
)
def test_a_quantisation_names_its_file(hub, tmp_path, asked, file) -> None:
    names = [
        "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q4_K_M_L.gguf", "m-IQ4_XS.gguf", "m-UD-Q4_K_XL.gguf",
        "big/m-q8_0-00001-of-00002.gguf", "big/m-q8_0-00002-of-00002.gguf", "m.BF16.gguf",
        "mmproj-BF16.gguf", "README.md",
    ]  # fmt: skip
    hub.listing = json.dumps([{"path": name} for name in names]).encode()
    read_from_hub(f"org/name:{asked}", at(hub, tmp_path))
    assert f"/org/name/resolve/main/{file}" in [path for path, *_ in hub.asked]


@pytest.mark.parametrize(
    ("asked", "model", "projector"),
    [
        ("org/name:Q4_K_M", "m-Q4_K_M.gguf", "mmproj-Q8_0.gguf"),
        ("org/name:BF16", "big/m-BF16.gguf", "big/mmproj-F16.gguf"),
        ("org/name:q6_k/m-Q6_K.gguf", "q6_k/m-Q6_K.gguf", "mmproj-Q8_0.gguf"),
        ("org/name", "m-Q4_K_M.gguf", "mmproj-Q8_0.gguf"),
    ],
)
def test_a_projector_comes_along(hub, tmp_path, asked, model, projector) -> None:
    names = [
        "imatrix.gguf", "m-Q4_K_M.gguf", "m-Q8_0.gguf", "mtp-m-Q4_K_M.gguf", "big/m-BF16.gguf",
        "big/mmproj-F16.gguf", "mmproj-F16.gguf", "mmproj-Q8_0.gguf", "other/mmproj-Q4_0.gguf",
        "q6_k/m-Q6_K.gguf",
    ]  # fmt: skip
    hub.listing = json.dumps([{"path": name} for name in names]).encode()
    found = find_on_hub(asked, at(hub, tmp_path))
    assert (found.file, found.projector_file) == (model, projector)
    read = [path.rpartition("resolve/main/")[2] for path, *_ in hub.asked if "resolve" in path]
    assert set(read) == {model, projector}


def test_a_model_alone_comes_alone(hub, tmp_path) -> None:
    hub.listing = b'[{"path": "m-Q5_K_M.gguf"}, {"path": "other/mmproj-F16.gguf"}]'
    found = find_on_hub("org/name", at(hub, tmp_path))
    assert (found.file, found.projector) == ("m-Q5_K_M.gguf", None)


def test_nobody_asks_for_a_projector_where_one_is_given(hub, tmp_path) -> None:
    hub.listing = b'[{"path": "m-Q4_K_M.gguf"}, {"path": "mmproj-F16.gguf"}]'
    found = find_on_hub("org/name", at(hub, tmp_path), wants_projector=False)
    assert (found.file, found.projector) == ("m-Q4_K_M.gguf", None)
    assert not any("mmproj" in path for path, *_ in hub.asked)


def _keep(hub: Hub, tmp_path: Path, *names: str) -> dict[str, str]:
    """Return an environment whose local cache has these files."""
    folder = tmp_path / "none" / "hub" / "models--org--name" / "snapshots" / "abc"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(hub.data)
    return at(hub, tmp_path, HF_HUB_OFFLINE="1")


def test_without_a_network_what_was_kept_is_enough(hub, tmp_path) -> None:
    environ = _keep(hub, tmp_path, "q/m-Q4_K_M.gguf", "mmproj-F16.gguf")
    for asked in ("org/name", "org/name:Q4_K_M", "org/name:q/m-Q4_K_M.gguf"):
        found = find_on_hub(asked, environ)
        assert (found.file, found.projector_file) == ("q/m-Q4_K_M.gguf", "mmproj-F16.gguf")
    for asked in ("org/name:other.gguf", "org/other", "org/other:Q8_0"):
        with pytest.raises(SourceError, match="not in the local cache, and HF_HUB_OFFLINE is set"):
            find_on_hub(asked, environ)
    assert hub.asked == []
    nobody = {**environ, "HF_HUB_OFFLINE": "", "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert find_on_hub("org/name", nobody).file == "q/m-Q4_K_M.gguf"


def test_of_several_usual_files_none_is_taken_nor_the_next_quantisation(hub, tmp_path) -> None:
    names = ["a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "a-Q8_0.gguf"]
    hub.listing = json.dumps([{"path": name} for name in names]).encode()
    with pytest.raises(SourceError, match="name a file") as raised:
        find_on_hub("org/name", at(hub, tmp_path))
    assert raised.value.hint == "hf:org/name:a-Q4_K_M.gguf, b-Q4_K_M.gguf"


@pytest.mark.parametrize("listing", [b"[", b"{}", b'[{"path": 1}]'])
def test_a_file_is_read_where_nothing_is_listed(hub, tmp_path, listing) -> None:
    hub.listing = listing
    found = find_on_hub("org/name:m.gguf", at(hub, tmp_path))
    assert (found.file, found.projector) == ("m.gguf", None)


@pytest.mark.parametrize("asked", ["Q3_K_M", "Q4_0"])
def test_a_quantisation_of_no_file_or_of_several_names_none(hub, tmp_path, asked) -> None:
    hub.listing = b'[{"path": "a-Q4_0.gguf"}, {"path": "b-Q4_0.gguf"}]'
    with pytest.raises(SourceError, match="name a file") as raised:
        read_from_hub(f"org/name:{asked}", at(hub, tmp_path))
    assert raised.value.hint == "hf:org/name:a-Q4_0.gguf, b-Q4_0.gguf"


@pytest.mark.parametrize(
    ("listing", "said"),
    [
        *((one, "not JSON") for one in (b"[" * 100_000, b"{", b"\xff", b"9" * 5_000)),
        *((one, "no GGUF file in it") for one in (b'[1, {}, {"path": 3}]', b"null")),
    ],
)
def test_a_listing_that_is_none_lists_nothing(hub, tmp_path, listing, said) -> None:
    hub.listing = listing
    with pytest.raises(SourceError, match=said):
        read_from_hub("org/name", at(hub, tmp_path))


@pytest.mark.parametrize(
    "token", ["hf_sesame\nX: y", "hf_sesame two", "hf_s\u00e9same", "hf_\0sesame"]
)
def test_a_token_that_is_none_is_not_shown(hub, tmp_path, token) -> None:
    with pytest.raises(SourceError, match="HF_TOKEN: not a token") as raised:
        read_from_hub("org/name:m.gguf", at(hub, tmp_path, HF_TOKEN=token))
    assert "same" not in f"{raised.value} {raised.value.hint}"
    assert not hub.asked


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://[::1", "http://", "ftp://a", "huggingface.co", "http://a:99999999", "http://a b",
        "http://a\nb", "http://me:sesame@a", "http://" + "a" * 70 + ".example", "http://²",
        "file:///etc/passwd",
    ],
)  # fmt: skip
def test_an_endpoint_that_is_none_is_one_line(tmp_path, endpoint) -> None:
    with pytest.raises(SourceError, match="HF_ENDPOINT: not the address of a hub") as raised:
        read_from_hub("org/name", {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)})
    assert "sesame" not in str(raised.value)


def test_a_body_that_does_not_end_is_cut_off(hub, tmp_path) -> None:
    hub.data = b"GGUF\x03\0\0\0" + b"\0" * 16 + b"\xff" * (4 << 20)
    file = read_from_hub("org/name:m.gguf", at(hub, tmp_path))
    assert file.tensors == ()


def test_a_file_of_the_cache_needs_no_network(tmp_path) -> None:
    folder = tmp_path / "hub" / "models--org--name" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    sparse.write(folder / "m.gguf", sparse.dense_layers(sparse.language_model()))
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    assert read_from_hub("org/name:m.gguf", environment).architecture == "llama"
    with pytest.raises(SourceError, match="cannot be read"):
        read_from_hub("org/name:other.gguf", environment)


@pytest.mark.parametrize("text", ["org", "org/name:../x.gguf", "o/n:x.bin", "a/b/c:x.gguf", "/"])
def test_what_is_no_name_of_a_file_is_refused(tmp_path, text) -> None:
    with pytest.raises(SourceError):
        read_from_hub(text, {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)})
