"""A browser and a page: Chromium by Playwright, and the server in this process.

``VRAMPLAN_CHROMIUM`` names the browser's program where it is not one of the usual ones.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vramplan.ask.targets import silent
from vramplan.page.answers import Page
from vramplan.page.offered import open_models
from vramplan.page.server import PageServer

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium; without one, or without Playwright, the test is left out."""
    playwright = pytest.importorskip("playwright.sync_api")
    named = os.environ.get("VRAMPLAN_CHROMIUM")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no Chromium here: VRAMPLAN_CHROMIUM names one")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of a page on this machine."""
    complaints: list[str] = []
    page = Page(open_models([], silent), is_local=False)
    server = PageServer("127.0.0.1", 0, page, complaints.append)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.url
    server.shutdown()
    server.server_close()
    thread.join()
    assert complaints == []


@pytest.fixture(scope="session")
def static_address(tmp_path_factory) -> Iterator[str]:
    """The address of the page as files, on a server that knows nothing but files.

    ``VRAMPLAN_PYODIDE`` names the folder of the npm package pyodide.
    """
    runtime = os.environ.get("VRAMPLAN_PYODIDE", "node_modules/pyodide")
    if not Path(runtime, "pyodide.mjs").is_file():
        pytest.skip("no Pyodide here: npm install pyodide, or name its folder: VRAMPLAN_PYODIDE")
    pytest.importorskip("ziglang")
    from tools.static_page.__main__ import main

    out = tmp_path_factory.mktemp("static")
    assert main(["--out", str(out), "--pyodide", runtime]) == 0
    handler = partial(_Files, directory=str(out))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


class _Files(SimpleHTTPRequestHandler):
    """Gives files, with the types that browsers insist on, and says nothing."""

    extensions_map: ClassVar[dict[str, str]] = {
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *_: object) -> None:
        """Keep no list of who asked what."""
