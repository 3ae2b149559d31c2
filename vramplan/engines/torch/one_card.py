"""What torch's pipelines are planned on: one card; of several, the one that offers most."""

from __future__ import annotations

from vramplan.errors import UsageError
from vramplan.model import Card, Judgement, Settings
from vramplan.quick_dataclass import replace
from vramplan.setting_values import PLACING_MAPS


def one_of(card: Card, settings: Settings, budget_bytes: int = 0) -> tuple[Card, int]:
    """Return the card that a pipeline runs on and what it offers: of several, one with most.

    accelerate's ``device_map="auto"`` or ``"balanced"`` puts whole modules on one card after the
    other, and what a pass needs beside them follows from where it cuts; that is not modelled, and
    raises UsageError, as do cards that another machine serves to llama.cpp.
    """
    if not card.seats:
        return card, budget_bytes
    if settings.get("device_map") in PLACING_MAPS:
        raise UsageError(
            f"{card.name}: device_map={settings['device_map']} over several cards is known and not "
            "modelled",
            hint="device_map=cuda puts all of the model on one of them",
        )
    here = [seat for seat in card.seats if not seat.card.is_remote]
    if not here:
        raise UsageError(
            f"{card.name}: a torch pipeline runs on a card of its own machine",
            hint="model files (.gguf) are planned on cards that are served over RPC",
        )
    seat = max(here, key=lambda one: (one.budget_bytes, one.card.total_bytes))
    return seat.card, seat.budget_bytes


def said_of_one(card: Card, judgement: Judgement, used: Card, budget_bytes: int) -> Judgement:
    """Return a judgement on one card as that on several, and say that it is on one."""
    if not card.seats:
        return judgement
    said = f"on one of the {len(card.seats)} cards ({used.name}), for torch runs it on one"
    return replace(judgement, reason=f"{judgement.reason}; {said}", one_budget_bytes=budget_bytes)
