"""Nothing is decided by what a line of a budget is called: kinds are typed."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vramplan.compare.waterfall import Observed, draw_waterfall
from vramplan.engines.torch.judge import _makeup
from vramplan.model import Band, Estimate, LineKind
from vramplan.report.budget import segments, work_of
from vramplan.report.colour import LINE_TONES, Tone
from vramplan.report.serial import estimate_result

ROOT = Path(__file__).parents[2] / "vramplan"

#: what lines are called; to decide by one of these is what the test is against
LABELS = frozenset(
    {
        "weights",
        "KV cache",
        "recurrent state",
        "compute buffer",
        "projector compute",
        "engine pools",
        "activations",
        "convolution workspace",
        "convolution and sum workspace",
        "cuBLAS workspace",
        "gradients",
        "optimiser state (Adam)",
        "allocator slack",
        "CUDA context",
    }
)
#: parts of labels that a kind may be guessed from
WORDS = frozenset(
    {
        "activation", "adam", "cache", "context", "cublas", "gradient", "kv", "optimi", "pool",
        "scratch", "slack", "state", "weight", "workspace",
    }
)  # fmt: skip


# -- by running: other names change nothing but the names --------------------------------------


def renamed(estimate: Estimate) -> Estimate:
    """Return an estimate whose lines are called what says nothing, or what misleads."""
    names = ("KV cache", "weights", "x", "activations", "allocator slack", "CUDA context")
    lines = (
        replace(line, name=names[number % len(names)]) for number, line in enumerate(estimate.lines)
    )
    return replace(estimate, lines=tuple(lines))


@pytest.fixture(params=["sd15", "llava"])
def found(request, samples) -> Estimate:
    return getattr(samples, request.param)


def test_pictures_show_the_same_kinds(found: Estimate) -> None:
    def drawn(estimate: Estimate) -> list[tuple[Tone, int]]:
        return [(piece.kind, piece.size_bytes) for piece in segments(estimate)]

    assert drawn(renamed(found)) == drawn(found)
    assert len({tone for tone, _ in drawn(found)}) >= 4


def test_tables_show_the_same_work(found: Estimate) -> None:
    for component in found.components:
        assert work_of(renamed(found), component.name) == work_of(found, component.name)


def test_the_waterfall_has_the_same_steps(found: Estimate) -> None:
    seen = Observed(shown_bytes=9 << 30, shown_by="nvidia-smi")
    assert draw_waterfall(renamed(found), seen) == draw_waterfall(found, seen)


def test_the_reason_has_the_same_sums(found: Estimate) -> None:
    assert _makeup(renamed(found)) == _makeup(found)


def test_scripts_get_the_same_but_for_the_name(found: Estimate) -> None:
    def told(estimate: Estimate) -> str:
        result = estimate_result(estimate)
        for term in result["terms"]:
            del term["name"]
        return json.dumps(result)

    assert told(renamed(found)) == told(found)


# -- every kind has its place ------------------------------------------------------------------


def test_every_kind_has_a_tone() -> None:
    assert set(LINE_TONES) == set(LineKind)


@pytest.mark.parametrize("kind", LineKind)
def test_every_kind_is_in_exactly_one_step_of_the_waterfall(samples, kind: LineKind) -> None:
    line = replace(samples.sd15.lines[0], kind=kind, band=Band.exactly(7))
    steps = draw_waterfall(
        replace(samples.sd15, lines=(line,)), Observed(shown_bytes=7, shown_by="NVML")
    ).steps
    assert [step.bytes for step in steps] == [7]


def test_the_schema_knows_every_kind() -> None:
    schema = json.loads((ROOT.parent / "profiles/schema/output.schema.json").read_text())
    assert set(schema["$defs"]["term"]["properties"]["kind"]["enum"]) == set(LineKind)


# -- by reading: no module outside the engines compares a line's name ---------------------------


def guesses(source: str) -> Iterator[int]:
    """Yield the lines of a module that compare a name with a literal label, or look one up.

    A table keyed by labels counts from two labels on: a field of JSON may be called like one.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            has_name = any(_is_name(side) for side in sides)
            if has_name and any(_labels(side, LABELS | WORDS) for side in sides):
                yield node.lineno
        elif isinstance(node, ast.Dict):
            keys = [key for key in node.keys if key is not None]
            if sum(bool(_labels(key)) for key in keys) > 1:
                yield node.lineno
        elif isinstance(node, ast.MatchValue) and _labels(node.value):
            yield node.lineno


def _is_name(node: ast.expr) -> bool:
    """Return whether an expression has an attribute ``name`` in it, or is a variable so called."""
    return any(
        (isinstance(one, ast.Attribute) and one.attr == "name")
        or (isinstance(one, ast.Name) and one.id in ("name", "label", "spoken"))
        for one in ast.walk(node)
    )


def _labels(node: ast.expr, known: frozenset[str] = LABELS) -> list[str]:
    return [
        one.value
        for one in ast.walk(node)
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and one.value in known
    ]


@pytest.mark.parametrize(
    "source",
    [
        'sum(t.band for t in found.terms if t.name == "weights")',
        'held = [t for t in lines if t.name in ("engine pools", "cuBLAS workspace")]',
        'is_slack = "slack" in line.name.lower()',
        'TONES = {"weights": 1, "KV cache": 2}',
        'if name != "CUDA context": pass',
    ],
)
def test_a_guess_is_found(source: str) -> None:
    assert list(guesses(source))


@pytest.mark.parametrize(
    "source",
    [
        "held = estimate.bytes_of(LineKind.WEIGHTS)",
        'row = {"name": row.name, "weights": size}',
        'is_home = path.name == "pipelines"',
    ],
)
def test_what_decides_by_kind_is_none(source: str) -> None:
    assert not list(guesses(source))


def test_no_module_outside_the_engines_guesses_a_kind_from_a_name() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted(ROOT.rglob("*.py"))
        if "engines" not in path.relative_to(ROOT).parts
        for line in guesses(path.read_text(encoding="utf-8"))
    ]
    assert found == []
