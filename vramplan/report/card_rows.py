"""What each of several cards holds: a column a card, and one for host memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from vramplan.model import (
    LANGUAGE_MODEL,
    PROJECTOR,
    Buffer,
    CardShare,
    LineKind,
    buffer_bytes,
)
from vramplan.report import phrases
from vramplan.report.colour import Tone, verdict_tone
from vramplan.report.rows import Cell, Column, Table, cell

#: the rows of buffers: what they are called, of which kinds, and whose
_ROWS: tuple[tuple[str, tuple[LineKind, ...], str | None], ...] = (
    ("model", (LineKind.WEIGHTS,), LANGUAGE_MODEL),
    ("KV cache", (LineKind.KV_CACHE,), None),
    ("recurrent state", (LineKind.RECURRENT_STATE,), None),
    ("compute", (LineKind.COMPUTE_BUFFER,), None),
    ("projector", (LineKind.WEIGHTS, LineKind.PROJECTOR_COMPUTE), PROJECTOR),
    ("engine pools", (LineKind.ENGINE_POOL,), None),
)
#: what cannot fail to interest, however empty
_ALWAYS = frozenset({"model", "KV cache", "compute"})


def card_table(cards: Sequence[CardShare], host: Sequence[Buffer]) -> Table:
    """Return what is on each card and in host memory; verdicts where the cards were judged."""
    heads = [f"{share.device} {phrases.name(share.card)}" for share in cards]
    columns = [
        Column(header=""),
        *(Column(header=head, is_figure=True) for head in heads),
        Column(header="in host memory", is_figure=True),
    ]
    rows = [*_placed(cards, host), *_summed(cards)]
    return Table(columns=tuple(columns), rows=tuple(rows))


def _placed(cards: Sequence[CardShare], host: Sequence[Buffer]) -> Iterator[tuple[Cell, ...]]:
    yield _row("layers", cards, lambda share: cell(str(share.layers)))
    for label, kinds, component in _ROWS:
        sizes = [buffer_bytes(share.buffers, *kinds, component=component) for share in cards]
        kept = buffer_bytes(host, *kinds, component=component, on_host=True)
        if label in _ALWAYS or any(sizes) or kept:
            shown = (cell(phrases.need(size)) for size in (*sizes, kept))
            yield (cell(label), *shown)
    yield _row("CUDA context", cards, lambda share: cell(phrases.need(_context_bytes(share))))


def _context_bytes(share: CardShare) -> int:
    return share.need.expected_bytes - sum(one.size_bytes for one in share.buffers)


def _summed(cards: Sequence[CardShare]) -> Iterator[tuple[Cell, ...]]:
    yield _row(
        "need",
        cards,
        lambda share: cell(
            phrases.need(share.need.expected_bytes), phrases.spread(share.need), Tone.STRONG
        ),
    )
    if all(share.budget_bytes is None for share in cards):
        return
    yield _row("of", cards, lambda share: cell(phrases.available(share.budget_bytes or 0)))
    yield _row("headroom", cards, lambda share: cell(phrases.available(share.headroom_bytes or 0)))
    yield _row("verdict", cards, _verdict)


def _verdict(share: CardShare) -> Cell:
    if share.kind is None:
        return cell(phrases.NOTHING)
    return cell(phrases.verdict(share.kind), tone=verdict_tone(share.kind))


def _row(
    label: str, cards: Sequence[CardShare], show: Callable[[CardShare], Cell]
) -> tuple[Cell, ...]:
    return (cell(label), *(show(share) for share in cards), cell(phrases.NOTHING))
