"""Results that are kept between runs, in the user's folder for such things: a file for each.

An entry names all that its result depends on (its key) and is believed only where that key, its
kind and the checksum of its bytes are what is asked for; anything else is no entry. It is JSON and
bounded, and belongs to whoever reads it. Entries of other versions, or of code that was changed
since, lie in folders of another name and are removed; so are the oldest of too many.

Several processes may write at once: an entry is written beside its place and then put there. Where
nothing can be written everything works without, and that is said once.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from _thread import get_ident
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from vramplan.codec import Json, JsonError, Limits, parse_json
from vramplan.opened_file import open_file
from vramplan.quick_dataclass import dataclass

#: a folder, or ``off``
VARIABLE = "VRAMPLAN_CACHE"
_OFF = ("off", "0", "no")

#: what an entry looks like; another number is another version
_FORM = 1
#: what every folder of ours is called: nothing else is ever removed
_OURS = "vramplan-results-"
_SUFFIX = ".json"

#: about so many entries are kept, and bytes of them
MOST_ENTRIES = 4096
MOST_BYTES = 64 << 20
_LARGEST = 4 << 20
_LIMITS = Limits(text_bytes=_LARGEST, depth=16, characters=100_000)


class UserCache:
    """The entries in one folder, for a version and its code as it is now.

    `remark` hears, once, that nothing can be written.
    """

    def __init__(self, root: Path, version: str, remark: Callable[[str], None]) -> None:
        self.root = root
        self._version = version
        self._remark = remark
        self._folder: Path | None = None
        self._is_writable = True

    @property
    def folder(self) -> Path:
        """Where the entries of this version and this code are."""
        if self._folder is None:
            self._folder = self.root / f"{_OURS}{_FORM}-{self._version}-{code_stamp()}"
        return self._folder

    def find(self, kind: str, key: str) -> Json:
        """Return what was kept for a key; None where there is none that can be believed."""
        try:
            with open_file(self._path(kind, key)) as file:
                if not _is_own(file.fileno()):
                    return None
                data = file.read(_LARGEST + 1)
        except OSError:
            return None
        head, _, body = data.partition(b"\n")
        named, _, value = body.partition(b"\n")
        if head != _head(kind, body) or named != _spelt(key):
            return None
        try:
            return parse_json(value, kind, _LIMITS)
        except JsonError:
            return None

    def keep(self, kind: str, key: str, value: Json) -> None:
        """Keep a value for a key; what cannot be kept is not."""
        if not self._is_writable:
            return
        try:
            said = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
        except ValueError:  # a fraction that JSON has no word for
            return
        body = _spelt(key) + b"\n" + said
        if len(body) > _LARGEST - 200:
            return
        try:
            self._write(self._path(kind, key), _head(kind, body) + b"\n" + body)
        except OSError as problem:
            self._is_writable = False
            reason = problem.strerror or type(problem).__name__
            self._remark(
                f"{self.root}: cannot be written ({reason}): nothing is remembered; "
                f"{VARIABLE}=off asks for that"
            )

    def _path(self, kind: str, key: str) -> Path:
        raw = key.encode(errors="surrogatepass")  # a file's name may have half a character
        return self.folder / f"{kind}-{zlib.crc32(raw):08x}{zlib.adler32(raw):08x}{_SUFFIX}"

    def _write(self, path: Path, data: bytes) -> None:
        beside = path.with_name(f"{path.stem}.{os.getpid()}.{get_ident()}.part")
        if not self.folder.is_dir():  # the first entry
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._forget_others()
        try:
            _write_new(beside, data)
            _put(beside, path)
        except FileNotFoundError:  # another version has just removed the folder: it is its turn
            return
        if zlib.crc32(data) % 16 == 0:  # looking through the folder takes longer than an entry
            self._forget_oldest()

    def _forget_others(self) -> None:
        """Remove the entries of other versions, and of this one before its code was changed."""
        for folder in _folders(self.root):
            if folder != self.folder:
                _remove(folder)

    def _forget_oldest(self) -> None:
        entries = sorted(_entries(self.folder), key=lambda one: one.modified_s, reverse=True)
        total = 0
        for number, entry in enumerate(entries):
            total += entry.size_bytes
            if number >= MOST_ENTRIES or total > MOST_BYTES:
                entry.path.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as file:  # "x": a link that somebody has put there is not followed
            file.write(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _put(beside: Path, path: Path) -> None:
    try:
        beside.replace(path)
    except PermissionError:  # Windows, while another process reads the one that is there
        beside.unlink(missing_ok=True)
        if not path.exists():
            raise


def _head(kind: str, body: bytes) -> bytes:
    return f"{_OURS}{_FORM} {kind} {zlib.crc32(body):08x}".encode()


def _spelt(key: str) -> bytes:
    return json.dumps(key).encode()


def _is_own(descriptor: int) -> bool:
    """Return whether a file belongs to who reads it: others' are not believed."""
    return not hasattr(os, "geteuid") or os.fstat(descriptor).st_uid == os.geteuid()


# ----------------------------------------------------------------------------- the one in use
class _Use:
    """The cache of this process; none until a command says so, and none in a library's user."""

    cache: UserCache | None = None


def in_use() -> UserCache | None:
    """Return the cache that this process reads and writes, if any."""
    return _Use.cache


def use(cache: UserCache | None) -> None:
    """Let this process read and write a cache, or none."""
    _Use.cache = cache


def is_switched_off(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment asks for no cache."""
    return environment.get(VARIABLE, "").lower() in _OFF


def default_root(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder that the environment or the system names; None where it names none."""
    asked = environment.get(VARIABLE, "")
    if asked and not is_switched_off(environment):
        return Path(asked)
    if sys.platform == "win32":
        local = environment.get("LOCALAPPDATA", "")
        return Path(local) / "vramplan" / "cache" if local else None
    told = environment.get("XDG_CACHE_HOME", "")
    if told.startswith("/"):  # one that is relative is to be passed over (XDG's own rule)
        return Path(told) / "vramplan"
    home = environment.get("HOME") or os.path.expanduser("~")  # noqa: PTH111  # raises nothing
    if not home.startswith("/"):
        return None
    caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path(home) / caches / "vramplan"


# ------------------------------------------------------------------------- what there is of it
@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of a cache."""

    path: Path
    kind: str
    size_bytes: int
    modified_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The entries of one kind."""

    kind: str
    entries: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheState:
    """A cache as it stands; `folder` is None where the system names none.

    `removed` are the entries, and `removed_bytes` their size, that were removed just now.
    """

    folder: Path | None
    is_off: bool
    kept: tuple[Kept, ...] = ()
    most_entries: int = MOST_ENTRIES
    most_bytes: int = MOST_BYTES
    removed: int | None = None
    removed_bytes: int | None = None


def entries(root: Path) -> Iterator[Entry]:
    """Yield everything that is kept in a folder, for whichever version."""
    for folder in _folders(root):
        yield from _entries(folder)


def clear(root: Path) -> tuple[int, int]:
    """Remove everything that is kept in a folder; return how many entries, and bytes, are gone.

    Raises OSError where it cannot be.
    """
    found = list(entries(root))
    for folder in _folders(root):
        _remove(folder, is_strict=True)
    return len(found), sum(one.size_bytes for one in found)


def _folders(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if path.name.startswith(_OURS) and path.is_dir()]
    except OSError:
        return []


def _entries(folder: Path) -> Iterator[Entry]:
    """Yield the entries in a folder, and what a process left that was killed while it wrote."""
    try:
        with os.scandir(folder) as listing:
            found = list(listing)
    except OSError:
        return
    for one in found:
        if not one.name.endswith((_SUFFIX, ".part")):
            continue
        try:
            state = one.stat(follow_symlinks=False)
        except OSError:  # another process has removed it
            continue
        yield Entry(
            path=Path(one.path),
            kind=one.name.partition("-")[0],
            size_bytes=state.st_size,
            modified_s=state.st_mtime,
        )


def _remove(folder: Path, *, is_strict: bool = False) -> None:
    """Remove a folder of ours, but for what is not ours in it."""
    try:
        for entry in _entries(folder):
            entry.path.unlink(missing_ok=True)
        if not os.listdir(folder):  # noqa: PTH208  # closed at once
            folder.rmdir()
    except OSError:
        if is_strict:
            raise


# -------------------------------------------------------------------------- what the code is
#: folders of modules that show results, measure, or run the real engine: none of them makes one
#: that is kept under the stamp of all (a recording has `record` in its key)
_OTHERS = frozenset({
    "ask", "commands", "compare", "measurement", "page", "probe", "record", "report", "run",
    "runner", "witness",
})  # fmt: skip


def code_stamp(below: str = "") -> str:
    """Return what changes when our code does: of each module its name, its size and its time.

    Nothing is read: hundreds of modules are looked at in a millisecond. Only those are that are
    `below` a folder of ours.
    """
    found: list[str] = []
    waiting = [f"{os.path.dirname(__file__)}/{below}"]  # noqa: PTH120  # as text: quicker
    for folder in waiting:
        with os.scandir(folder) as listing:
            for one in listing:
                name = one.name
                if name.endswith((".py", ".so", ".dll")):
                    state = one.stat()
                    found.append(f"{one.path} {state.st_size} {state.st_mtime_ns}")
                elif name[0] not in "_." and name not in _OTHERS and one.is_dir():
                    waiting.append(one.path)
    found.sort()
    return f"{zlib.crc32(chr(10).join(found).encode(errors='surrogateescape')):08x}"
