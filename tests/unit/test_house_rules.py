"""Rules of the house that no linter has: a silenced lint says why, and no cache grows for ever."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("vramplan", "tools", "benchmarks", "docs", "tests")
    for path in (ROOT / folder).rglob("*.py")
)

_SILENCED = re.compile(r"#\s*(noqa|type:\s*ignore|pragma|pyright:|mypy:|ruff:|nosec|pylint:)")
_WITH_REASON = re.compile(r"# ((ruff: )?noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\])  # \S.{2,}")


def comments(text: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def silenced_without_reason(text: str) -> list[int]:
    """Return the lines whose comment silences a lint and does not say why beside it."""
    return [
        number
        for number, said in comments(text)
        if _SILENCED.match(said) and not _WITH_REASON.match(said)
    ]


@pytest.mark.parametrize(
    ("line", "is_fine"),
    [
        ("x = 1  # noqa: S101  # the reader's invariant", True),
        ("x = 1  # type: ignore[index]  # plain JSON", True),
        ("x = 1  # noqa: S101", False),
        ("x = 1  # noqa", False),
        ("x = 1  # type: ignore", False),
        ("x = 1  # noqa: S101 - the reader's invariant", False),
        ("x = 1  # pragma: no cover", False),
        ('x = "# noqa: S101"', True),
    ],
)
def test_what_counts_as_a_reason(line: str, is_fine: bool) -> None:
    assert bool(silenced_without_reason(line + "\n")) is not is_fine


def test_every_silenced_lint_carries_its_reason_on_its_line() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES
        for number in silenced_without_reason(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_every_lint_ignored_by_the_project_or_a_folder_carries_its_reason() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lint = tomllib.loads(text)["tool"]["ruff"]["lint"]
    lines = text.splitlines()
    for rule in lint["ignore"]:
        (line,) = [one for one in lines if one.strip().startswith(f'"{rule}",')]
        assert re.search(r'",\s*# \S.{2,}', line), line
    for pattern, rules in lint["per-file-ignores"].items():
        at = next(n for n, one in enumerate(lines) if one.startswith(f'"{pattern}" = ['))
        has_one = re.search(r"\]\s*# \S.{2,}", lines[at]) or lines[at - 1].startswith("# ")
        each = [one for one in lines[at + 1 : at + 1 + len(rules)] if "# " in one]
        assert has_one or each, lines[at]


# ------------------------------------------------------------------------------------- caches
#: empty containers of a module that something is put into, and what bounds them
FILLED = {
    ("vramplan/engines/door.py", "_others"): "an entry a runtime that somebody installs",
    ("vramplan/engines/ggml/witness/llama_library.py", "_KEPT"): "one load a process: a child's",
    ("vramplan/engines/torch/witness/program_record.py", "CORE"): "one load a process: a child's",
    ("vramplan/engines/torch/witness/program_record.py", "REMARKS"): "a process has 16 at most",
    ("vramplan/engines/ggml/witness/unread.py", "_KEPT"): "one library a process: a child's",
}


def unbounded_caches(text: str) -> list[str]:
    """Return a module's caches that are never emptied: functions by name, containers by name.

    A function may be remembered without bound where it takes no argument, or is made within another
    and goes with that call. A container counts as bounded where the module has ``while len(…) > …``
    about it, or about what it is read into.
    """
    tree = ast.parse(text)
    found = []
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in (part for place in (tree, *classes) for part in place.body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found += [node.name for one in node.decorator_list if not _is_bounded(one, node)]
    watched = {
        ast.unparse(node.test.left.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.While)
        and isinstance(node.test, ast.Compare)
        and isinstance(node.test.left, ast.Call)
        and ast.unparse(node.test.left.func) == "len"
    }
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        is_empty = value is not None and ast.unparse(value) in {"{}", "[]", "set()", "dict()"}
        if isinstance(target, ast.Name) and is_empty and not watched & _names_of(tree, target.id):
            found.append(target.id)
    return found


def _is_bounded(decorator: ast.expr, function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    name = ast.unparse(decorator.func if isinstance(decorator, ast.Call) else decorator)
    arguments = function.args
    takes = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    if name.rpartition(".")[2] == "cache":
        return not takes
    if name.rpartition(".")[2] == "lru_cache":
        given = decorator.keywords if isinstance(decorator, ast.Call) else []
        return any(one.arg == "maxsize" and _is_number(one.value) for one in given)
    return True


def _is_number(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, int)


def _names_of(tree: ast.Module, container: str) -> set[str]:
    """Return the container's name, and names that one of its values is given."""
    read = {
        ast.unparse(node.targets[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and ast.unparse(node.value).startswith((f"{container}[", f"{container}.setdefault("))
    }
    return {container, *read}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("@cache\ndef f(x): pass", ["f"]),
        ("@functools.cache\ndef f(*, x): pass", ["f"]),
        ("@cache\ndef f(): pass", []),
        ("@lru_cache\ndef f(x): pass", ["f"]),
        ("@lru_cache(maxsize=None)\ndef f(x): pass", ["f"]),
        ("@lru_cache(maxsize=8)\ndef f(x): pass", []),
        ("class A:\n    @cache\n    def f(self): pass", ["f"]),
        ("def g():\n    @cache\n    def f(x): pass", []),
        ("_made: dict[str, int] = {}", ["_made"]),
        ("_made = []", ["_made"]),
        ("_made = {}\ndef f():\n    while len(_made) > 8: del _made[next(iter(_made))]", []),
        ("FIXED = {'a': 1}", []),
    ],
)
def test_what_counts_as_unbounded(text: str, found: list[str]) -> None:
    assert unbounded_caches(text) == found


def test_no_cache_of_the_package_grows_for_ever() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in SOURCES
        if path.is_relative_to(ROOT / "vramplan")
        for name in unbounded_caches(path.read_text(encoding="utf-8"))
    }
    assert found == set(FILLED)
