"""The libraries that build and run real components: are they here, and can they be loaded?"""

from __future__ import annotations

import importlib
import importlib.util

from vramplan.errors import MissingError
from vramplan.extras import install_command

#: what recording and profiling import; all of it is in the extra
LIBRARIES = ("torch", "diffusers", "transformers")
EXTRA = "gpu"
#: what a line of a recording process begins with that says what is done now
STEP = "step: "
#: the libraries keep to what concerns the person at the terminal, and off the network
QUIET = {
    "DIFFUSERS_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_OFFLINE": "1",
}


def require_libraries(purpose: str, *, load: bool = True) -> None:
    """Raise MissingError where a library is not installed, or is but cannot be loaded.

    `purpose` begins the sentence: ``recording needs torch, ...``. Without `load` they are looked
    for only: another process will import them.
    """
    missing = [name for name in LIBRARIES if not _is_installed(name)]
    if missing:
        verb = "are" if len(missing) > 1 else "is"
        message = f"{purpose} needs {', '.join(missing)}, which {verb} not installed"
        raise MissingError(message, hint=install_command(EXTRA))
    for name in LIBRARIES if load else ():
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as problem:  # built for another Python, or for another libc
            first = str(problem).partition("\n")[0]
            message = f"{name} is installed and cannot be imported: {first}"
            hint = f"install it anew: {install_command(EXTRA)}"
            raise MissingError(message, hint=hint) from problem


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False
