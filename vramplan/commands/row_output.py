"""Where a sweep's rows go: stdout, a pipe, or a file that grows and can be taken up again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from vramplan.commands.output import note
from vramplan.commands.result_file import check_file, write_through
from vramplan.commands.streams import write_stdout
from vramplan.errors import UsageError
from vramplan.quick_typing import IO, TYPE_CHECKING
from vramplan.report.row_file import RowFile, unfinished

if TYPE_CHECKING:
    from vramplan.ask.sweep import Sweep
    from vramplan.report.sweep import Writer

PARQUET = "parquet"


@contextmanager
def rows_output(
    output: str | None,
    chosen: str,
    sweep: Sweep,
    writer: Writer,
    show: Callable[..., None],
    *,
    replaces: bool = False,
) -> Iterator[tuple[int, Callable[[bytes], bool | None]]]:
    """Give how many rows `output` has, and what writes more of them; then complete it.

    What writes returns False where nobody reads any more. `chosen` is the format, csv, jsonl or
    parquet; without a file rows go to stdout. `show` is told of the work that is left when all rows
    are there. Raises UsageError for a file that cannot be written, for one of another sweep, and
    for one that is there and no sweep's that was begun, unless it `replaces` it.
    """
    if output is None or output == "-":
        write_stdout(writer.head.decode())
        yield 0, lambda rows: write_stdout(rows.decode())
        return
    path = Path(output)
    if path.exists() and not path.is_file():  # a pipe, a device: it cannot be taken up
        with path.open("wb", buffering=0) as stream:
            stream.write(writer.head)
            yield 0, partial(_push, stream)
        return
    kept = path.with_name(f"{path.name}.rows") if chosen == PARQUET else path
    is_begun = kept == path and unfinished(path)
    check_file(path, replaces=replaces or is_begun)
    with RowFile(kept, f"{sweep.key()} {chosen}", writer.head, path) as file:

        def start_of(row: int) -> bytes:
            return writer.start(*sweep.row_name(row))

        first = file.take_up(start_of, sweep.rows)
        if first:
            note(f"{first:,} of {sweep.rows:,} rows are there already")
        yield first, file.add
        if chosen == PARQUET:
            from vramplan.report.sweep_parquet import write_parquet

            def hear(written: int) -> None:
                show("rows of Parquet", written, sweep.rows)

            write = partial(write_parquet, file.read(), hear)
            write_through(path, write, replaces=replaces)
        file.finish(keeps_rows=chosen != PARQUET)
    note(f"wrote {path}")


def _push(stream: IO[bytes], rows: bytes) -> None:
    try:
        stream.write(rows)
    except OSError as problem:
        raise UsageError(f"{stream.name}: cannot be written: {problem.strerror}") from problem
