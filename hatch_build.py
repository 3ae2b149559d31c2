"""The build hook: the replay's core, where there is a C compiler, and the man page.

Without one the wheel carries none, and vramplan replays in Python: the same figures, slower.
``VRAMPLAN_CORE=off`` builds none. In a checkout, ``python hatch_build.py`` compiles it in place.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "vramplan" / "engines" / "torch" / "tape" / "core"
LIBRARY = FOLDER / ("_core.dll" if sys.platform == "win32" else "_core.so")


def sources() -> list[Path]:
    """Return the core's sources, in a fixed order."""
    return sorted([*FOLDER.glob("*.c"), *FOLDER.glob("*.h")])


def checksum() -> int:
    """Return the checksum that the library answers with (tape/native.py asks)."""
    found = 0
    for path in sources():
        found = zlib.crc32(path.read_bytes().replace(b"\r\n", b"\n"), found)
    return found


def compilers() -> list[list[str]]:
    """Return the commands that may compile: CC, the one Python was built with, the usual names."""
    named = [os.environ.get("CC", ""), sysconfig.get_config_var("CC") or "", "cc", "gcc", "clang"]
    return [words for words in (name.split() for name in named) if words and shutil.which(words[0])]


def build(library: Path = LIBRARY, defined: Sequence[str] = ()) -> Path | None:
    """Compile the core, beside its sources or elsewhere, with names ``defined`` as ``NAME=VALUE``.

    Return the library, None where nothing compiles it.
    """
    if os.environ.get("VRAMPLAN_CORE", "").lower() in ("off", "0", "no"):
        return None
    made = library.with_suffix(f".{os.getpid()}")
    flags = ["-O3", "-std=c99", "-shared", f"-DVRAMPLAN_SOURCES={checksum()}"]
    flags += [f"-D{one}" for one in defined]
    if sys.platform != "win32":
        flags += ["-fPIC", "-fvisibility=hidden"]
    files = [str(path) for path in sources() if path.suffix == ".c"]
    for compiler in compilers():
        try:
            subprocess.run(
                [*compiler, *flags, "-o", str(made), *files],
                check=True,
                capture_output=True,
                timeout=300,
            )
            made.replace(library)  # a process that has the old one open keeps it
        except (OSError, subprocess.SubprocessError):
            made.unlink(missing_ok=True)
            continue
        return library
    return None


def man_page() -> Path:
    """Write the man page from the parser, outside of the sources; return its file."""
    root = Path(__file__).parent
    sys.path.insert(0, str(root))
    try:
        from tools.docs.man import render_commands

        page = render_commands()
    finally:
        sys.path.remove(str(root))
    file = Path(tempfile.mkdtemp(prefix="vramplan-man-")) / "vramplan.1"
    atexit.register(shutil.rmtree, file.parent, ignore_errors=True)
    file.write_text(page, encoding="ascii")
    return file


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a script
    pass
else:

    class CoreBuildHook(BuildHookInterface):  # type: ignore[misc, type-arg]
        """Puts the core into the wheel, which is then one platform's."""

        PLUGIN_NAME = "custom"

        def initialize(self, version: str, build_data: dict[str, object]) -> None:
            """Compile before files are collected; an editable install finds it in the checkout."""
            if self.target_name != "wheel":  # a source distribution carries the sources alone
                return
            if version != "editable":
                shared = build_data.setdefault("shared_data", {})
                assert isinstance(shared, dict)
                shared[str(man_page())] = "share/man/man1/vramplan.1"
            library = build()
            if library is None:
                LIBRARY.unlink(missing_ok=True)
                self.app.display_warning("no core was built: vramplan will replay in Python")
                return
            if version != "editable":
                build_data["pure_python"] = False
                build_data["tag"] = f"py3-none-{_platform_tag()}"
                artifacts = build_data["artifacts"]
                assert isinstance(artifacts, list)
                artifacts.append(library.relative_to(Path(__file__).parent).as_posix())

    def _platform_tag() -> str:
        """Return this platform as wheels name it; the library calls no Python of any version."""
        return sysconfig.get_platform().replace("-", "_").replace(".", "_")


if __name__ == "__main__":
    found = build()
    sys.stdout.write(f"{found}\n" if found else "no C compiler, or none that compiles it\n")
    sys.exit(0 if found else 1)
