"""What is remembered between runs, in every format."""

from __future__ import annotations

from vramplan.quick_typing import TYPE_CHECKING
from vramplan.report.look import Look

if TYPE_CHECKING:
    from vramplan.report.sheet import Sheet
    from vramplan.user_cache import CacheState

#: what each kind of entry is
KINDS = {
    "replay": "what a pipeline's run takes: peaks and least limits",
    "stop": "where a run stops on a card that is too small",
    "screening": "whether a change of settings would help",
    "recording": "what a model without a tape allocates, run without data",
    "graph": "compute buffers of a model's graph",
    "header": "headers of model files",
}


def render(state: CacheState, look: Look) -> str:
    """Return the state of a cache as it is to look."""
    if look.format == "json":
        from vramplan.report.serial import to_json

        return to_json(
            look.command,
            {
                "folder": None if state.folder is None else str(state.folder),
                "is_used": state.folder is not None and not state.is_off,
                "entries": sum(one.entries for one in state.kept),
                "size_bytes": sum(one.size_bytes for one in state.kept),
                "most_entries": state.most_entries,
                "most_bytes": state.most_bytes,
                "kinds": [
                    {"kind": one.kind, "entries": one.entries, "size_bytes": one.size_bytes}
                    for one in state.kept
                ],
                "removed_entries": state.removed,
                "removed_bytes": state.removed_bytes,
            },
        )
    from vramplan.report.sheet import render_sheet

    return render_sheet(_sheet(state), look)


def _sheet(state: CacheState) -> Sheet:
    from vramplan.report.rows import cell, table
    from vramplan.report.sheet import Sheet
    from vramplan.units import format_size

    if state.folder is None:
        return Sheet(lines=["The system names no folder for caches: nothing is remembered."])
    use = "switched off by VRAMPLAN_CACHE" if state.is_off else "in use"
    lines = [f"{state.folder}, {use}"]
    if state.removed is not None:
        size = format_size(state.removed_bytes or 0, up=True)
        lines.append(f"{state.removed:,} entries were removed, {size}.")
    elif not state.kept:
        lines.append("Nothing is remembered yet.")
    else:
        entries = sum(one.entries for one in state.kept)
        size = format_size(sum(one.size_bytes for one in state.kept), up=True)
        most = format_size(state.most_bytes, up=True)
        lines.append(
            f"{entries:,} entries, {size}; about {state.most_entries:,} and {most} at most"
        )
    rows = (
        (cell(one.kind), cell(f"{one.entries:,}"), cell(KINDS.get(one.kind, "")))
        for one in state.kept
    )
    tables = [("", table("kind, entries, what", rows))] if state.kept else []
    return Sheet(lines=lines, tables=tables)
