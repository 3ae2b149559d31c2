"""What installs an extra of vramplan from where the user is; no index of packages has it yet."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

_NAME = "vramplan"
_CHECKOUT = Path(__file__).resolve().parent.parent
#: torch>=2.6; extra == "gpu"
_OF_EXTRA = re.compile(r"""\s*([^;]+?)\s*;.*\bextra\s*==\s*['"]([a-z]+)['"]""")


def install_command(extra: str, *, checkout: Path = _CHECKOUT) -> str:
    """Return the command that installs `extra` (gpu, engine).

    In a checkout it is pip's for that folder, which stays where it is; of an installed vramplan it
    names what the extra needs, as the installation itself says, so that vramplan need not be found
    on any index.
    """
    if (checkout / "pyproject.toml").is_file():
        here = "." if checkout == Path.cwd() else str(checkout)
        return f"pip install -e {shlex.quote(f'{here}[{extra}]')}"
    wanted = _requirements().get(extra)
    if not wanted:
        return f"pip install {shlex.quote(f'{_NAME}[{extra}]')} from where vramplan came from"
    return "pip install " + " ".join(shlex.quote(one) for one in wanted)


@cache
def _requirements() -> dict[str, list[str]]:
    """Return what each extra of the installed vramplan needs."""
    from importlib.metadata import PackageNotFoundError, requires

    found: dict[str, list[str]] = {}
    try:
        lines = requires(_NAME) or []
    except PackageNotFoundError:
        return found
    for line in lines:
        match = _OF_EXTRA.match(line)
        if match and not match[1].startswith(_NAME):
            found.setdefault(match[2], []).append(match[1].replace(" ", ""))
    return found
