"""The page as files: what they are, and that what is packed is enough to answer."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import hatch_build
from tools.static_page import wasm_core
from tools.static_page.__main__ import RUNTIME, main, with_policy, write_page
from vramplan.page.in_browser import Answering
from vramplan.page.server import ASSETS, FILES


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The page, with a runtime that is none."""
    runtime = tmp_path_factory.mktemp("runtime")
    for name in RUNTIME:
        (runtime / name).write_text(name)
    out = tmp_path_factory.mktemp("out")
    write_page(out, runtime, b"a core")
    return out


def test_it_is_the_server_s_page_but_for_how_it_asks(written: Path) -> None:
    for name, _ in FILES.values():
        is_same = (written / name).read_bytes() == (ASSETS / name).read_bytes()
        assert is_same is (name not in {"index.html", "transport.js"}), name
    page = (written / "index.html").read_text()
    assert "script-src 'self' 'wasm-unsafe-eval'" in page
    assert "default-src 'none'" in page
    assert "unsafe-inline" not in page


CC = shutil.which("cc") or ""


@pytest.mark.skipif(not CC, reason="no C compiler here")
def test_what_the_core_takes_of_the_c_library_is_declared_for_the_browser() -> None:
    """A compiler for WebAssembly brings no headers: ours beside it have to say all of it."""
    own = subprocess.run(
        [CC, "-print-file-name=include"], capture_output=True, text=True, check=True
    ).stdout.strip()
    where = ("-nostdinc", "-isystem", str(wasm_core.INCLUDE), "-isystem", own)
    sources = [str(path) for path in hatch_build.sources() if path.suffix == ".c"]
    said = subprocess.run(
        [
            *(CC, "-std=c99", "-fsyntax-only", "-ffreestanding", *where),
            *("-Werror=implicit-function-declaration", *sources),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr


def test_a_page_without_its_first_line_is_refused() -> None:
    with pytest.raises(ValueError, match="has lost the line"):
        with_policy("<html></html>")


def test_large_files_are_not_packed_but_fetched(written: Path) -> None:
    packed = zipfile.ZipFile(written / "vramplan.zip").namelist()
    assert wasm_core.PLACE in packed
    assert not [name for name in packed if "/tapes/" in name or "/graphs/" in name]
    fetched = json.loads((written / "files.json").read_text())
    assert {one["name"] for one in fetched} >= {"results.json", "sd15.json"}
    for one in fetched:
        assert (written / one["address"]).is_file()
        assert f"{one['folder']}/{one['name']}" not in packed


def test_what_is_packed_answers_without_any_library(written: Path, tmp_path) -> None:
    zipfile.ZipFile(written / "vramplan.zip").extractall(tmp_path)
    (tmp_path / wasm_core.PLACE).unlink()
    for one in json.loads((written / "files.json").read_text()):
        (tmp_path / one["folder"]).mkdir(exist_ok=True)
        (tmp_path / one["folder"] / one["name"]).write_bytes(
            (written / one["address"]).read_bytes()
        )
    asked = [("start", ""), ("verdicts", "target=sd15&card=8gb"), ("verdicts", "target=none")]
    asked += [("verdicts", f"target={name}&card=8gb") for name in ("llava:7b", "denoising-ae")]
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]);"
        "from vramplan.page.in_browser import Answering; answering = Answering();"
        f"print(json.dumps([answering(*one, print) for one in {asked!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    here = Answering()
    assert found == [here(question, link, lambda _: None) for question, link in asked]
    assert json.loads(found[2])["problem"]["error"] == "this page has no model 'none'"


def test_steps_are_told() -> None:
    told: list[str] = []
    Answering()("verdicts", "target=sd15&card=8gb", told.append)
    assert told[0] == "sd15 on 8gb"


def test_without_the_runtime_nothing_is_written(tmp_path, capsys) -> None:
    assert main(["--out", str(tmp_path / "out"), "--pyodide", str(tmp_path)]) == 1
    assert "npm install pyodide" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_core_is_a_library_that_emscripten_loads() -> None:
    pytest.importorskip("ziglang")
    library = wasm_core.build()
    assert library.startswith(b"\x00asm\x01\x00\x00\x00\x00")
    assert b"dylink.0" in library[:32]
    assert b"vramplan_run" in library


def test_a_file_that_the_browser_was_given_is_offered(tmp_path) -> None:
    pytest.importorskip("gguf")
    spec = importlib.util.spec_from_file_location(
        "sparse_gguf", Path(__file__).parents[1] / "sparse_gguf.py"
    )
    sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(sparse)
    model = sparse.dense_layers(sparse.language_model(layers=2, words=64))
    path = sparse.write(tmp_path / "mine.gguf", model)
    answering = Answering()
    assert json.loads(answering.open(str(path))) == {"found": "mine"}
    start = json.loads(answering("start", "", print))["found"]
    assert start["models"][0]["models"][0]["name"] == "mine"
    said = json.loads(answering("verdicts", "target=mine&card=8gb&context=2048", print))
    assert said["found"]["verdicts"][0]["kind"] == "fits"
    path.write_bytes(b"no such thing")
    assert "error" in json.loads(answering.open(str(path)))["problem"]
