"""What Windows keeps of a card beside the processes that nvidia-smi shows, under WSL too.

The display driver model (WDDM) owns a card's memory there and keeps a share back, which neither
nvidia-smi nor the task manager counts as used. What Ollama's log told a process of the memory that
is left, on cards that showed nothing else in use:

    RTX 4060 laptop, WSL2      6.9 of 8.0 GiB     ollama/ollama#7996
    RTX 3060, WSL2             11.0 of 12.0 GiB   ollama/ollama#5988
    RTX 3090, Windows          22.7 of 24.0 GiB   ollama/ollama#8723 (0.3 GiB shown as used)

That is 1.0 to 1.1 GiB, the asking process's own CUDA context among it, and it does not go with the
card's size. Contexts are counted apart, so what is kept is that less a context: none was told, and
100 to 400 MiB are assumed. Windows 10 before version 2004 keeps more, 15 % of the card (3.2 GiB of
22: ollama/ollama#9167): it is out of support, and outside of the band.
"""

from __future__ import annotations

from vramplan.model import Band, Settings
from vramplan.setting_values import SPILLING_PLATFORMS
from vramplan.units import MIB

#: left over by the three reports, in MiB, and the context that is assumed among it
REPORTED_MIB = (1024, 1024, 1126)
CONTEXT_MIB = (100, 250, 400)

_NONE = Band.exactly(0)
_WINDOWS = Band(
    low_bytes=(REPORTED_MIB[0] - CONTEXT_MIB[2]) * MIB,
    expected_bytes=(REPORTED_MIB[1] - CONTEXT_MIB[1]) * MIB,
    high_bytes=(REPORTED_MIB[2] - CONTEXT_MIB[0]) * MIB,
)


def system_share(settings: Settings) -> Band:
    """Return what the platform keeps of a card, unseen, in bytes: nothing on Linux."""
    return _WINDOWS if settings.get("platform") in SPILLING_PLATFORMS else _NONE


def beside_share(need: Band, settings: Settings) -> Band:
    """Return a need with the band of the platform's share about it.

    It is to be held against a budget from which the share as expected has been taken.
    """
    share = system_share(settings)
    return Band(
        low_bytes=max(0, need.low_bytes + share.low_bytes - share.expected_bytes),
        expected_bytes=need.expected_bytes,
        high_bytes=need.high_bytes + share.high_bytes - share.expected_bytes,
    )
