"""What is said of a search: which models it had no recording of, and made none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vramplan.commands.output import remark
from vramplan.searching import noting_left_out

#: so many names are told
_MOST = 4


@contextmanager
def saying_what_is_left_out() -> Iterator[None]:
    """Say at the end of what a search inside had no recording: `check` may answer otherwise."""
    with noting_left_out() as names:
        yield
    if not names:
        return
    told = ", ".join([*names][:_MOST])
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    remark(
        f"{told}{more}: a search makes no recordings, so that settings which are not recorded yet "
        "are counted, with a wide band; vramplan check records what it is asked"
    )
