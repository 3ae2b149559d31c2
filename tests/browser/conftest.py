"""A browser and a page: Chromium by Playwright, and the server in this process.

``VRAMPLAN_CHROMIUM`` names the browser's program where it is not one of the usual ones.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from typing import Any

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
