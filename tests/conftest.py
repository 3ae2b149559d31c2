"""What every test shares: golden files, markers left out with the reason printed, all cores.

The whole suite runs on every core, a file's tests in one process (pytest-xdist, of the extra dev),
and one process more, since some tests wait; a part of it runs as ever, and so does all of it
without that plugin, or with ``-n 0``.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, settings

# how long an example takes tells of the machine and of its other work
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

#: why a marked test is left out when no `-m` expression is given
LEFT_OUT = {
    "gpu": "needs an NVIDIA GPU and its driver",
    "slow": "takes more than some seconds",
    "witness": "needs torch's CUDA build: python -m tools.witness_environment makes a place for it",
    "network": "fetches something from the internet",
    "browser": "needs Chromium and pip install -e '.[browser]'",
}

GOLDEN = Path(__file__).parent / "golden"

_left_out = pytest.StashKey[Counter[str]]()
#: by the name of a test that is left out: how many there are of it
_alike = pytest.StashKey[dict[str, int]]()


#: no test takes what an earlier one worked out, nor do the processes that it starts
os.environ["VRAMPLAN_CACHE"] = "off"
#: nor does any ask a server of others'
os.environ["VRAMPLAN_OLLAMA_REGISTRY"] = "http://127.0.0.1:9"

# the tests start hundreds of processes: where byte code is not to be kept, each of them would
# compile all of the package anew, and each of those that share the tests every test
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# with torch and its friends loaded each look through all that is alive takes half a second
gc.set_threshold(200_000, 20, 100)

#: the files that take longest, the longest first (CPU seconds of 2026: 20 to 4): they begin first,
#: so that no process waits at the end for another that has just begun one of them
LONGEST = (
    *("test_campaign.py", "test_plan.py", "test_record_saved.py", "test_profile_compare.py"),
    *("test_engine_families.py", "test_native.py", "test_recorded_models.py", "test_fit.py"),
    *("test_sweep.py", "test_several_cards.py", "test_engine_witness.py", "test_library.py"),
    *("test_properties.py", "test_record_llava.py", "test_record_vit_mae.py", "test_accuracy.py"),
    *("test_record_entries.py", "test_record_proof.py", "test_codec.py", "test_record_vae.py"),
    *("test_record_autoencoders.py", "test_tapes_of_entries.py", "test_device_witness.py"),
    *("test_recorded_graphs.py", "test_graph_repeats.py", "test_layers.py", "test_model_files.py"),
    *("test_page_answers.py", "test_doctor.py", "test_run.py"),
)

#: the name of this process among those that share the tests; the cores are taken then
WORKER = "PYTEST_XDIST_WORKER"
if WORKER in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
    # such a process ignores Ctrl-C, and so would every process that a test starts and interrupts
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one flag that writes the golden files anew."""
    parser.addoption(
        "--refresh-golden", action="store_true", help="write tests/golden anew instead of comparing"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite on every core, where nothing else is asked for."""
    if WORKER in os.environ:  # one of those processes, or one that it started
        return
    options = config.option
    is_whole = config.args_source is not pytest.Config.ArgsSource.ARGS and not options.keyword
    if is_whole and getattr(options, "numprocesses", 0) is None and not options.usepdb:
        options.numprocesses = _cores() + 1
        options.dist = "loadfile"
        options.loadscopereorder = False  # by what they take (LONGEST), not by how many they are


def _cores() -> int:
    """Return on how many cores this process may run."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # elsewhere than on Linux
        return os.cpu_count() or 1


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
def without_recorder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no estimate record a saved model, which takes seconds, unless a test wants it."""
    if "recorder" not in request.fixturenames:
        from vramplan.engines.torch import recorded_model

        monkeypatch.setenv(recorded_model.SWITCH, "off")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let estimates record saved models; without the libraries the test is left out."""
    monkeypatch.delenv("VRAMPLAN_RECORD", raising=False)
    for name in ("torch", "diffusers", "transformers"):
        pytest.importorskip(name)


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


def _leaves_out(config: pytest.Config) -> bool:
    """Return whether marked tests are left out: no `-m` chooses, and none is named by its id."""
    return not config.option.markexpr and not any("::" in one for one in config.args)


def _marker(node: pytest.Item) -> str | None:
    """Return for what a test is left out, if it is."""
    return next((name for name in LEFT_OUT if node.get_closest_marker(name)), None)


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Iterator[None]:
    """Make one of the thousands of tests alike that are left out, and count them.

    Each process that shares the tests makes them all, in a second or two.
    """
    yield
    config = metafunc.config
    if _leaves_out(config) and _marker(metafunc.definition) is not None:
        name = metafunc.definition.nodeid
        config.stash.setdefault(_alike, {})[name] = max(1, len(metafunc._calls))
        del metafunc._calls[1:]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect marked tests unless `-m` chooses, or a test is named by its id."""
    if not _leaves_out(config):
        return
    alike = config.stash.get(_alike, {})
    chosen: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    counts: Counter[str] = Counter()
    for item in items:
        marker = _marker(item)
        if marker is None:
            chosen.append(item)
        else:
            dropped.append(item)
            counts[marker] += alike.get(item.nodeid.partition("[")[0], 1)
    config.stash[_left_out] = counts
    if WORKER in os.environ:  # every process has looked at all tests
        config.workeroutput["left_out"] = dict(counts)
        chosen.sort(key=_place)  # stable: within a file nothing changes
    items[:] = chosen
    if dropped:
        config.hook.pytest_deselected(items=dropped)


def _place(item: pytest.Item) -> int:
    """Return when a test's file begins among those that share the tests."""
    return LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take from a process that shares the tests what was left out."""
    node.config.stash[_left_out] = Counter(node.workeroutput.get("left_out", {}))


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
