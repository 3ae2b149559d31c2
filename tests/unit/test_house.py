"""The plan of the house: what tells engines apart stays behind the door."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from vramplan.model import LineKind

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "vramplan"
#: where it may be asked which engine or runtime something has
INSIDE = ("engines", "catalog")
ASKED = {"runtime", "is_ollama", "GGML_RUNTIMES", "TORCH_RUNTIMES"}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE)
        if place.parts[0] not in INSIDE:
            yield place, ast.parse(path.read_text())


def names_in(node: ast.AST) -> set[str]:
    found = {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
    return found | {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def test_nobody_outside_asks_which_engine_it_is() -> None:
    asked = [
        f"{place}:{node.lineno}"
        for place, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare | ast.If | ast.IfExp)
        and ASKED & names_in(node if isinstance(node, ast.Compare) else node.test)
    ]
    assert asked == []


def test_no_module_name_means_two_things() -> None:
    """Every engine has the same rooms on purpose; a command and its question share a name too."""
    shared = {
        "__init__", "advice", "attention", "cache", "cards", "catalog", "changes", "check",
        "compare", "comparison", "doctor", "engine", "estimate", "fit", "judge", "kv_cache",
        "measure", "open", "pace", "pipeline", "plan", "profile", "published", "record", "report",
        "rows", "run", "screening", "search", "sweep", "verdict", "verdicts", "watch", "weights",
    }  # fmt: skip
    seen: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        seen.setdefault(path.stem, []).append(str(path.relative_to(PACKAGE)))
    assert {
        name: places for name, places in seen.items() if len(places) > 1 and name not in shared
    } == {}


def test_the_files_that_begin_first_are_there() -> None:
    told = (TESTS / "conftest.py").read_text(encoding="utf-8")
    named = re.findall(r'"(test_\w+\.py)"', told)
    assert len(named) > 10
    assert set(named) <= {path.name for path in TESTS.rglob("test_*.py")}


def test_commands_are_thin() -> None:
    lengths = [len(path.read_text().splitlines()) for path in (PACKAGE / "commands").glob("*.py")]
    assert median(lengths) <= 80


def test_the_table_of_lines_leads_to_modules_that_make_them() -> None:
    """A stranger who reads a line's name finds its module, and its kind, in one guess."""
    page = (PACKAGE.parent / "docs" / "design.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and ".py`" in line]
    table = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    lines = {cells[0]: cells for cells in table if cells[1].strip("`") in set(LineKind)}
    assert len(lines) == 16
    assert {cells[1].strip("`") for cells in lines.values()} == {kind.value for kind in LineKind}
    for name, (_, _, places) in lines.items():
        for place in places.split(", "):
            path = PACKAGE / place.strip("`")
            assert path.is_file(), place
            stem = path.stem.replace("optimizer", "optimiser").replace("_", " ")
            assert stem.lower() == name.lower(), place
