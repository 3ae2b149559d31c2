"""The page as files, with vramplan itself in the browser: the same figures, and nobody is asked."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vramplan.page.in_browser import Answering

pytestmark = pytest.mark.browser

#: longer than any machine takes to load it
PATIENCE_MS = 180_000

#: the first bytes of a page's load may be so many, all files of it together
MOST_BYTES = 25_000_000

ASK = """async (questions) => {
  const worker = new Worker("worker.js", { type: "module" });
  const said = [];
  for (const [id, [question, link]] of questions.entries()) {
    said.push(await new Promise((resolve) => {
      worker.addEventListener("message", ({ data }) => {
        if (data.id === id && data.said !== undefined) resolve(data.said);
      });
      worker.postMessage({ id, question, link });
    }));
  }
  worker.terminate();
  return said;
}"""

QUESTIONS = [
    ("start", ""),
    ("verdicts", "target=sd15&card=8gb&card=12gb&image=768x640&batch=2"),
    ("verdicts", "target=sdxl&card=rtx-4060&dtype=bf16&vae_tiling=on"),
    ("verdicts", "target=llava:7b&card=4gb&context=16k"),
    ("verdicts", "target=llava-1.5-7b-hf&card=16gb&batch=2"),
    ("verdicts", "target=log-anomaly-ae&card=8gb&mode=train"),
    ("verdicts", "target=sd15&image=513"),
    ("plan", "target=sd15&card=4gb&image=1024x1024"),
    ("plan", "target=sdxl&card=8gb"),
    ("plan", "target=llava:7b&card=4gb"),
]


@pytest.fixture
def static_page(chromium, static_address) -> Iterator[Any]:
    """A blank tab; what it asks of anybody else, or complains of, fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    page.on("request", lambda one: one.url.startswith(static_address) or wrong.append(one.url))
    page.on("pageerror", lambda one: wrong.append(str(one)))
    page.on("console", lambda one: one.type in {"error", "warning"} and wrong.append(one.text))
    yield page
    context.close()
    assert wrong == []


def test_figures_are_those_of_python_elsewhere(static_page, static_address) -> None:
    static_page.goto(f"{static_address}?target=sd15&card=8gb")
    static_page.locator("#verdicts .tile").wait_for()
    here = Answering()
    said = static_page.evaluate(ASK, QUESTIONS)
    for (question, link), text in zip(QUESTIONS, said, strict=True):
        assert json.loads(text) == json.loads(here(question, link, lambda _: None)), link


def test_a_knob_is_turned_and_files_are_fetched_when_they_are_read(
    static_page, static_address
) -> None:
    fetched: list[str] = []
    static_page.on("request", lambda one: fetched.append(one.url.removeprefix(static_address)))
    sizes: list[int] = []
    static_page.on("requestfinished", lambda one: sizes.append(one.sizes()["responseBodySize"]))
    static_page.goto(f"{static_address}?target=sd15&card=8gb")
    static_page.locator("#plan .lead").wait_for()
    static_page.locator("[aria-busy]").first.wait_for(state="detached")
    assert static_page.inner_text("#verdicts .word") == "✓ Fits"
    assert "tapes/sdxl.json" not in fetched
    assert sum(sizes) < MOST_BYTES
    static_page.select_option("#model", "sdxl")
    static_page.locator("#verdicts .word").filter(has_text="Does not fit").wait_for()
    assert "tapes/sdxl.json" in fetched
    static_page.locator("[aria-busy]").first.wait_for(state="detached")
    static_page.get_by_role("button", name="Try it").first.click()
    static_page.locator("#verdicts .word").filter(has_text="Fits").wait_for()
    assert "offload=model" in static_page.url


def test_the_core_is_the_compiled_one(static_page, static_address) -> None:
    """Without it a plan takes half a minute: the library must be one that Pyodide loads."""
    static_page.goto(f"{static_address}?target=sd15&card=8gb")
    found = static_page.evaluate(
        """async () => {
          const { loadPyodide } = await import("./pyodide/pyodide.mjs");
          const python = await loadPyodide({ indexURL: new URL("pyodide/", location.href).href });
          const archive = await (await fetch("vramplan.zip")).arrayBuffer();
          python.unpackArchive(archive, "zip", { extractDir: "/package" });
          python.runPython("import sys; sys.path.insert(0, '/package')");
          return python.pyimport("vramplan.engines.door").core_in_words().toJs();
        }"""
    )
    assert found[0] is True, found[1]


def test_a_model_file_is_read_in_the_browser(static_page, static_address, tmp_path) -> None:
    pytest.importorskip("gguf")
    spec = importlib.util.spec_from_file_location(
        "sparse_gguf", Path(__file__).parents[1] / "sparse_gguf.py"
    )
    sparse = sys.modules.setdefault("sparse_gguf", importlib.util.module_from_spec(spec))
    spec.loader.exec_module(sparse)
    model = sparse.dense_layers(sparse.language_model(layers=4, words=32000))
    path = sparse.write(tmp_path / "mine.gguf", model)
    static_page.goto(f"{static_address}?target=sd15&card=8gb")
    static_page.locator("#verdicts .tile").wait_for()
    static_page.set_input_files("#file", path)
    static_page.locator("#knob-context").wait_for()
    static_page.locator("[aria-busy]").first.wait_for(state="detached")
    assert "target=mine&card=8gb" in static_page.url
    assert static_page.input_value("#model") == "mine"
    here = Answering()
    here.open(str(path))
    found = json.loads(here("verdicts", "target=mine&card=8gb", lambda _: None))["found"]
    assert found["verdicts"][0]["need"] in static_page.inner_text("#verdicts .needs")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and no more")
    static_page.set_input_files("#file", tmp_path / "broken.gguf")
    static_page.get_by_role("alert").filter(has_text="broken.gguf").wait_for()
