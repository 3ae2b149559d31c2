"""The page's answers where Python itself runs in the browser: text in, text out.

Nothing of a machine is there to be asked, and no server: a worker of the browser calls `Answering`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from vramplan.ask.targets import silent
from vramplan.errors import VramplanError
from vramplan.page.answers import Page, problem_object
from vramplan.page.offered import open_models


class Answering:
    """Answers as JSON text: ``{"found": …}``, or ``{"problem": …}`` for what cannot be answered."""

    def __init__(self, catalog: Sequence[str | Path] = ()) -> None:
        self._page = Page(open_models([], silent, catalog=catalog), is_local=False)

    def __call__(self, question: str, link: str, tell: Callable[[str], object]) -> str:
        """Return the answer to a question about a link; `tell` hears the steps of long work."""

        def hear(step: str) -> None:
            tell(step)

        try:
            found = self._page.answer(question, link, hear)
        except VramplanError as problem:
            return json.dumps({"problem": problem_object(problem)})
        return json.dumps({"found": found}, separators=(",", ":"))

    def open(self, path: str) -> str:
        """Offer a model file that the browser was given, and answer with its name."""
        try:
            return json.dumps({"found": self._page.offer(path)})
        except VramplanError as problem:
            return json.dumps({"problem": problem_object(problem)})
