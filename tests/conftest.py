"""What every test shares: golden files, and markers left out with the reason printed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

#: why a marked test is left out when no `-m` expression is given
LEFT_OUT = {
    "gpu": "needs an NVIDIA GPU and its driver",
    "slow": "takes more than some seconds",
    "witness": "needs torch's CUDA build: python -m tools.witness_environment makes a place for it",
    "network": "fetches something from the internet",
}

GOLDEN = Path(__file__).parent / "golden"

_left_out = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one flag that writes the golden files anew."""
    parser.addoption(
        "--refresh-golden", action="store_true", help="write tests/golden anew instead of comparing"
    )


class Calls:
    """Counts the calls of functions, Python's and C's, that are made inside a ``with``.

    What is to be quick is bounded by them: a clock tells of the machine and of its other work.
    """

    def __init__(self) -> None:
        self.made = 0

    def __enter__(self) -> Self:
        self.made = 0
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, _frame: object, event: str, _what: object) -> None:
        self.made += event in {"call", "c_call"}


@pytest.fixture(scope="session")
def calls() -> Calls:
    """Return a counter of calls."""
    return Calls()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the golden file of that name, or write it with --refresh-golden."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--refresh-golden"):
            path.write_text(text, encoding="utf-8", newline="\n")
        expected = path.read_text(encoding="utf-8") if path.exists() else ""
        assert text == expected, f"{name} differs; look at it, then run pytest --refresh-golden"

    return compare


@pytest.fixture(autouse=True)
def without_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no estimate ask the real llama.cpp, which may be installed, unless a test wants it."""
    if "engine" not in request.fixturenames:
        from vramplan.engines.ggml import witnessed

        monkeypatch.setattr(witnessed, "LIBRARY", "no_engine_here")


@pytest.fixture
def engine() -> None:
    """Let estimates ask the real llama.cpp; skip where it is not installed."""
    pytest.importorskip("xllamacpp")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect marked tests unless `-m` chooses, or a test is named by its id."""
    if config.option.markexpr or any("::" in argument for argument in config.args):
        return
    chosen: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    counts: Counter[str] = Counter()
    for item in items:
        marker = next((name for name in LEFT_OUT if item.get_closest_marker(name)), None)
        if marker is None:
            chosen.append(item)
        else:
            dropped.append(item)
            counts[marker] += 1
    config.stash[_left_out] = counts
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = chosen


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was left out, why, and how to run it."""
    for marker, count in sorted(config.stash.get(_left_out, Counter()).items()):
        tests = "1 test" if count == 1 else f"{count} tests"
        terminalreporter.write_line(
            f"left out: {tests} marked {marker} ({LEFT_OUT[marker]}); "
            f"run with: python -m pytest -m {marker}"
        )
