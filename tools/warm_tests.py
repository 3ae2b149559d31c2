"""A pytest process with its tests collected, that runs some of them for one mistake after another.

    python -m tools.warm_tests ASKED TOLD TEST-FILE...     two file descriptors, JSON line by line

`tools.mutants` starts it. Each mistake is made in a forked process: the code of the functions that
it changes is put in place of theirs. What runs while a module is imported (a constant, a default)
cannot be changed so; of that the answer is that it is not known.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, TextIO

import pytest

#: `inspect.CO_OPTIMIZED`: a function's code, not a module's or a class's
_OPTIMIZED = 1
_MOST_BYTES = 12 << 30

Pair = tuple[CodeType, CodeType]


def main(words: Sequence[str]) -> int:
    """Collect the tests of the files, and answer until nothing is asked any more."""
    asked, told = int(words[0]), int(words[1])
    with os.fdopen(asked) as source, os.fdopen(told, "w") as out:
        plugin = _Waiting(source, out)
        words = ["-q", "-p", "no:cacheprovider", "--basetemp", "warm-tests", *words[2:]]
        return int(pytest.main(words, plugins=[plugin]))


class _Waiting:
    """Instead of pytest's own loop over the tests."""

    def __init__(self, asked: TextIO, told: TextIO) -> None:
        self._asked, self._told = asked, told
        self._failed: str | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Answer every line with what fails."""
        items = {item.nodeid: item for item in session.items}
        functions = _functions(Path.cwd())
        gc.freeze()  # a collection would copy every page into every child
        self._tell({"tests": sorted(items)})
        for line in self._asked:
            job = json.loads(line)
            changed = _changed_by(job["path"], job["text"]) if job["path"] else []
            found = _found(functions, changed) if changed is not None else None
            if found is None:
                self._tell({"is_known": False})
            else:
                chosen = [items[one] for one in job["tests"] if one in items]
                self._tell({"is_known": True, **self._fork(found, chosen, job["seconds"])})
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the first that fails; what a busy machine makes slow does not."""
        if report.failed and self._failed is None and "DeadlineExceeded" not in report.longreprtext:
            self._failed = report.nodeid

    def _tell(self, what: Mapping[str, object]) -> None:
        self._told.write(f"{json.dumps(what)}\n")
        self._told.flush()

    def _fork(
        self, found: list[tuple[FunctionType, CodeType]], items: list[pytest.Item], seconds: int
    ) -> Mapping[str, object]:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException):  # whatever happens, a child never goes on as the parent
                resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
                resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
                for function, code in found:
                    function.__code__ = code
                status = self._run(items)
                os.write(write, (self._failed or "").encode())
            os._exit(status)
        os.close(write)
        with os.fdopen(read) as pipe:
            failed = pipe.read()
        _, ended = os.waitpid(child, 0)
        return {"failed": failed if ended else None}

    def _run(self, items: list[pytest.Item]) -> int:
        for item, after in zip(items, [*items[1:], None], strict=False):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=after)
            if self._failed is not None:
                return 1
        return 0


def _functions(root: Path) -> Mapping[tuple[str, str], list[FunctionType]]:
    """Import everything, and return the functions of each file and name."""
    for path in sorted((root / "vramplan").rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        with suppress(ImportError):  # wants an extra that is not there
            if path.stem not in {"__main__", "__init__"}:
                importlib.import_module(name)
    found: dict[tuple[str, str], list[FunctionType]] = defaultdict(list)
    for one in gc.get_objects():
        if type(one) is FunctionType and one.__code__.co_filename.startswith(str(root)):
            found[one.__code__.co_filename, one.__code__.co_qualname].append(one)
    return found


def _changed_by(path: str, text: str) -> list[Pair] | None:
    """Return the functions that a file's new text changes, None where it changes other things."""
    file = Path.cwd() / path
    old = compile(file.read_text(encoding="utf-8"), str(file), "exec", dont_inherit=True)
    pairs = list(_changed(old, compile(text, str(file), "exec", dont_inherit=True)))
    return None if None in pairs else [pair for pair in pairs if pair is not None]


def _changed(old: CodeType, new: CodeType) -> Iterator[Pair | None]:
    if old.co_flags & _OPTIMIZED:
        if _deep(old) != _deep(new):
            yield old, new
    elif _own(old) != _own(new):
        yield None
    else:
        for before, after in zip(_inside(old), _inside(new), strict=True):
            yield from _changed(before, after)


def _found(
    functions: Mapping[tuple[str, str], list[FunctionType]], changed: list[Pair]
) -> list[tuple[FunctionType, CodeType]] | None:
    """Return each live function with its new code, None where one that changes is not alive."""
    found = []
    for old, new in changed:
        same = list(_live(functions, old))
        if not same or old.co_freevars != new.co_freevars:
            return None
        found += [(one, new) for one in same]
        found += [
            (one, after)
            for before, after in zip(_all_inside(old), _all_inside(new), strict=False)
            if before.co_freevars == after.co_freevars
            for one in _live(functions, before)
        ]
    return found


def _live(
    functions: Mapping[tuple[str, str], list[FunctionType]], code: CodeType
) -> Iterator[FunctionType]:
    for one in functions.get((code.co_filename, code.co_qualname), ()):
        if one.__code__.co_firstlineno == code.co_firstlineno and _deep(one.__code__) == _deep(
            code
        ):
            yield one


def _inside(code: CodeType) -> list[CodeType]:
    return [one for one in code.co_consts if isinstance(one, CodeType)]


def _all_inside(code: CodeType) -> Iterator[CodeType]:
    for one in _inside(code):
        yield one
        yield from _all_inside(one)


def _own(code: CodeType) -> tuple[Any, ...]:
    """Return what a code does, lines and what is defined in it aside."""
    constants = [None if isinstance(one, CodeType) else _typed(one) for one in code.co_consts]
    return (code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_freevars,
            code.co_cellvars, code.co_flags, code.co_argcount, code.co_posonlyargcount,
            code.co_kwonlyargcount, code.co_exceptiontable, constants)  # fmt: skip


def _deep(code: CodeType) -> tuple[Any, ...]:
    return _own(code), [_deep(one) for one in _inside(code)]


def _typed(value: object) -> object:
    """Return a constant so that True and 1, 1 and 1.0 are not the same."""
    if isinstance(value, tuple | frozenset):
        parts = [repr(_typed(one)) for one in value]
        return type(value).__name__, parts if isinstance(value, tuple) else sorted(parts)
    return type(value).__name__, repr(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
