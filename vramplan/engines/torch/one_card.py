"""What torch's pipelines are planned on: one card."""

from __future__ import annotations

from vramplan.errors import UsageError
from vramplan.model import Card


def refuse_several(card: Card) -> None:
    """Raise UsageError for several cards: nothing here knows what would go to which of them.

    accelerate's ``device_map="auto"`` or ``"balanced"`` puts whole modules on one card after the
    other, and what a pass needs beside them follows from where it cuts; that is not modelled.
    """
    if card.seats:
        raise UsageError(
            f"{card.name}: a torch pipeline is planned on one card; device_map=auto or balanced "
            "over several is known and not modelled",
            hint="name one card; model files (.gguf) are planned on several",
        )
