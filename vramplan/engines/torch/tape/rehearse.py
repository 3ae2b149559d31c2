"""One run of a tape: in the compiled core where there is one, else in Python.

The Python is loaded where it is needed: most questions are answered without it.
"""

from __future__ import annotations

from contextlib import suppress

from vramplan.engines.torch.tape import native
from vramplan.quick_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vramplan.engines.torch.tape.conditions import Conditions
    from vramplan.engines.torch.tape.contents import Tape
    from vramplan.engines.torch.tape.rehearsed import Rehearsed


def rehearse(tape: Tape, conditions: Conditions, *, expandable_segments: bool = False) -> Rehearsed:
    """Return one run of the tape, loading included, with as much memory as it asks for.

    Raises TapeError where the tape does not hold for these settings.
    """

    def reference() -> Rehearsed:
        from vramplan.engines.torch.tape.rehearsal import rehearse_in_python

        return rehearse_in_python(tape, conditions, expandable_segments=expandable_segments)

    def again(others: Conditions) -> Rehearsed:
        return rehearse(tape, others, expandable_segments=expandable_segments)

    core, _ = native.find_core()
    if core is not None:
        with suppress(native.CannotRun):
            return native.NativeRehearsal(
                core,
                tape,
                conditions,
                reference=reference,
                again=again,
                expandable_segments=expandable_segments,
            )
    native.say_if_stale()
    return reference()
