"""Every Python that is started with this folder on its path gets the pretended cards with torch.

Python runs it at its start, as it runs a sitecustomize of the user's own, which comes next. It uses
nothing that an older Python does not have.
"""

import os
import sys
from types import ModuleType
from typing import Any, Optional


class _Refusal:
    """Refuses torch to a Python that is too old."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> None:
        """Raise ImportError for torch; know of nothing else."""
        if name == "torch":
            number = f"{sys.version_info[0]}.{sys.version_info[1]}"
            raise ImportError(f"a pretended card needs Python 3.11 or newer, this is {number}")


class _Home:
    """Finds vramplan where the command that started this has it, and nothing else there."""

    def find_spec(
        self,
        name: str,
        _path: object = None,
        target: Optional[ModuleType] = None,  # noqa: UP045  # an old Python reads it
    ) -> Any:
        """Return vramplan's specification."""
        from importlib.machinery import PathFinder

        home = os.environ["VRAMPLAN_PRETENDED_HOME"]
        return PathFinder.find_spec(name, [home], target) if name == "vramplan" else None


def _begin() -> None:
    """Have torch find the cards; where this Python cannot, importing torch says why."""
    finders: Any = sys.meta_path
    if sys.version_info < (3, 11):  # noqa: UP036  # the program may be run by one
        finders.insert(0, _Refusal())
        return
    finders.append(_Home())
    from vramplan.engines.torch.witness.start import begin

    begin()


def _run_next() -> None:
    """Run the sitecustomize that this one stands before, if there is one."""
    import importlib

    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  # pathlib takes long
    sys.path[:] = [one for one in sys.path if os.path.abspath(one or ".") != here]  # noqa: PTH100  # as above
    own = sys.modules.pop("sitecustomize", None)
    try:
        importlib.import_module("sitecustomize")
    except ImportError as problem:
        if problem.name != "sitecustomize":
            raise
        if own is not None:
            sys.modules["sitecustomize"] = own


if os.environ.get("VRAMPLAN_PRETENDED_CARDS"):
    _begin()
_run_next()
