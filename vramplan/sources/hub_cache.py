"""What the Hugging Face hub's local cache holds: models whose weights are here, without a network.

Source: huggingface_hub, docs/source/en/guides/manage-cache.md (models--ORG--NAME/snapshots).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from vramplan.sources.hub_address import PREFIX, REPOSITORY
from vramplan.sources.hub_folder import is_cached
from vramplan.sources.hub_web import cache_folder, snapshots
from vramplan.sources.model_folder import files_below

_START, _BETWEEN = "models--", "--"
#: more repositories than this are not looked at
_MOST = 1_000
_LONGEST_REVISION = 100


def cached_models(environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield a TARGET for each model in the cache: ``hf:ORG/NAME``, or one of its GGUF files.

    What is there by half, or cannot be read, is passed over.
    """
    environ = os.environ if environment is None else environment
    for repository in _repositories(environ):
        if is_cached(repository, environ):
            yield f"{PREFIX}{repository}"
        seen: dict[str, None] = {}
        root = snapshots(repository, environ)
        for path in files_below(root) if root.is_dir() else ():
            parts = path.relative_to(root).parts  # the revision's name first
            if path.is_file():
                seen.setdefault("/".join(parts[1:]))
        for file in seen:
            yield f"{PREFIX}{repository}:{file}"


def snapshot_in(folder: Path) -> Path | None:
    """Return the revision in a folder of a cache, ``models--ORG--NAME``: main, or the only one.

    None for another folder, and where there are several and none is main.
    """
    if not folder.name.startswith(_START):
        return None
    main = ""
    try:
        revisions = [path for path in (folder / "snapshots").iterdir() if path.is_dir()]
        if (named := folder / "refs" / "main").is_file():
            with named.open(encoding="ascii", errors="replace") as file:
                main = file.read(_LONGEST_REVISION).strip()
    except OSError:
        return None
    found = [path for path in revisions if path.name == main] or revisions
    return found[0] if len(found) == 1 else None


def _repositories(environ: Mapping[str, str]) -> list[str]:
    try:
        found = []
        for number, entry in enumerate(Path(cache_folder(environ)).iterdir()):
            if number >= _MOST:
                break
            name = entry.name.removeprefix(_START).replace(_BETWEEN, "/", 1)
            if entry.name.startswith(_START) and REPOSITORY.fullmatch(name):
                found.append(name)
    except OSError:
        return []
    return sorted(found)
