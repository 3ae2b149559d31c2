"""Writes the lower half of accuracy.md: every published figure with ours beside it.

    python docs/generate_accuracy.py            rewrite docs/accuracy.md
    python docs/generate_accuracy.py --check    exit 1 where it is out of date

Everything above the marker is written by hand and kept. The figures are those of
profiles/published.yaml, ours are worked out as `vramplan estimate` works them out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from generated import ROOT, escape, run_generator

SCRIPT = Path(__file__).name
PAGE = ROOT / "docs" / "accuracy.md"
_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A published figure, ours, and what the tests ask of it."""

    name: str
    pipeline: str
    claim: str
    metric: str
    published_bytes: int
    ours_bytes: int
    tolerance_percent: float | None
    source: str
    remark: str | None


@cache
def read_rows() -> tuple[Row, ...]:
    """Return every published figure about a pipeline of the catalogue, worked out anew."""
    return tuple(_rows())


def _rows() -> Iterator[Row]:
    from vramplan.catalog import load_catalog
    from vramplan.estimate.published import claims_about, compare_published

    catalog = load_catalog(())
    for pipeline in catalog.pipelines.values():
        claims = claims_about(pipeline)
        figures = compare_published(pipeline, catalog.folders) if claims else ()
        for claim, figure in zip(claims, figures, strict=True):
            assert figure.ours_bytes is not None
            yield Row(
                name=claim.name,
                pipeline=pipeline.name,
                claim=claim.claim,
                metric=claim.metric,
                published_bytes=figure.published_bytes,
                ours_bytes=figure.ours_bytes,
                tolerance_percent=claim.tolerance_percent,
                source=claim.source,
                remark=claim.remark,
            )


def size(size_bytes: int) -> str:
    """Return a size as published figures are given: GiB with three decimals, MiB with two."""
    if size_bytes >= _GIB:
        return f"{size_bytes / _GIB:.3f} GiB"
    if size_bytes >= _MIB:
        return f"{size_bytes / _MIB:,.2f} MiB"
    return f"{size_bytes / _KIB:g} KiB"


def render() -> str:
    """Return the tables as MyST: figures, bounds, and what is shown only."""
    rows = read_rows()
    is_bound = [row for row in rows if row.metric.startswith("bound_")]
    held = [row for row in rows if row.tolerance_percent is not None]
    shown = [row for row in rows if row not in held and row not in is_bound]
    sections = (
        ("## Figures the tests hold ours to", held, _held),
        ("## Bounds the tests hold ours to", is_bound, _bound),
        ("## Shown beside ours", shown, _shown),
    )
    return "\n\n".join(
        f"{title}\n\n{_table(part, cells)}" for title, part, cells in sections if part
    )


def _table(rows: Sequence[Row], cells: Callable[[Row], list[str]]) -> str:
    head = ["pipeline", "claim", "published", "ours", "difference", _LAST[cells], "source"]
    lines = [f"| {' | '.join(head)} |", "|---|---|--:|--:|--:|---|---|"]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    return "\n".join(lines)


def _held(row: Row) -> list[str]:
    return _cells(row, size(row.published_bytes), f"±{row.tolerance_percent:g} %")


def _bound(row: Row) -> list[str]:
    word = row.metric.removeprefix("bound_")
    is_right = (row.ours_bytes < row.published_bytes) == (word == "below")
    return _cells(row, f"{word} {size(row.published_bytes)}", "yes" if is_right else "**no**")


def _shown(row: Row) -> list[str]:
    return _cells(row, size(row.published_bytes), escape(row.remark or ""))


_LAST: dict[Callable[[Row], list[str]], str] = {
    _held: "held to",
    _bound: "on the right side",
    _shown: "remark",
}


def _cells(row: Row, published: str, last: str) -> list[str]:
    off = (row.ours_bytes - row.published_bytes) / row.published_bytes * 100
    difference = f"{off:+.1f} %".replace("-", "\N{MINUS SIGN}")
    return [
        f"`{row.pipeline}`",
        escape(row.claim),
        published,
        size(row.ours_bytes),
        difference,
        last,
        escape(row.source),
    ]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(run_generator(PAGE, SCRIPT, render))
