"""CUDA contexts that out-of-memory messages tell: what ``cuda_contexts.yaml`` must say.

The rule of `vramplan.budget.cuda_context` is found from some of them and held against the others;
``python -m tools.contexts`` does both. As for pipelines, a user's YAML is checked with marks.
"""

from __future__ import annotations

from collections.abc import Mapping

from vramplan.catalog.shipped import CONTEXTS_FILE
from vramplan.errors import CatalogError, UsageError
from vramplan.quick_dataclass import dataclass
from vramplan.quick_typing import TYPE_CHECKING, cast
from vramplan.units import parse_size

if TYPE_CHECKING:
    from pathlib import Path

    from vramplan.catalog.yaml_reader import Document, Plain

    Data = Mapping[str, Plain]

_SIZES = ("in_use", "allocated", "unallocated")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldContext:
    """One message: the catalogue's name of its card, and what the process held beside torch."""

    name: str
    card: str
    size_bytes: int
    is_held_out: bool  # kept out of the fit
    source: str
    remark: str | None = None


def load_contexts(folder: Path) -> tuple[ToldContext, ...]:
    """Return the contexts that a catalogue folder's file tells, in its order.

    Raises CatalogError, with the first thing that is wrong in the file.
    """
    from vramplan.catalog.yaml_reader import read_yaml

    document = read_yaml(folder / CONTEXTS_FILE)
    errors = check_contexts(document)
    if errors:
        raise errors[0]
    return tuple(_build(message) for message in _listed(document))


def check_contexts(document: Document) -> list[CatalogError]:
    """Return what is wrong with the messages of `document`; the sizes once the shape is right."""
    from vramplan.catalog.schema import check_shape

    errors = check_shape(document, "cuda_contexts")
    if errors:
        return errors
    seen: set[Plain] = set()
    for index, message in enumerate(_listed(document)):
        where = ("messages", index)
        if message["name"] in seen:
            text = f"a message {message['name']!r} stands above already"
            errors.append(document.error((*where, "name"), text))
        seen.add(message["name"])
        for key in _SIZES:
            try:
                parse_size(str(message[key]))
            except UsageError as problem:
                errors.append(document.error((*where, key), str(problem), hint=problem.hint))
    return errors


def _listed(document: Document) -> list[Data]:
    return cast("list[Data]", cast("Data", document.data)["messages"])


def _build(message: Data) -> ToldContext:
    in_use, allocated, unallocated = (parse_size(str(message[key])) for key in _SIZES)
    return ToldContext(
        name=cast("str", message["name"]),
        card=cast("str", message["card"]),
        size_bytes=in_use - allocated - unallocated,
        is_held_out=message["use"] == "held_out",
        source=cast("str", message["source"]),
        remark=cast("str | None", message.get("remark")),
    )
