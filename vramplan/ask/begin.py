"""What a project's first file is made of: this machine's GPU, and the models that are here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from vramplan.ask.cards import (
    DEFAULT_CLASSES,
    LOCAL,
    LOCAL_TOGETHER,
    choose_cards,
    own_cards,
)
from vramplan.ask.check import Progress
from vramplan.ask.folders import models_in
from vramplan.ask.judge import judge
from vramplan.ask.targets import (
    find_target,
    job_of,
    make_jobs,
    open_catalog,
    open_pipelines,
    silent,
)
from vramplan.catalog import Catalog
from vramplan.catalog.beginning import Beginning, Begun
from vramplan.catalog.target_text import read_target
from vramplan.engines import door
from vramplan.engines.door import Remark
from vramplan.errors import UsageError, VramplanError
from vramplan.model import VerdictKind
from vramplan.sources.model_folder import find_in_lm_studio, lm_studio_folder

#: what stands in a file that nothing was found for: the first of these that fits its cards
SAMPLES = ("sd15", "sd15-vae", "log-anomaly-ae")
#: so many models are looked at, and so many of a store are judged unless somebody asks for more
_MOST_LOOKED_AT, _MOST_JUDGED = 200, 8
#: what the file takes
_MOST_TARGETS = 64
_LM_STUDIO = "lmstudio:"


def begin(
    targets: Sequence[str],
    cards: Sequence[str],
    remark: Remark,
    progress: Progress = silent,
    *,
    catalog: Sequence[str | Path] = (),
) -> Beginning:
    """Return what to write for a person who names these TARGETs and CARDs, or none of them.

    The models of this folder go before those of the stores, which then are comments. Raises
    VramplanError for a target or a card that is named and nobody knows.
    """
    known = open_catalog(catalog)
    for text in cards:
        if text.strip().lower() not in (LOCAL, LOCAL_TOGETHER):
            known.card(text)
    own = [] if cards else own_cards(known, remark)
    chosen = [Begun(text=text) for text in cards]
    chosen = chosen or [Begun(text=text, about=about) for text, about in own]
    chosen = chosen or [Begun(text=text) for text in DEFAULT_CLASSES]
    for text in targets:
        if not text.isprintable():
            raise UsageError(f"{text[:200]!r}: a name that cannot be written into a file")
    if targets:
        named = tuple(_named(text, known) for text in dict.fromkeys(targets))
        return Beginning(cards=tuple(chosen), targets=named, has_own_gpu=bool(own))
    found = list(_look_at(islice(_models_here(), _MOST_LOOKED_AT), known, progress))
    usable = [one for one in found if not one.why]
    here = [one for one in usable if not one.place]
    most = _MOST_TARGETS if here else _MOST_JUDGED
    judged = (here or usable)[:most]
    return Beginning(
        cards=tuple(chosen),
        targets=tuple(judged) or (_sample([card.text for card in chosen], known),),
        others=tuple(one for one in usable if one not in judged),
        left_out=tuple(one for one in found if one.why),
        is_sample=not judged,
        has_own_gpu=bool(own),
    )


def _sample(cards: Sequence[str], known: Catalog) -> Begun:
    """Return a pipeline that ships and fits all the cards, else the smallest of them."""
    for name in SAMPLES:
        (job,) = make_jobs([name], known, {})
        try:
            choices = choose_cards(cards, known, silent)
            if all(judge(job, one)[0].kind is VerdictKind.FITS for one in choices):
                return _named(name, known)
        except VramplanError:  # no GPU for auto, or a card without room for anything
            continue
    return _named(SAMPLES[-1], known)


def _named(text: str, known: Catalog) -> Begun:
    return Begun(text=text, about=_about(text, known))


def _about(text: str, known: Catalog) -> str:
    """Return what a TARGET is; raises VramplanError where it is nothing that can be judged."""
    read = read_target(text)
    (pipeline,) = open_pipelines([find_target(read.text, known)], known)
    job_of(pipeline, read)
    return pipeline.title


def _look_at(
    models: Iterator[tuple[str, str]], known: Catalog, progress: Progress
) -> Iterator[Begun]:
    for number, (place, text) in enumerate(models):
        progress(text, number)
        if not text.isprintable():
            yield Begun(text=text, place=place, why="its name cannot be written")
            continue
        try:
            yield Begun(text=text, place=place, about=_about(text, known))
        except VramplanError as problem:
            yield Begun(text=text, place=place, why=str(problem))


def _models_here() -> Iterator[tuple[str, str]]:
    """Yield the models of this machine, this folder's first: whose each is, and the TARGET."""
    here = Path()
    for path in models_in(here):
        yield "", str(path)
    studio = lm_studio_folder()
    for place, text in door.stored_models():
        yield place, text if studio is None else _in_lm_studio(text, studio)
    from vramplan.sources.hub_cache import cached_models

    for text in cached_models():
        yield "the hub's cache", text


def _in_lm_studio(text: str, folder: Path) -> str:
    """Return how a model in LM Studio's folder is named on any machine; others as they are."""
    path = Path(text)
    if not path.is_relative_to(folder):
        return text
    name = path.relative_to(folder).as_posix()
    return text if find_in_lm_studio(name) is None else f"{_LM_STUDIO}{name}"
