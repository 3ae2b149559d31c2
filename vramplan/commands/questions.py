"""The questions that an assistant may ask, each answered with the JSON that commands write.

What comes in is a stranger's: names of the catalogue, of the hub and of model stores are taken, no
file of this machine, and no more of anything than a person would ask for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from vramplan.ask import library
from vramplan.ask.listing import CardFilter, find_cards, find_pipelines
from vramplan.ask.targets import find_named, open_catalog
from vramplan.errors import UsageError, did_you_mean
from vramplan.known_settings import SETTING_HELP, form_of
from vramplan.quick_typing import Any, cast
from vramplan.report import cards, catalog, estimate, plan, ranking, verdicts
from vramplan.report.look import Look

Setting = str | int | float | bool

_MOST_TARGETS, _MOST_CARDS, _MOST_SETTINGS, _LONGEST = 8, 12, 24, 200
#: what names a model elsewhere, and cannot lead out of where it is looked up
_ELSEWHERE = re.compile(r"(?:hf|ollama|lmstudio):(?!.*\.\.)[\w.@+-][\w.:/@+-]{0,180}", re.ASCII)


def check(
    targets: list[str],
    cards: list[str],
    settings: dict[str, Setting] | None = None,
    together: bool = False,
) -> dict[str, Any]:
    """Say for each model and each card whether it fits, with the need, the budget and what helps.

    A target is a name of the catalogue (sd15, llava:7b), hf:ORG/NAME or ollama:NAME:TAG; a card is
    a name (rtx-3060-12gb), a class (8gb) or a size (11.6GiB). Settings are such as image, batch,
    dtype, offload, context. `together` judges the targets loaded side by side.
    """
    asked = _targets(targets)
    answer = library.check(*asked, card=_cards(cards), together=together, **_settings(settings))
    return _told("check", lambda look: verdicts.render(answer.verdicts, (), (), look))


def why(target: str, card: str, settings: dict[str, Setting] | None = None) -> dict[str, Any]:
    """Show what a model needs on a card line by line and phase by phase, each with its origin."""
    (asked,) = _targets([target])
    found = library.estimate(asked, card=_cards([card]), **_settings(settings))
    return _told("estimate", lambda look: estimate.render(found, (), look))


def change(target: str, card: str, settings: dict[str, Setting] | None = None) -> dict[str, Any]:
    """Say what makes a model fit a card, cheapest first with the lines to type, and the largest."""
    (asked,) = _targets([target])
    (one,) = _cards([card])
    found = library.plan(asked, card=one, **_settings(settings))
    return _told("plan", lambda look: plan.render(found, look))


def runs(card: str) -> dict[str, Any]:
    """Rank what runs on a card: the catalogue and the models in this machine's stores."""
    (one,) = _cards([card])
    found = library.fit(card=one)
    return _told("fit", lambda look: ranking.render(found, look))


def known_models(words: list[str] | None = None) -> dict[str, Any]:
    """List the models of the catalogue; with words those that have each of them."""
    found = find_pipelines(_texts(words or [], 8, "words"), open_catalog(()))
    return _told("catalog", lambda look: catalog.render_list(found, look))


def known_cards(words: list[str] | None = None) -> dict[str, Any]:
    """List the cards that are known; with words (laptop, datacenter, 4090) those that have each."""
    wanted = CardFilter(words=tuple(_texts(words or [], 8, "words")))
    shown = find_cards(wanted, open_catalog(()))
    return _told("cards", lambda look: cards.render(shown.cards, shown.judged, (), look))


#: every question, by the name that an assistant calls it
QUESTIONS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "check": check,
    "estimate": why,
    "plan": change,
    "fit": runs,
    "catalog": known_models,
    "cards": known_cards,
}


def _told(command: str, render: Callable[[Look], str]) -> dict[str, Any]:
    written = json.loads(render(Look(format="json", command=command)))
    return cast("dict[str, Any]", written["result"])


def _targets(names: Sequence[str]) -> list[str]:
    asked = _texts(names, _MOST_TARGETS, "targets")
    known = open_catalog(())
    for name in asked:
        if not _ELSEWHERE.fullmatch(name):
            find_named(name, known)  # raises UsageError, with the nearest name
    return asked


def _cards(names: Sequence[str]) -> list[str]:
    return _texts(names, _MOST_CARDS, "cards")


def _texts(given: Sequence[str], most: int, what: str) -> list[str]:
    if len(given) > most:
        raise UsageError(f"{len(given)} {what}: at most {most} at once")
    if any(len(one) > _LONGEST for one in given):
        raise UsageError(f"{what}: at most {_LONGEST} characters each")
    return list(given)


def _settings(given: Mapping[str, Setting] | None) -> dict[str, Any]:
    found: dict[str, Any] = dict(given or {})
    if len(found) > _MOST_SETTINGS:
        raise UsageError(f"{len(found)} settings: at most {_MOST_SETTINGS} at once")
    _texts([*found, *(str(value) for value in found.values())], 2 * _MOST_SETTINGS, "settings")
    for key in found:
        if key not in SETTING_HELP:
            hint = did_you_mean(key, SETTING_HELP, likeness=0.7)
            raise UsageError(f"unknown setting {key!r}", hint=hint)
        if form_of(key).kind == "files":
            raise UsageError(f"{key}: files of this machine are not read for an assistant")
    return found
