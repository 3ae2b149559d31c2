"""Writes the tables that set published figures beside ours.

    python -m tools.docs.accuracy            rewrite the lower half of docs/accuracy.md, and the
                                                tables in README.md and what-vram-is-spent-on.md
    python -m tools.docs.accuracy --check    exit 1 where one of them is out of date

All else in these pages is written by hand and kept. The figures are those of
profiles/published.yaml, ours are worked out as `vramplan estimate` works them out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.docs.page import ROOT, escape, replace_generated

MODULE = "tools.docs.accuracy"
PAGE = ROOT / "docs" / "accuracy.md"
README = ROOT / "README.md"
SPENT = ROOT / "docs" / "what-vram-is-spent-on.md"

#: a table inside of a page stands between these two lines
BEGIN = f"<!-- written by python -m {MODULE} -->\n"
END = "<!-- by hand again -->\n"

#: rows of the README's table, and the published figure that each is about
HIGHLIGHTS = {
    "SD 1.5, bf16, A100, peak of live memory": "sd15-a100-bf16-sdpa",
    "the same without fused attention": "sd15-a100-bf16",
    "SD 1.5's architecture, fp16, with safety checker, A10G": "sd15-a10g-fp16",
    "SDXL at 1024x1024, bf16, A100": "sdxl-a100-bf16-sdpa",
    "SD 1.5's VAE decoding 1024x1024, fp16, RTX 4090: reserved above the weights": (
        "invokeai-decode-reserved-1024"
    ),
    "`llava:7b` in Ollama at 2,048 tokens: compute buffer": "ollama-2706-compute",
}
#: what is said of convolutions' workspace, and the architecture on which ours takes that much
WORKSPACES = {
    "ours without any scratch": "6.1",
    "ours for 7.0: half copies": "7.0",
    "ours for 8.6: whole copies": "8.6",
}

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
    from vramplan.ask.published import claims_about, compare_published
    from vramplan.ask.targets import open_pipelines
    from vramplan.catalog import load_catalog

    catalog = load_catalog(())
    for pipeline in open_pipelines(list(catalog.pipelines.values()), catalog):
        claims = claims_about(pipeline)
        figures = compare_published(pipeline) if claims else ()
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
    from tools.docs import (
        logged_buffers,
        measured_runs,
        witnessed_buffers,
        witnessed_torch,
        witnessed_verdicts,
    )

    published = [f"{title}\n\n{_table(part, cells)}" for title, part, cells in sections if part]
    engines = (logged_buffers.render(), witnessed_buffers.render())
    torch = [one for one in (witnessed_torch.render(), witnessed_verdicts.render()) if one]
    return "\n\n".join([measured_runs.render(), *torch, *published, *engines])


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


def render_highlights() -> str:
    """Return the README's table."""
    rows = {row.name: row for row in read_rows()}
    lines = ["| what | published | ours |", "|---|--:|--:|"]
    for title, name in HIGHLIGHTS.items():
        row = rows[name]
        lines.append(f"| {title} | {size(row.published_bytes)} | {size(row.ours_bytes)} |")
    return "\n".join(lines)


def render_workspaces() -> str:
    """Return one and four SD 1.5 images at once, published and with three amounts of scratch."""
    rows = {row.name: row for row in read_rows()}
    one, four = (
        size(rows[name].published_bytes) for name in ("sd15-v100-fp16", "sd15-v100-fp16-batch-4")
    )
    newer = size(rows["sd15-a10g-fp16"].published_bytes)
    older = "published, a GPU of 15.8 GiB (what a V100 has, compute capability 7.0)"
    lines = [
        "| SD 1.4/1.5, 512x512, fp16, with safety checker | batch 1 | batch 4 |",
        "|---|--:|--:|",
        f"| {older} | {one} | {four} |",
    ]
    for title, capability in WORKSPACES.items():
        peaks = " | ".join(size(_peak_bytes(batch, capability)) for batch in (1, 4))
        lines.append(f"| {title} | {peaks} |")
    lines.append(f"| published, A10G (8.6) | {newer} | \N{EN DASH} |")
    return "\n".join(lines)


def _peak_bytes(batch: int, compute_capability: str) -> int:
    """Return what SD 1.5 has allocated at its peak."""
    from tools.docs.replayed_runs import open_tape, pipeline_of, settings_of
    from vramplan.engines.torch.replayed import conditions_at
    from vramplan.engines.torch.tape.allocator import CachingAllocator
    from vramplan.engines.torch.tape.replay import Replay

    pipeline = pipeline_of("sd15")
    tape = open_tape(pipeline)
    settings = settings_of(pipeline, batch=batch)
    conditions = conditions_at(pipeline, settings, compute_capability, tape)
    run = Replay(tape, conditions, CachingAllocator())
    run.load()
    run.run()
    return run.trace.allocated_peak_bytes


def replace_table(page: str, table: str) -> str:
    """Return `page` with the one table between the two marker lines replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has lost a marker line: {BEGIN}{END}")
    return f"{before}{BEGIN}\n{table}\n\n{END}{after}"


def fresh_pages() -> dict[Path, str]:
    """Return what each of the three pages should be."""
    old = {path: path.read_text(encoding="utf-8") for path in (PAGE, README, SPENT)}
    return {
        PAGE: replace_generated(old[PAGE], MODULE, render()),
        README: replace_table(old[README], render_highlights()),
        SPENT: replace_table(old[SPENT], render_workspaces()),
    }


def main() -> int:
    """Rewrite the tables, or with --check only say which page is out of date."""
    stale = 0
    for path, text in fresh_pages().items():
        if path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if "--check" in sys.argv[1:]:
            print(f"{path.name} is out of date: run python -m {MODULE}", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8", newline="\n")
    return int(bool(stale)) if "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
