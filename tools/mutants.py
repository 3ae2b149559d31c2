"""Would the tests notice? Small mistakes, drawn by a seed, each in a copy of the checkout.

    python -m tools.mutants --seed 1 --count 200 [--only vramplan/budget] [--results FILE]

A mistake is one comparison turned, one sign, ``min`` for ``max``, ``and`` for ``or``, ``True`` for
``False``, a ``not`` left out, a number a little off, one term of a sum dropped, two arguments of
the same unit swapped. Tests are run until one fails that passes without the mistake; one that none
notices is printed with its place. With `--results` a run goes on where the last one stopped, and
tries again what survived. Outside CI. Some survivors change nothing (an equivalent), the rest want
a test.

`PLACES` says which test files are run. Faster and sharper are the tests that reach the line, where
pytest-cov has told them once (of the checkout as it is; needs coverage):

    VRAMPLAN_CORE=off pytest tests/unit tests/cli tests/accuracy --cov=vramplan
        --cov-context=test --cov-report= --junitxml=times.xml
    python -m tools.mutants --coverage .coverage --times times.xml

They are collected once, and each mistake is made in a fork of that process (`tools.warm_tests`); of
what runs at an import (a constant, a default) the tests that reach the lines where its name stands
are run in a process of their own. What survives of either is tried again by the next run, with the
tests that were added since and, for longer, with those of the rest that reach it.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

_TORCH = (
    "tests/unit/test_torch_estimate.py tests/unit/test_line_kinds.py tests/unit/test_published.py"
)
_TAPE = (
    "tests/unit/test_allocator.py tests/unit/test_replay_by_hand.py tests/unit/test_tape_format.py"
)
#: of the tape's room; the rest are readers, and the compiled core, which is held against these
_REPLAYED = (
    "collection", "conditions", "contents", "expressions", "rehearsal", "replay", "requests",
    "trace",
)  # fmt: skip
_GGML = (
    "tests/unit/test_ggml_estimate.py tests/unit/test_layer_fit.py tests/unit/test_kv_cache.py "
    "tests/unit/test_ggml_compute.py tests/unit/test_experts.py tests/unit/test_windows.py "
    "tests/unit/test_engine_defaults.py tests/unit/test_logged.py tests/unit/test_smaller_file.py"
)
#: the code that mistakes are made in, and the tests that ought to notice, quickest first
PLACES: Mapping[str, str] = {
    "vramplan/budget": "tests/unit/test_verdict_rules.py tests/unit/test_cuda_context.py "
    "tests/unit/test_system_share.py tests/unit/test_learn.py tests/unit/test_fake.py "
    "tests/cli/test_check.py",
    "vramplan/ask/judge.py": "tests/unit/test_verdict_rules.py tests/unit/test_system_share.py "
    "tests/unit/test_fake.py tests/cli/test_check.py",
    "vramplan/compare": "tests/unit/test_compare.py tests/unit/test_learn.py "
    "tests/cli/test_compare_pasted.py tests/unit/test_history.py "
    "tests/unit/test_measured_runs.py tests/cli/test_profile_compare.py",
    "vramplan/engines/torch/judge.py": f"tests/unit/test_verdict_rules.py {_TORCH} "
    "tests/unit/test_device_map.py tests/cli/test_check.py",
    "vramplan/engines/torch/estimate.py": _TORCH,
    "vramplan/engines/torch/peak.py": _TORCH,
    "vramplan/engines/torch/weights.py": _TORCH,
    "vramplan/engines/torch/activations.py": _TORCH,
    "vramplan/engines/torch/allocator_slack.py": _TORCH,
    "vramplan/engines/torch/gradients.py": _TORCH,
    "vramplan/engines/torch/optimizer_state.py": _TORCH,
    "vramplan/engines/torch/replayed.py": _TORCH,
    "vramplan/engines/torch/least_limit.py": _TORCH,
    "vramplan/engines/torch/screening.py": _TORCH,
    "vramplan/engines/torch/convolution_workspace.py": f"{_TORCH} tests/accuracy/test_accuracy.py",
    "vramplan/engines/torch/cublas_workspace.py": f"{_TORCH} tests/accuracy/test_accuracy.py",
    "vramplan/engines/torch/tape/allocator.py": _TAPE,
    "vramplan/engines/torch/tape/blocks.py": _TAPE,
    "vramplan/engines/torch/tape/expandable.py": _TAPE,
    "vramplan/engines/torch/tape/residency.py": f"{_TAPE} tests/accuracy/test_accuracy.py",
    "vramplan/engines/torch/tape/history_replay.py": "tests/unit/test_history.py",
    **dict.fromkeys(
        (f"vramplan/engines/torch/tape/{name}.py" for name in _REPLAYED),
        f"{_TAPE} tests/unit/test_expressions.py {_TORCH}",
    ),
    "vramplan/engines/ggml/judge.py": f"tests/unit/test_verdict_rules.py {_GGML} "
    "tests/cli/test_model_files.py",
    "vramplan/engines/ggml/estimate.py": _GGML,
    "vramplan/engines/ggml/layer_fit.py": _GGML,
    "vramplan/engines/ggml/kv_cache.py": f"tests/unit/test_kv_cache.py {_GGML}",
    "vramplan/engines/ggml/recurrent_state.py": _GGML,
    "vramplan/engines/ggml/closed_form.py": f"tests/unit/test_ggml_compute.py {_GGML}",
    "vramplan/engines/ggml/compute_buffer.py": f"tests/unit/test_ggml_compute.py {_GGML}",
    "vramplan/engines/ggml/engine_pools.py": _GGML,
    "vramplan/engines/ggml/weights.py": f"tests/unit/test_ggml_model.py {_GGML}",
    "vramplan/engines/ggml/load_plan.py": _GGML,
    "vramplan/engines/ggml/defaults.py": _GGML,
}

_TURNED: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
}  # fmt: skip
_SIGNS: Mapping[type[ast.operator], str] = {ast.Add: "-", ast.Sub: "+"}
_JOINED: Mapping[type[ast.boolop], str] = {ast.And: "or", ast.Or: "and"}
_SHOWN = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
          ast.Add: "+", ast.Sub: "-", ast.And: "and", ast.Or: "or"}  # fmt: skip


#: pytest's summary: the test, or the file where it could not be read
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+\.py(?:::.*?)?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One piece of one file's text, and what stands there instead."""

    path: str
    line: int
    start: int
    end: int
    text: str

    def within(self, source: str) -> str:
        """Return the file with the mistake in it."""
        return source[: self.start] + self.text + source[self.end :]


class _File:
    """One file's text, and where in it a node of its tree stands."""

    def __init__(self, path: str, source: str) -> None:
        self._path = path
        self._source = source
        self._lines = source.splitlines(keepends=True)

    def mistakes(self) -> Iterator[Mistake]:
        """Yield every mistake that can be made in the file."""
        tree = ast.parse(self._source)
        for node in _reached(tree):
            match node:
                case ast.Compare(left=left, ops=[sign, *_], comparators=[right, *_]):
                    yield from self._turn(left, right, type(sign), _TURNED)
                case ast.BinOp(left=left, op=sign, right=right):
                    yield from self._turn(left, right, type(sign), _SIGNS)
                    if isinstance(sign, ast.Add):
                        yield self._instead(node, self._text(left))
                        yield self._instead(node, self._text(right))
                case ast.BoolOp(op=sign, values=[left, right, *_]):
                    yield from self._turn(left, right, type(sign), _JOINED)
                case ast.Call(func=ast.Name(id="min" | "max" as name) as func):
                    yield self._instead(func, "max" if name == "min" else "min")
                case ast.Call(args=[left, right, *_]) if _are_alike(left, right):
                    text = f"{self._text(right)}, {self._text(left)}"
                    yield self._made(left.lineno, self._span(left)[0], self._span(right)[1], text)
                case ast.UnaryOp(op=ast.Not(), operand=operand):
                    yield self._instead(node, self._text(operand))
                case ast.Constant(value=bool(value)):
                    yield self._instead(node, str(not value))
                case ast.Constant(value=int(value)):
                    yield self._instead(node, str(value + max(1, value * 3 // 100)))

    def _turn(
        self, left: ast.expr, right: ast.expr, sign: type[ast.AST], others: Mapping[type, str]
    ) -> Iterator[Mistake]:
        """Yield the operator between two operands as another, where it can be told."""
        begin, end = self._span(left)[1], self._span(right)[0]
        between = self._source[begin:end]
        shown = _SHOWN.get(sign)
        if shown is not None and sign in others and between.count(shown) == 1:
            place = begin + between.index(shown)
            yield self._made(left.lineno, place, place + len(shown), others[sign])

    def _instead(self, node: ast.expr, text: str) -> Mistake:
        return self._made(node.lineno, *self._span(node), text)

    def _made(self, line: int, start: int, end: int, text: str) -> Mistake:
        return Mistake(path=self._path, line=line, start=start, end=end, text=text)

    def _text(self, node: ast.expr) -> str:
        return self._source[slice(*self._span(node))]

    def _span(self, node: ast.expr) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        begin = self._at(node.lineno, node.col_offset)
        return begin, self._at(node.end_lineno, node.end_col_offset)

    def _at(self, line: int, column: int) -> int:
        before = sum(map(len, self._lines[: line - 1]))
        return before + len(self._lines[line - 1].encode()[:column].decode())  # ast counts bytes


def _reached(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree, but for decorators, annotations and what stands in f-strings.

    The first two change no result; of the last Python 3.11 does not tell the place.
    """
    for name, value in ast.iter_fields(tree):
        if name in ("decorator_list", "annotation", "returns"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                yield child
                yield from _reached(child)


def _are_alike(left: ast.expr, right: ast.expr) -> bool:
    """Return whether two arguments' names end in the same word, which is their unit."""
    names = [
        one.id if isinstance(one, ast.Name) else getattr(one, "attr", None) for one in (left, right)
    ]
    first, second = (str(name).rpartition("_")[2] if name else "" for name in names)
    return first == second != "" and names[0] != names[1]


def draw(seed: int, only: str) -> list[Mistake]:
    """Return every mistake, in an order that the seed decides."""
    names = set()
    for place in PLACES:
        path = ROOT / place
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            names.add(file.relative_to(ROOT).as_posix())
    found: list[Mistake] = []
    for name in sorted(name for name in names if name.startswith(only)):
        found += _File(name, (ROOT / name).read_text(encoding="utf-8")).mistakes()
    random.Random(seed).shuffle(found)  # noqa: S311  # a sample, not a secret
    return found


def tests_of(path: str) -> list[str]:
    """Return the test files that ought to notice a mistake in a file."""
    return next(tests for place, tests in PLACES.items() if path.startswith(place)).split()


#: how much longer a survivor is tried than at first
_MORE = 4
#: of processor time, for what a mistake makes endless
_LEAST_SECONDS = 20


class Reached:
    """Which tests reach a line, as pytest-cov told, quickest first."""

    def __init__(self, coverage_file: Path, times_file: Path, most_seconds: float) -> None:
        try:
            from coverage import CoverageData  # only here, and not among what the project needs
        except ModuleNotFoundError:
            raise SystemExit("--coverage needs coverage: pip install coverage") from None
        self._data = CoverageData(str(coverage_file))
        self._data.read()
        self._most_seconds = most_seconds
        cases = {
            f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}": case
            for case in ET.parse(times_file).iter("testcase")  # noqa: S314  # pytest's own
        }
        self._timed = frozenset(cases)
        self._seconds = {  # of those that were not skipped, and passed
            name: float(case.get("time", "0")) for name, case in cases.items() if not len(case)
        }
        self._files = {
            name.partition("/vramplan/")[2]: name for name in self._data.measured_files()
        }

    def files(self) -> list[str]:
        """Return the test files."""
        return sorted({test.partition("::")[0] for test in self._seconds})

    def tests(self, mistake: Mistake, new: Iterable[str] = ()) -> list[str]:
        """Return the tests' names, quickest first, as many as run in the time.

        Of a line that an import runs those that reach what its names stand in, then the whole file.
        With `new`, which are not timed yet, these are first, and the others are the rest of all.
        """
        name = self._files.get(mistake.path.removeprefix("vramplan/"))
        if name is None:
            return []
        told = self._data.contexts_by_lineno(name)
        near = self._among(told, [mistake.line])
        if not near:
            source = (ROOT / mistake.path).read_text(encoding="utf-8")
            near = self._among(told, _lines_with_its_names(source, mistake.line))
            near += [one for one in self._among(told, told) if one not in set(near)]
        spent = list(accumulate(self._seconds[test] for test in near))
        first = max(1, bisect_right(spent, self._most_seconds))
        added = sorted(set(new) - self._timed)
        if not new:
            return near[:first]
        most = (spent[first - 1] if near else 0) + _MORE * self._most_seconds
        return [*added, *near[first : max(first, bisect_right(spent, most))]]

    def most_seconds(self, tests: Sequence[str]) -> int:
        """Return what the tests may take: they were timed with each line counted, which is slow."""
        return _LEAST_SECONDS + int(sum(self._seconds.get(test, 1) for test in tests))

    def _among(self, told: Mapping[int, list[str]], lines: Iterable[int]) -> list[str]:
        contexts = {context.partition("|")[0] for line in lines for context in told.get(line, ())}
        return sorted(contexts & self._seconds.keys(), key=lambda one: (self._seconds[one], one))


def _lines_with_its_names(source: str, line: int) -> list[int]:
    """Return where the names stand that a statement of a module or a class gives a value to."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if node.lineno <= line <= (node.end_lineno or line):
                names |= {one.id for one in targets if isinstance(one, ast.Name)}
    word = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(names)))})\b")
    texts = source.splitlines() if names else []
    return [number for number, text in enumerate(texts, 1) if word.search(text)]


class Warm:
    """A pytest process that has collected the tests (`tools.warm_tests`)."""

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        (asked, ask), (tell, told) = os.pipe(), os.pipe()
        there = [name for name in files if (folder / name).is_file()]
        words = [sys.executable, "-m", "tools.warm_tests", str(asked), str(told), *there]
        self._process = subprocess.Popen(
            words,
            cwd=folder,
            env=_environment(folder),
            stdout=subprocess.DEVNULL,
            pass_fds=(asked, told),
        )
        os.close(asked)
        os.close(told)
        self._asks = os.fdopen(ask, "w", encoding="utf-8")
        self._tells = os.fdopen(tell, encoding="utf-8")
        self.tests = frozenset(self._answer()["tests"])

    def first_failure(
        self, path: str | None, text: str, tests: Sequence[str], seconds: int
    ) -> tuple[bool, str | None]:
        """Return whether it can tell, and the first test that fails; "" where none is named."""
        job = {"path": path, "text": text, "tests": tests, "seconds": seconds}
        self._asks.write(f"{json.dumps(job)}\n")
        self._asks.flush()
        answer = self._answer()
        return answer["is_known"], answer.get("failed")

    def close(self) -> None:
        """Let the process end: nothing is asked any more."""
        self._asks.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._tells.readline()
        if not line:
            raise SystemExit(f"the process of the tests ended: {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Copy:
    """A copy of the checkout, in which one mistake after another is made."""

    def __init__(self, folder: Path, warm_files: Sequence[str]) -> None:
        self._folder = copy_checkout(folder)
        self._passes: dict[str, bool] = {}
        self._warm = Warm(folder, warm_files) if warm_files else None

    @property
    def collected(self) -> frozenset[str]:
        """Return the names of the tests that wait for a mistake."""
        return self._warm.tests if self._warm else frozenset()

    def close(self) -> None:
        """End what waits for a mistake."""
        if self._warm:
            self._warm.close()

    def is_noticed(self, mistake: Mistake, tests: Sequence[str], seconds: int) -> bool:
        """Return whether a test fails with the mistake that passes without it."""
        failed = self._first_failure(mistake, tests, seconds)
        if failed is None:
            return False
        if failed not in self._passes:
            named = [failed] if failed else tests
            self._passes[failed] = self._first_failure(None, named, seconds) is None
        if not self._passes[failed]:
            raise SystemExit(f"{failed or 'pytest'} fails without any mistake: nothing is told")
        return True

    def _first_failure(
        self, mistake: Mistake | None, tests: Sequence[str], seconds: int
    ) -> str | None:
        """Return the first test that fails; "" where pytest names none, None where all pass."""
        file = self._folder / (mistake.path if mistake else "README.md")
        right = file.read_text(encoding="utf-8")
        text = mistake.within(right) if mistake else right
        if self._warm and self._warm.tests.issuperset(tests):
            path = mistake.path if mistake else None
            knows, failed = self._warm.first_failure(path, text, tests, seconds)
            if knows:
                return failed
        file.write_text(text, encoding="utf-8")
        try:
            return self._first_failure_anew(tests, seconds)
        finally:
            file.write_text(right, encoding="utf-8")

    def _first_failure_anew(self, tests: Sequence[str], seconds: int) -> str | None:
        chosen = self._folder / "tests-chosen.txt"
        chosen.write_text("\n".join(tests), encoding="utf-8")
        words = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"@{chosen}"]
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self._folder,
            env=_environment(self._folder),
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=partial(
                _bound, seconds
            ),  # of the processor's time: a busy machine is no mistake
        )
        if done.returncode == 0:
            return None
        named = _FAILED.search(done.stdout)
        return named[1] if named else ""


def _bound(seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder), "VRAMPLAN_CORE": "off"}


def copy_checkout(folder: Path) -> Path:
    """Return a copy of what git knows of this checkout."""
    command = ["git", "ls-files"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    return folder


def main() -> int:
    """Make the mistakes one by one; return 1 where one survives."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--only", default="")
    parser.add_argument("--results", type=Path, help="kept there, and not tried again if noticed")
    parser.add_argument("--coverage", type=Path, help="of pytest-cov, with contexts")
    parser.add_argument("--times", type=Path, default=Path("times.xml"), help="pytest's JUnit file")
    parser.add_argument("--seconds", type=int, default=120, help="of processor time a mistake")
    args = parser.parse_args()
    reached = args.coverage and Reached(args.coverage, args.times, args.seconds / 4)
    chosen = draw(args.seed, args.only)[args.first : args.first + args.count]
    results: Path | None = args.results
    known = results.read_text("utf-8").splitlines() if results and results.exists() else []
    survivors = []
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Copy(Path(folder), reached.files() if reached else ())) as copy,
    ):
        numbered = enumerate(map(_words, chosen), args.first)
        rest = [(n, said, one) for (n, said), one in zip(numbered, chosen, strict=True)
                if f"noticed  {said}" not in known]  # fmt: skip
        rest.sort(key=lambda one: f"SURVIVES {one[1]}" in known)  # what is new, first
        for number, said, mistake in rest:
            is_new = f"SURVIVES {said}" not in known
            tests = reached.tests(mistake, () if is_new else copy.collected) if reached else []
            seconds = reached.most_seconds(tests) if tests else args.seconds
            tests = tests or tests_of(mistake.path)
            noticed = copy.is_noticed(mistake, tests, seconds)
            row = f"{'noticed ' if noticed else 'SURVIVES'} {said}"
            print(f"{number:4} {row}", flush=True)
            if results:
                with results.open("a", encoding="utf-8") as file:
                    file.write(f"{row}\n")
            if not noticed:
                survivors.append(f"{number:4} {said}")
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} noticed", *survivors, sep="\n")
    return int(bool(survivors))


def _words(mistake: Mistake) -> str:
    """Return where a mistake is, what stood there, and how the line reads with it."""
    source = (ROOT / mistake.path).read_text(encoding="utf-8")
    line = mistake.within(source).splitlines()[mistake.line - 1].strip()
    column = mistake.start - source.rfind("\n", 0, mistake.start)
    was = " ".join(source[mistake.start : mistake.end].split())
    now = " ".join(mistake.text.split())
    return f"{mistake.path}:{mistake.line}:{column}: {was} -> {now}: {line}"


if __name__ == "__main__":
    sys.exit(main())
