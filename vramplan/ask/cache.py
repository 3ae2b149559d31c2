"""What is remembered between runs: whether it is, how much there is of it, and no more of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vramplan import __version__, user_cache
from vramplan.errors import UsageError
from vramplan.user_cache import VARIABLE, CacheState, Kept, UserCache


@contextmanager
def remembering(remark: Callable[[str], None], *, is_wanted: bool = True) -> Iterator[None]:
    """Let results be kept, and those of earlier runs be taken, for as long as this lasts.

    The folder is VRAMPLAN_CACHE's, else the system's for caches; ``off`` there keeps nothing.
    """
    root = user_cache.default_root() if is_wanted and not user_cache.is_switched_off() else None
    before = user_cache.in_use()
    user_cache.use(None if root is None else UserCache(root, __version__, remark))
    try:
        yield
    finally:
        user_cache.use(before)


def look() -> CacheState:
    """Return what there is in the cache."""
    root = user_cache.default_root()
    sizes: dict[str, list[int]] = {}
    for entry in [] if root is None else user_cache.entries(root):
        sizes.setdefault(entry.kind, []).append(entry.size_bytes)
    kept = (
        Kept(kind=kind, entries=len(found), size_bytes=sum(found))
        for kind, found in sorted(sizes.items())
    )
    return CacheState(folder=root, is_off=user_cache.is_switched_off(), kept=tuple(kept))


def clear() -> CacheState:
    """Remove all that is remembered; raises UsageError where it cannot be removed."""
    root = user_cache.default_root()
    if root is None:
        hint = f"name one with {VARIABLE}"
        raise UsageError("the system names no folder for caches", hint=hint)
    try:
        removed, removed_bytes = user_cache.clear(root)
    except OSError as problem:
        raise UsageError(f"{root}: cannot be cleared: {problem.strerror}") from problem
    is_off = user_cache.is_switched_off()
    return CacheState(folder=root, is_off=is_off, removed=removed, removed_bytes=removed_bytes)
