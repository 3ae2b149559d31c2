"""Our modules are found by their byte code, and only where Python itself would take it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from vramplan import quick_import

_ASKED = """
import sys
from vramplan import quick_import
quick_import.install()
import vramplan.inner.leaf as leaf
import inspect, vramplan.inner, importlib.resources
assert vramplan.inner.__path__ == [leaf.__file__.removesuffix("/leaf.py")], vramplan.inner.__path__
assert inspect.getsource(leaf) == open(leaf.__file__).read()
assert leaf.__cached__ == leaf.__spec__.cached and leaf.__spec__.parent == "vramplan.inner"
assert importlib.resources.files("vramplan.inner").joinpath("leaf.py").is_file()
print(leaf.VALUE, type(leaf.__spec__.loader).__name__)
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a folder with a package of our name, in which there is what is under test."""
    inner = tmp_path / "vramplan" / "inner"
    inner.mkdir(parents=True)
    own = Path(quick_import.__file__)
    for name in ("__init__.py", "quick_typing.py", "quick_import.py"):
        text = "" if name == "__init__.py" else (own.parent / name).read_text(encoding="utf-8")
        (tmp_path / "vramplan" / name).write_text(text, encoding="utf-8")
    (inner / "__init__.py").touch()
    _write(inner / "leaf.py", 1)
    return tmp_path


def _write(path: Path, value: int, seconds: int = 1_700_000_000) -> None:
    path.write_text(f"VALUE = {value}\n", encoding="utf-8")
    os.utime(path, (seconds, seconds))


def _ask(package: Path, *options: str, asked: str = _ASKED, **environment: str) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-S", *options, "-c", asked],
        capture_output=True,
        text=True,
        check=False,
        cwd=package,
        env={**kept, "PYTHONPATH": str(package), **environment},
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_byte_code_is_taken_while_its_source_is_as_it_was(package: Path) -> None:
    leaf = package / "vramplan" / "inner" / "leaf.py"
    assert _ask(package) == "1 SourceFileLoader", "there is none yet"
    assert _ask(package) == "1 _Loader"
    _write(leaf, 2, seconds=1_700_000_001)
    assert _ask(package) == "2 SourceFileLoader", "of another time"
    assert _ask(package) == "2 _Loader", "Python has compiled it anew"
    _write(leaf, 34, seconds=1_700_000_001)
    assert _ask(package) == "34 SourceFileLoader", "of another size"
    compiled = next(leaf.parent.glob("__pycache__/leaf.*.pyc"))
    compiled.write_bytes(b"\0\0\0\0" + compiled.read_bytes()[4:])
    assert _ask(package) == "34 SourceFileLoader", "another Python's"
    compiled.write_bytes(compiled.read_bytes()[:9])
    assert _ask(package) == "34 SourceFileLoader", "cut short"


_ASKED_FIRST = """
import sys

class Asked:
    seen = []

    @classmethod
    def find_spec(cls, name, path, target=None):
        cls.seen.append(name)

sys.meta_path.insert(0, Asked)
"""


def test_whoever_looks_before_python_still_does(package: Path) -> None:
    _ask(package)
    asked = f"{_ASKED_FIRST}{_ASKED}\nprint('vramplan.inner.leaf' in Asked.seen)"
    assert _ask(package, asked=asked).split() == ["1", "_Loader", "True"]


def test_a_folder_that_was_copied_with_its_byte_code_tells_its_own_files(
    package: Path, tmp_path: Path
) -> None:
    leaf = package / "vramplan" / "inner" / "leaf.py"
    leaf.write_text("VALUE = 1\ndef call(): pass\n", encoding="utf-8")
    os.utime(leaf, (1_700_000_000, 1_700_000_000))
    _ask(package)
    copied = tmp_path / "copied"
    shutil.copytree(package / "vramplan", copied / "vramplan")
    asked = f"{_ASKED}\nassert leaf.call.__code__.co_filename == leaf.__file__"
    assert _ask(copied, asked=asked) == "1 _Loader"


def test_no_module_of_ours_is_two_things_at_once() -> None:
    """Python takes a package before a module, and an extension before both."""
    own = Path(quick_import.__file__).parent
    files = [path for path in own.rglob("*") if path.suffix in (".py", ".so", ".pyd")]
    packages = [path.parent for path in files if path.name == "__init__.py"]
    modules = [path for path in files if path.name != "__init__.py"]
    names = [*packages, *(path.parent / path.name.partition(".")[0] for path in modules)]
    assert len(names) > 100
    assert [name for name, times in Counter(names).items() if times > 1] == []


def test_byte_code_of_another_kind_is_left_to_python(package: Path) -> None:
    _ask(package)
    assert _ask(package, "-O") == "1 SourceFileLoader"
    elsewhere = {"PYTHONPYCACHEPREFIX": str(package / "elsewhere")}
    assert _ask(package, **elsewhere) == "1 SourceFileLoader"
    leaf = package / "vramplan" / "inner" / "leaf.py"
    code = "import py_compile as p; p.compile({!r}, invalidation_mode={})"
    mode = "p.PycInvalidationMode.CHECKED_HASH"
    subprocess.run([sys.executable, "-c", code.format(str(leaf), mode)], check=True)
    assert _ask(package) == "1 SourceFileLoader", "it goes by a sum of its source"
