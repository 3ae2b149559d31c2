"""Is another KV cache asked for than the one that grows, which tapes have? A start asks this alone.

What the others hold is `held_cache`, and what becomes of a budget `kv_cache`.
"""

from __future__ import annotations

from vramplan.known_settings import IDLE, OF_CACHES
from vramplan.model import Settings

_KEY = "cache_implementation"


def is_told(settings: Settings) -> bool:
    """Return whether settings ask for another cache than the growing one."""
    return settings.get(_KEY, IDLE[_KEY]) != IDLE[_KEY]


def is_static(settings: Settings) -> bool:
    """Return whether that one has all its room from the first token on, on the GPU."""
    return settings.get(_KEY) == "static"


def as_grown(settings: Settings) -> Settings:
    """Return the settings of the same run with the growing cache."""
    return {**settings, _KEY: IDLE[_KEY], **OF_CACHES}
