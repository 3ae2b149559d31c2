"""A sweep as Parquet, by pyarrow: made of its JSON lines when all of them are there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from vramplan.errors import MissingError
from vramplan.extras import install_command
from vramplan.quick_typing import IO, Any
from vramplan.report.sweep import COLUMNS, NUMBERS

#: rows of a row group: what is in memory at a time
_GROUP = 5_000
_INTEGERS = ("layers_total", "layers_on_gpu", "context_tokens")


def require_pyarrow() -> Any:
    """Return pyarrow; raises MissingError where it is not installed."""
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingError("Parquet needs pyarrow", hint=install_command("parquet")) from None
    return pa


def write_parquet(lines: IO[bytes], hear: Callable[[int], None], path: Path) -> None:
    """Write the rows of `lines` to `path`, a group of them at a time. Raises OSError.

    `hear` is told how many are written.
    """
    arrow = require_pyarrow()
    from pyarrow import parquet

    schema = arrow.schema([(column, _type(column)) for column in COLUMNS])
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        written = 0
        for group in _groups(lines):
            hear(written)
            written += len(group)
            writer.write_table(arrow.Table.from_pylist(group, schema=schema))


def _groups(lines: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    while group := [_row(line) for line in islice(lines, _GROUP)]:
        yield group


def _row(line: bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(line)  # we wrote it
    if row["advice"] is not None:
        row["advice"] = "; ".join(one["change"] for one in row["advice"])
    return row


def _type(column: str) -> str:
    """Return what a column holds; a setting that may be a word is text."""
    if column.endswith("_bytes") or column in _INTEGERS:
        return "int64"
    if column == "offload_risk":
        return "double"
    return NUMBERS.get(column, "string")
