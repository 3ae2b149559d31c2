"""Would the tests notice? Small mistakes, drawn by a seed, each in a copy of the checkout.

    python -m tools.mutants --seed 1 --count 200 [--from 0] [--only vramplan/budget]

A mistake is one comparison turned, one sign, one ``min`` for ``max``, one ``and`` for ``or``, a
``not`` left out, a number a little off, one term of a sum dropped. The test files of the module
are run until one fails; a mistake that none notices is printed with its place. Outside CI: 200 take
about an hour on one core. Some survivors change nothing (an equivalent), the rest want a test.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

_TORCH = (
    "tests/unit/test_torch_estimate.py tests/unit/test_line_kinds.py tests/unit/test_published.py"
)
_TAPE = (
    "tests/unit/test_allocator.py tests/unit/test_replay_by_hand.py tests/unit/test_tape_format.py"
)
_GGML = (
    "tests/unit/test_ggml_estimate.py tests/unit/test_layer_fit.py tests/unit/test_kv_cache.py "
    "tests/unit/test_ggml_compute.py tests/unit/test_experts.py tests/unit/test_windows.py "
    "tests/unit/test_engine_defaults.py tests/unit/test_logged.py tests/unit/test_smaller_file.py"
)
#: the code that mistakes are made in, and the tests that ought to notice, quickest first
PLACES: Mapping[str, str] = {
    "vramplan/budget": "tests/unit/test_verdict_rules.py tests/unit/test_cuda_context.py "
    "tests/unit/test_learn.py tests/unit/test_fake.py tests/cli/test_check.py",
    "vramplan/ask/judge.py": "tests/unit/test_verdict_rules.py tests/unit/test_fake.py "
    "tests/cli/test_check.py",
    "vramplan/compare": "tests/unit/test_compare.py tests/cli/test_compare_pasted.py "
    "tests/unit/test_history.py tests/unit/test_measured_runs.py tests/cli/test_profile_compare.py",
    "vramplan/engines/torch/judge.py": f"tests/unit/test_verdict_rules.py {_TORCH} "
    "tests/unit/test_device_map.py tests/cli/test_check.py",
    "vramplan/engines/torch/estimate.py": _TORCH,
    "vramplan/engines/torch/peak.py": _TORCH,
    "vramplan/engines/torch/weights.py": _TORCH,
    "vramplan/engines/torch/activations.py": _TORCH,
    "vramplan/engines/torch/allocator_slack.py": _TORCH,
    "vramplan/engines/torch/convolution_workspace.py": f"{_TORCH} tests/accuracy/test_accuracy.py",
    "vramplan/engines/torch/cublas_workspace.py": f"{_TORCH} tests/accuracy/test_accuracy.py",
    "vramplan/engines/torch/tape/allocator.py": _TAPE,
    "vramplan/engines/torch/tape/blocks.py": _TAPE,
    "vramplan/engines/torch/tape/expandable.py": _TAPE,
    "vramplan/engines/torch/tape/residency.py": f"{_TAPE} tests/accuracy/test_accuracy.py",
    "vramplan/engines/ggml/judge.py": f"tests/unit/test_verdict_rules.py {_GGML} "
    "tests/cli/test_model_files.py",
    "vramplan/engines/ggml/estimate.py": _GGML,
    "vramplan/engines/ggml/layer_fit.py": _GGML,
    "vramplan/engines/ggml/kv_cache.py": f"tests/unit/test_kv_cache.py {_GGML}",
    "vramplan/engines/ggml/recurrent_state.py": _GGML,
    "vramplan/engines/ggml/closed_form.py": f"tests/unit/test_ggml_compute.py {_GGML}",
    "vramplan/engines/ggml/engine_pools.py": _GGML,
    "vramplan/engines/ggml/weights.py": f"tests/unit/test_ggml_model.py {_GGML}",
    "vramplan/engines/ggml/load_plan.py": _GGML,
    "vramplan/engines/ggml/defaults.py": _GGML,
}

_TURNED: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
}  # fmt: skip
_SIGNS: Mapping[type[ast.operator], str] = {ast.Add: "-", ast.Sub: "+", ast.Mult: "//"}
_SHOWN = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
          ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}  # fmt: skip


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
        for node in ast.walk(ast.parse(self._source)):
            match node:
                case ast.Compare(left=left, ops=[sign, *_], comparators=[right, *_]):
                    yield from self._turn(left, right, type(sign), _TURNED)
                case ast.BinOp(left=left, op=sign, right=right):
                    yield from self._turn(left, right, type(sign), _SIGNS)
                    if isinstance(sign, ast.Add):
                        yield self._instead(node, self._text(left))
                case ast.Call(func=ast.Name(id="min" | "max" as name) as func):
                    yield self._instead(func, "max" if name == "min" else "min")
                case ast.UnaryOp(op=ast.Not(), operand=operand):
                    yield self._instead(node, self._text(operand))
                case ast.Constant(value=int(value)) if type(value) is int and value > 1:
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


def draw(seed: int, only: str) -> list[Mistake]:
    """Return every mistake, in an order that the seed decides."""
    found = []
    for place in PLACES:
        path = ROOT / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            name = file.relative_to(ROOT).as_posix()
            if name.startswith(only):
                found += _File(name, file.read_text(encoding="utf-8")).mistakes()
    random.Random(seed).shuffle(found)  # noqa: S311  # a sample, not a secret
    return found


def tests_of(path: str) -> list[str]:
    """Return the test files that ought to notice a mistake in a file."""
    return next(tests for place, tests in PLACES.items() if path.startswith(place)).split()


def is_noticed(mistake: Mistake, copy: Path, seconds: float) -> bool:
    """Return whether a test fails with the mistake in the copy."""
    file = copy / mistake.path
    right = file.read_text(encoding="utf-8")
    file.write_text(mistake.within(right), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(copy), "VRAMPLAN_CORE": "off"}
    words = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests_of(mistake.path)]
    try:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=copy,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=seconds,
        )
        return done.returncode != 0
    except subprocess.TimeoutExpired:  # it runs on and on: nobody would miss that
        return True
    finally:
        file.write_text(right, encoding="utf-8")


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
    parser.add_argument("--seconds", type=float, default=300)
    args = parser.parse_args()
    chosen = draw(args.seed, args.only)[args.first : args.first + args.count]
    survivors = 0
    with tempfile.TemporaryDirectory() as text:
        copy = copy_checkout(Path(text))
        for number, mistake in enumerate(chosen, args.first):
            noticed = is_noticed(mistake, copy, args.seconds)
            survivors += not noticed
            source = (ROOT / mistake.path).read_text(encoding="utf-8")
            line = mistake.within(source).splitlines()[mistake.line - 1].strip()
            state = "noticed " if noticed else "SURVIVES"
            print(f"{number} {state} {mistake.path}:{mistake.line}: {line}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} noticed")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
